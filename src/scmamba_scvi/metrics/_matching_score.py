"""Do neighbours that two modalities have in common lead from a cell to its true match?"""

from typing import Final

import numpy as np
from sklearn.neighbors import NearestNeighbors

from .._arguments import check_count
from ..errors import ScmambaError
from ._matching import check_pairs
from .distances import Matrix
from .graph import break_ties

#: Rows of the product of neighbour graphs computed at a time; each has about ``k * k`` entries.
BLOCK_ROWS: Final = 4096


def matching_score(
    x: Matrix,
    y: Matrix,
    n_neighbors: int = 1,
    *,
    random_state: int = 0,
) -> float:
    """Matching score: confidence that common neighbours lead to the true match (equations 25 and 26).

    0 to 1, higher is better; chance is about ``1 / n``. Report ``n_neighbors`` with it: the score falls as that grows.

    Parameters
    ----------
    x, y
        As in :func:`true_match_ranks`.
    n_neighbors
        Neighbours of a cell in each modality, 1 to ``n``. In its own modality a cell counts as the first of its
        neighbours, since cells of the other modality may have it as a neighbour too.
    random_state
        Seed of the order of ties.

    Returns
    -------
    The score, a float.

    Raises
    ------
    ScmambaError
        ``x`` and ``y`` are not of the same cells (see :func:`true_match_ranks`), or ``n_neighbors`` is not 1 to ``n``.

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
    x, y = check_pairs(x, y)
    n, k = len(x), n_neighbors
    check_count("n_neighbors", k)
    if k > n:
        raise ScmambaError(f"n_neighbors={k:,} is more than the {n:,} cells.")
    x, y = np.split(break_ties(np.concatenate([x.cpu(), y.cpu()]), random_state), 2)
    of_x, of_y = (NearestNeighbors(n_neighbors=k).fit(points) for points in (x, y))
    x_of_x, y_of_x = of_x.kneighbors_graph(x), of_y.kneighbors_graph(x)  # sparse ones (n, n)
    y_of_y_t, x_of_y_t = of_y.kneighbors_graph(y).T.tocsr(), of_x.kneighbors_graph(y).T.tocsr()
    total = 0.0
    for start in range(0, n, BLOCK_ROWS):
        rows = slice(start, min(start + BLOCK_ROWS, n))
        shared = (x_of_x[rows] @ x_of_y_t + y_of_x[rows] @ y_of_y_t).tocoo()
        jaccard = shared.data / (4 * k - shared.data)
        row_sum = np.bincount(shared.row, jaccard, minlength=rows.stop - start)
        match = shared.col == shared.row + start
        total += float((jaccard[match] / row_sum[shared.row[match]]).sum())
    return total / n
