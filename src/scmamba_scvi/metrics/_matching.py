"""Does a cell of one modality find itself among the cells of the other?

Row ``i`` of ``x`` and row ``i`` of ``y`` are the same cell, embedded from two modalities. Both scores come from one
number per cell: how many cells of the other modality are strictly closer to it than its partner is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import ScmambaError

#: Below this many rows distances are computed in float64, above it in float32, which is twice as fast.
FLOAT64_BELOW = 5_000
#: Entries of the distance matrix that exist at a time (64 MB in float32).
BLOCK_ENTRIES = 2**24


def foscttm(x: np.ndarray | Tensor, y: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Fraction of samples closer than the true match, per cell and direction [Singh20]_.

    0 is perfect, about 0.5 is chance (precisely ``(n - 1) / 2n``), lower is better. The score of an integration is the
    mean over both arrays.

    Parameters
    ----------
    x
        ``(n, z)`` embedding from one modality; Euclidean distances are taken on it as given.
    y
        ``(n, z)`` embedding of the same cells, in the same order, from the other modality.

    Returns
    -------
    Two float64 arrays ``(n,)``: for the cells of ``x`` the fraction of rows of ``y`` that are strictly closer than the
    partner, and for the cells of ``y`` the same among the rows of ``x``.

    Raises
    ------
    ScmambaError
        If the arrays differ in shape, are empty, or hold values that are not finite.

    Notes
    -----
    Memory is linear in ``n``. Ties, up to rounding, do not count as closer, so an embedding that maps all cells to one
    point scores a meaningless 0: look at the clusters beside it.

    References
    ----------
    .. [Singh20] Singh et al., Unsupervised manifold alignment for single-cell multi-omics data, ACM-BCB 2020.
    """
    x, y = _check_pairs(x, y)
    n = x.shape[0]
    return _n_closer(x, y).cpu().numpy() / n, _n_closer(y, x).cpu().numpy() / n


def recall_at_k(x: np.ndarray | Tensor, y: np.ndarray | Tensor, k: int = 10) -> float:
    """Share of cells whose partner is among their ``k`` nearest in the other modality, mean of both directions.

    1 is perfect, ``k / n`` is chance, higher is better. Parameters, ties and errors as in :func:`foscttm`; ``k`` must
    be between 1 and ``n``.
    """
    x, y = _check_pairs(x, y)
    n = x.shape[0]
    if not 1 <= k <= n:
        raise ScmambaError(f"k must be between 1 and the number of cells, {n}; got {k}.")
    hits = [(_n_closer(a, b) < k).double().mean() for a, b in ((x, y), (y, x))]
    return float(sum(hits) / 2)


def _n_closer(x: Tensor, y: Tensor) -> Tensor:
    """How many rows of ``y`` are strictly closer to row ``i`` of ``x`` than row ``i`` of ``y`` is, ``(n,)`` int64."""
    n = x.shape[0]
    x_square, y_square = (x * x).sum(dim=1), (y * y).sum(dim=1)  # (n,)
    # Squared distances from a matrix product differ in their last digits where they should be equal: duplicated cells
    # would count as closer than one another. What differs by rounding only is a tie.
    rounding = 16 * torch.finfo(x.dtype).eps * (x_square.max() + y_square.max())
    size = max(1, BLOCK_ENTRIES // n)
    counts = []
    for start in range(0, n, size):
        block = x[start : start + size]  # (b, z)
        # |x|^2 - 2xy + |y|^2 without its first term, which is the same for a whole row
        distances = torch.addmm(y_square, block, y.T, alpha=-2.0)  # (b, n)
        partner = distances.diagonal(start)  # (b,)
        counts.append((distances < (partner - rounding)[:, None]).sum(dim=1))
    return torch.cat(counts)


def _check_pairs(x: np.ndarray | Tensor, y: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
    """Both arrays as centred tensors of the dtype their size asks for."""
    x, y = torch.as_tensor(x).detach(), torch.as_tensor(y).detach()
    if x.ndim != 2 or x.shape != y.shape or 0 in x.shape:
        raise ScmambaError(
            f"x and y must be matrices of one shape (n cells, n dimensions), row i of both being the same cell; "
            f"got {tuple(x.shape)} and {tuple(y.shape)}."
        )
    for name, values in (("x", x), ("y", y)):
        bad = int((~torch.isfinite(values).all(dim=1)).sum())
        if bad:
            raise ScmambaError(
                f"{bad:,} of {len(values):,} rows of {name} are not finite: leave out cells that lack a modality."
            )
    x, y = x.double(), y.double()
    # differences of squares lose digits when the cloud is far from the origin
    centre = y.mean(dim=0)
    dtype = torch.float64 if len(x) < FLOAT64_BELOW else torch.float32
    return (x - centre).to(dtype), (y - centre).to(dtype)
