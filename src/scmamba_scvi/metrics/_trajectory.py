"""Is the order of cells along a process kept?"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import pearsonr, spearmanr

from .._columns import in_order_of
from .._compat import scanpy_module, warn
from ..errors import ScmambaError
from .distances import Matrix, as_matrix, resolve_k
from .graph import neighbor_graph


def diffusion_pseudotime(
    x: Matrix,
    root: int,
    *,
    n_neighbors: int = 30,
    random_state: int = 0,
) -> np.ndarray:
    """Diffusion pseudotime of each cell from a root [Haghverdi16]_, as scanpy computes it, of ten diffusion components.

    Parameters
    ----------
    x
        ``(n, z)`` embedding of the cells of one lineage; leave out other cells, which would take part in the diffusion.
    root
        Position of the root cell. To compare two embeddings, use the same for both.
    n_neighbors
        Neighbours of a cell in the graph, itself not counted.
    random_state
        Seed of the eigenvectors and of the order of ties.

    Returns
    -------
    Float64 ``(n,)``, 0 at the root and 1 at the farthest cell. Cells that no path of the graph connects to the root are
    ``NaN``; more neighbours may connect them.

    Raises
    ------
    ScmambaError
        ``root`` is no position of a cell, all cells are at one point, or no other cell is connected to the root.

    References
    ----------
    .. [Haghverdi16] Haghverdi et al., Diffusion pseudotime robustly reconstructs lineage branching, Nature Methods
       2016.

    Examples
    --------
    >>> along_a_line = np.sort(np.random.default_rng(0).random(100))
    >>> cells = along_a_line[:, None]
    >>> time = metrics.diffusion_pseudotime(cells, root=0, n_neighbors=10)
    >>> bool(time[:50].max() < time[50:].min())
    True
    """
    sc = scanpy_module()
    x = as_matrix(x)
    n = len(x)
    if isinstance(root, bool) or not isinstance(root, int | np.integer) or not 0 <= root < n:
        raise ScmambaError(f"root must be the position of a cell, 0 to {n - 1}; got {root!r}.")
    k = resolve_k(n_neighbors, n)
    if (x - x[0]).abs().max() <= 1e-12 * x.abs().max():
        # ties would give a random graph, and a pseudotime on it that looks like any other
        raise ScmambaError(f"All {n:,} cells are at one point: the embedding has no order to find.")
    cells = neighbor_graph(x, k, random_state)
    sc.tl.diffmap(cells, n_comps=max(min(15, n - 2), 3), random_state=random_state)
    cells.uns["iroot"] = root
    sc.tl.dpt(cells, n_dcs=min(10, n - 2))
    time = cells.obs["dpt_pseudotime"].to_numpy(dtype=np.float64)
    reached = np.isfinite(time)
    if reached.sum() < 2 or np.ptp(time[reached]) == 0:
        raise ScmambaError(
            f"No other cell is both connected to the root, cell {root}, and apart from it: choose another root."
        )
    return np.where(reached, time, np.nan)


def trajectory_conservation(before: np.ndarray | pd.Series, after: np.ndarray | pd.Series) -> float:
    """Trajectory conservation: rank correlation of two pseudotimes, scaled to 0..1 (equation 27; [Luecken22]_).

    Higher is better: 1 for the same order, 0.5 for unrelated orders, 0 for the reversed one. For two modalities take
    the mean of their scores.

    Parameters
    ----------
    before
        ``(n,)`` pseudotime of the cells in the original data of a modality.
    after
        ``(n,)`` pseudotime of the same cells in the embedding, from the same root. At least three cells must have both. Two
        ``Series`` with names of cells are aligned by these, anything else by row.

    Returns
    -------
    The score, a float.

    Raises
    ------
    ScmambaError
        The two differ in shape or name other cells, fewer than three cells have both, or one is the same for all cells.

    Notes
    -----
    Cells that lack a pseudotime (``NaN`` or infinite, not connected to the root) are left out and a warning says how
    many; scib counts them as if they stood at the root. Spearman's correlation, ties at their mean rank.

    Examples
    --------
    >>> before, after = np.array([0.0, 0.3, 1.0]), np.array([0.0, 0.5, 0.9])
    >>> metrics.trajectory_conservation(before, after)
    1.0
    """
    a, b = _of_common_cells(before, after, "before", "after")
    return float((spearmanr(a, b).statistic + 1) / 2)


def pseudotime_consistency(a: np.ndarray | pd.Series, b: np.ndarray | pd.Series) -> float:
    """Pearson's correlation of the pseudotimes of the same cells from two modalities.

    -1 to 1, higher is better.

    Parameters
    ----------
    a, b
        ``(n,)`` pseudotimes from the same root cell. Cells are aligned, and those that lack one are left out, as in
        :func:`trajectory_conservation`.

    Returns
    -------
    The correlation, a float.

    Raises
    ------
    ScmambaError
        As :func:`trajectory_conservation`.

    Examples
    --------
    >>> rna, atac = np.array([0.0, 0.5, 1.0]), np.array([0.1, 0.6, 1.1])
    >>> round(metrics.pseudotime_consistency(rna, atac), 6)
    1.0
    """
    return float(pearsonr(*_of_common_cells(a, b, "a", "b")).statistic)


def _of_common_cells(a: Any, b: Any, name_a: str, name_b: str) -> tuple[np.ndarray, np.ndarray]:
    """Pseudotimes of the cells that have both, which must differ from cell to cell."""
    a, b = (np.asarray(values, dtype=np.float64) for values in (a, in_order_of(a, b, name_b)))
    if a.ndim != 1 or a.shape != b.shape:
        raise ScmambaError(f"{name_a} and {name_b} must hold one pseudotime per cell; got {a.shape} and {b.shape}.")
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 3:
        raise ScmambaError(f"{int(both.sum())} of {len(a)} cells have both pseudotimes; a correlation needs three.")
    if not both.all():
        warn(f"{len(a) - both.sum():,} of {len(a):,} cells lack a pseudotime and are left out.")
    for name, values in ((name_a, a), (name_b, b)):
        if np.ptp(values[both]) == 0:
            raise ScmambaError(f"{name} is {values[both][0]:g} for all cells: it has no order to compare.")
    return a[both], b[both]
