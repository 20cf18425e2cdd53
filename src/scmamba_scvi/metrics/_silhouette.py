"""How much nearer is a cell to its own group than to the next one?"""

import numpy as np
import torch
from torch import Tensor

from ..errors import ScmambaError
from ._labels import Labels, label_codes
from .distances import Matrix, as_matrix, distance_sums, prepare, query_rows


def cell_type_asw(
    x: Matrix,
    cell_type: Labels,
    *,
    max_queries: int | None = None,
    random_state: int = 0,
    device: str | torch.device | None = None,
) -> float:
    """Average silhouette width of the cell types, scaled to 0..1 (equation 12).

    0 to 1, higher is better; 0.5 means that types overlap completely, as with random labels or with all cells at one
    point.

    Parameters
    ----------
    device
        Where to compute: ``None`` where ``x`` lies (an array: CPU), ``"auto"`` a CUDA device if there is one.
    x, cell_type, max_queries, random_state
        As in :func:`knn_accuracy`.

    Notes
    -----
    ``(s + 1) / 2`` with the mean ``s`` of scikit-learn's ``silhouette_samples`` on Euclidean distances: a cell whose
    label occurs once has silhouette 0.

    Examples
    --------
    >>> round(metrics.cell_type_asw(np.array([[0.0], [0.1], [9.0], [9.1]]), list("TTBB")), 2)
    0.99
    """
    x = as_matrix(x, "x", device)
    codes = label_codes(cell_type, len(x), "cell_type")
    if np.bincount(codes).max() < 2:
        raise ScmambaError(f"cell_type has {len(x):,} labels for {len(x):,} cells: no cell has another of its type.")
    silhouettes = _silhouettes(x, codes, query_rows(len(x), max_queries, random_state))
    return float((silhouettes.mean() + 1) / 2)


def omics_asw(
    x: Matrix,
    omics: Labels,
    cell_type: Labels,
    *,
    device: str | torch.device | None = None,
) -> float:
    """One minus the absolute silhouette of the modalities, averaged within and then over types (equations 13 and 14).

    0 to 1, higher is better: 1 means that the modalities of each type cannot be told apart.

    Parameters
    ----------
    x, omics, cell_type, device
        As in :func:`omics_entropy_mixing` and :func:`cell_type_asw`.

    Notes
    -----
    Equation 13 lacks a parenthesis: it is the mean of ``1 - |s|``. Silhouettes are computed among the cells of a type.
    The only cell of a modality in a type has silhouette 0. A type of which there is one modality only, or one cell of
    each, is left out, since it cannot be mixed; the authors' code counts types of one modality as perfectly mixed.

    Examples
    --------
    >>> metrics.omics_asw(np.array([[0.0], [1.0], [0.0], [1.0]]), ["rna", "rna", "atac", "atac"], list("TTTT"))
    0.5
    """
    x = as_matrix(x, "x", device)
    modality = label_codes(omics, len(x), "omics")
    types = label_codes(cell_type, len(x), "cell_type", at_least=1)
    scores = []
    for code in np.unique(types):
        members = np.flatnonzero(types == code)
        codes = np.unique(modality[members], return_inverse=True)[1]
        if not 1 < codes.max() + 1 < len(codes):
            continue
        inside = x[torch.as_tensor(members, device=x.device)]
        scores.append(float((1 - _silhouettes(inside, codes, np.arange(len(codes))).abs()).mean()))
    if not scores:
        raise ScmambaError("No cell type has several cells of two modalities: nothing can be mixed.")
    return float(np.mean(scores))


def _silhouettes(x: Tensor, codes: np.ndarray, rows: np.ndarray) -> Tensor:
    """Silhouette of some of the cells, float64 ``(m,)`` on the CPU."""
    (points,) = prepare(x)
    size = torch.as_tensor(np.bincount(codes)).double()  # (labels,)
    sums = distance_sums(points, torch.as_tensor(codes, device=points.device), len(size), rows).cpu()
    own = torch.as_tensor(codes[rows])[:, None]  # (m, 1)
    within = sums.gather(1, own)[:, 0] / (size[own[:, 0]] - 1).clamp(min=1)
    between = (sums / size).scatter(1, own, torch.inf).amin(dim=1)
    width = (between - within) / torch.maximum(between, within)
    # 0, neither well nor badly placed: where all distances are 0 (0/0), and for a cell alone with its label
    return torch.where((size[own[:, 0]] > 1) & width.isfinite(), width, 0.0)
