"""Do neighbours that two modalities share lead from a cell to its partner?"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ..errors import ScmambaError
from ._matching import check_pairs
from .distances import Matrix, nearest, nearest_with_distances, prepare

#: Rows of the product of neighbour graphs computed at a time; each has about ``k * k`` entries.
BLOCK_ROWS: Final = 4096


def matching_score(
    x: Matrix,
    y: Matrix,
    n_neighbors: int = 1,
    *,
    random_state: int = 0,
    device: str | torch.device | None = None,
) -> float:
    """Matching score: confidence that neighbours shared across modalities lead to the partner (equations 25 and 26).

    0 to 1, higher is better; chance is about ``1 / n``. Report ``n_neighbors`` with it: the score falls as that grows.

    Parameters
    ----------
    x
        ``(n, z)`` embedding from one modality.
    y
        ``(n, z)`` embedding of the same cells, in the same order, from the other modality.
    n_neighbors
        Neighbours of a cell in each modality, 1 to ``n``. In its own modality a cell counts as the first of its
        neighbours, since cells of the other modality may have it as a neighbour too.
    random_state
        Seed of the order of ties.
    device
        As in :func:`mean_average_precision`.

    Raises
    ------
    ScmambaError
        If the arrays differ in shape, hold one cell or values that are not finite, or if there are fewer cells than
        neighbours.

    Notes
    -----
    With ``Kx(a)`` the neighbours of cell ``a``, of either modality, among the rows of ``x``, and ``Ky(a)`` among those
    of ``y``, cell ``i`` of ``x`` and cell ``j`` of ``y`` have the Jaccard index ``M_ij = s / (4 k - s)``, ``s`` =
    ``|Kx(i) & Kx(j)| + |Ky(i) & Ky(j)|``: neighbours of different modalities are different things, which equation 25
    leaves open. Rows of ``M`` are divided by their sums and its diagonal is averaged, so that the score of ``(y, x)``
    differs from that of ``(x, y)``. A cell that shares no neighbour with any other counts as 0. The paper does not
    state ``k``; its code takes 1.

    Examples
    --------
    >>> metrics.matching_score(np.eye(4), np.eye(4))
    1.0
    """
    x, y = check_pairs(x, y, device)
    n, k = len(x), n_neighbors
    if not 1 <= k <= n:
        raise ScmambaError(f"n_neighbors must be between 1 and the number of cells, {n}; got {k}.")
    x, y = prepare(x, y)
    x_of_x, y_of_y = _own_graph(x, k, random_state), _own_graph(y, k, random_state)
    x_of_y, y_of_x = _cross_graph(x, y, k, random_state), _cross_graph(y, x, k, random_state)
    x_of_y_t, y_of_y_t = x_of_y.T.tocsr(), y_of_y.T.tocsr()
    total = 0.0
    for start in range(0, n, BLOCK_ROWS):
        rows = slice(start, min(start + BLOCK_ROWS, n))
        shared = (x_of_x[rows] @ x_of_y_t + y_of_x[rows] @ y_of_y_t).tocoo()
        jaccard = shared.data / (4 * k - shared.data)
        row_sum = np.bincount(shared.row, jaccard, minlength=rows.stop - start)
        partner = shared.col == shared.row + start
        total += float((jaccard[partner] / row_sum[shared.row[partner]]).sum())
    return total / n


def _cross_graph(points: Tensor, queries: Tensor, k: int, random_state: int) -> sparse.csr_array:
    """The ``k`` nearest points of each query, ``(m, n)``."""
    found = [index.cpu().numpy() for _, index, _ in nearest_with_distances(points, queries, k, None, random_state)]
    return _as_graph(np.concatenate(found), len(points))


def _own_graph(points: Tensor, k: int, random_state: int) -> sparse.csr_array:
    """Each point and its ``k - 1`` nearest others, ``(n, n)``."""
    n = len(points)
    found = np.arange(n)[:, None]
    if k > 1:
        others = [index.cpu().numpy() for _, index in nearest(points, k - 1, np.arange(n), random_state)]
        found = np.hstack([found, np.concatenate(others)])
    return _as_graph(found, n)


def _as_graph(found: np.ndarray, n: int) -> sparse.csr_array:
    """Neighbours ``(m, k)`` as a matrix ``(m, n)`` of ones."""
    m, k = found.shape
    return sparse.csr_array((np.ones(m * k), found.ravel(), np.arange(0, m * k + 1, k)), shape=(m, n))
