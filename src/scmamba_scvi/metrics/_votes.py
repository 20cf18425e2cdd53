"""Would a cell's neighbours name its type?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ._distances import as_matrix, check_k, nearest, prepare, query_rows
from ._labels import Labels, label_codes


def knn_accuracy(
    x: np.ndarray | Tensor,
    cell_type: Labels,
    n_neighbors: int = 15,
    *,
    max_queries: int | None = None,
    random_state: int = 0,
    device: str | torch.device | None = None,
) -> float:
    """Share of cells whose type is the most frequent one among their nearest neighbours, themselves left out.

    0 to 1, higher is better; an embedding that knows nothing of the types gets at most the share of the largest.

    Parameters
    ----------
    x
        ``(n, z)`` embedding.
    cell_type
        ``(n,)`` labels.
    n_neighbors
        Neighbours that vote, the cell itself never among them.
    max_queries
        Average over this many cells, drawn at random, instead of all; they are still compared with all.
    random_state
        Seed of that draw and of the order of ties.
    device
        Where to compute: ``None`` where ``x`` lies (an array: CPU), ``"auto"`` a CUDA device if there is one.

    Raises
    ------
    ScmambaError
        If ``x`` is not finite, if labels are missing, of another number or all the same, or if there are not more
        cells than neighbours.

    Notes
    -----
    Of types with as many votes, the one with the nearest voter wins. A cell whose label is seen once is always wrong.

    Examples
    --------
    >>> metrics.knn_accuracy(np.array([[0.0], [1.0], [8.0], [9.0]]), list("TTBB"), n_neighbors=1)
    1.0
    """
    x = as_matrix(x, "x", device)
    codes = torch.as_tensor(label_codes(cell_type, len(x), "cell_type"), device=x.device)
    k = check_k(n_neighbors, None, len(x))
    (points,) = prepare(x)
    # an advantage of place outweighs all later ones, and all of them together weigh less than a vote
    weight = 1 + 0.5 ** torch.arange(1, k + 1, device=x.device, dtype=torch.float64)
    n_types = int(codes.max()) + 1
    right = []
    for rows, found in nearest(points, k, query_rows(len(x), max_queries, random_state), random_state):
        votes = torch.zeros(len(found), n_types, dtype=torch.float64, device=x.device)
        votes.scatter_add_(1, codes[found], weight.expand(len(found), k))  # (b, types)
        right.append(votes.argmax(dim=1) == codes[torch.as_tensor(rows, device=x.device)])
    return float(torch.cat(right).double().mean())
