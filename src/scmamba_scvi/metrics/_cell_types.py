"""Are the nearest neighbours of a cell of its type?"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ..errors import ScmambaError
from ._labels import Labels, label_codes
from .distances import Matrix, as_matrix, nearest, prepare, query_rows, resolve_k


def knn_accuracy(
    x: Matrix,
    cell_type: Labels,
    n_neighbors: int = 15,
    *,
    max_queries: int | None = None,
    random_state: int = 0,
    device: str | torch.device | None = None,
) -> float:
    """Fraction of cells whose type is the most frequent one among their nearest neighbours, themselves left out.

    0 to 1, higher is better; chance is at most the fraction of the most frequent type.

    Parameters
    ----------
    x
        ``(n, z)`` embedding.
    cell_type
        ``(n,)`` labels.
    n_neighbors
        Neighbours that vote, the cell itself never among them.
    max_queries
        Average over this many cells, drawn at random, instead of all; they are still compared with all. Unbiased, and
        enough above 50,000 rows.
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
    Of types with equally many votes, the one with the nearest voter wins. A cell whose label occurs once is always
    wrong.

    Examples
    --------
    >>> metrics.knn_accuracy(np.array([[0.0], [1.0], [8.0], [9.0]]), list("TTBB"), n_neighbors=1)
    1.0
    """
    x = as_matrix(x, "x", device)
    codes = torch.as_tensor(label_codes(cell_type, len(x), "cell_type"), device=x.device)
    k = resolve_k(n_neighbors, None, len(x))
    (points,) = prepare(x)
    # ties: each place weighs more than all later places together, and all places together less than one vote
    weight = 1 + 0.5 ** torch.arange(1, k + 1, device=x.device, dtype=torch.float64)
    n_types = int(codes.max()) + 1
    correct = []
    for rows, found in nearest(points, k, query_rows(len(x), max_queries, random_state), random_state):
        votes = torch.zeros(len(found), n_types, dtype=torch.float64, device=x.device)
        votes.scatter_add_(1, codes[found], weight.expand(len(found), k))  # (b, types)
        correct.append(votes.argmax(dim=1) == codes[torch.as_tensor(rows, device=x.device)])
    return float(torch.cat(correct).double().mean())


def mean_average_precision(
    x: Matrix,
    cell_type: Labels,
    *,
    neighbor_frac: float = 0.01,
    n_neighbors: int | None = None,
    max_queries: int | None = None,
    random_state: int = 0,
    device: str | torch.device | None = None,
) -> float:
    """Mean average precision of the cell types among nearest neighbours (equations 10 and 11; [Cao22]_).

    0 to 1, higher is better; chance is about the frequency of the types, or somewhat more with few neighbours.

    Parameters
    ----------
    x
        ``(n, z)`` embedding; stack the modalities to score them together.
    cell_type
        ``(n,)`` labels.
    neighbor_frac
        Neighbours of a cell as a fraction of all cells, at least one; the paper's 1 %.
    n_neighbors
        Their number instead. The cell itself is never one of them.
    max_queries, random_state, device
        As in :func:`knn_accuracy`.

    Raises
    ------
    ScmambaError
        If ``x`` is not finite, if labels are missing, of another number or all the same, or if there are not more
        cells than neighbours.

    Notes
    -----
    Equation 11 as printed is always 1: it lacks the precision at each match. Here, as in [Cao22]_, the average
    precision of a cell is the mean over its matching neighbours of the fraction of matches up to them. It is 0 without a
    match, as for a cell whose label occurs once.

    References
    ----------
    .. [Cao22] Cao and Gao, Multi-omics single-cell data integration and regulatory inference with graph-linked
       embedding, Nature Biotechnology 2022.

    Examples
    --------
    >>> metrics.mean_average_precision(np.array([[0.0], [1.0], [8.0], [9.0]]), list("TTBB"), n_neighbors=1)
    1.0
    """
    x = as_matrix(x, "x", device)
    codes = torch.as_tensor(label_codes(cell_type, len(x), "cell_type"), device=x.device)
    k = resolve_k(n_neighbors, neighbor_frac, len(x))
    (points,) = prepare(x)
    place = torch.arange(1, k + 1, device=x.device, dtype=torch.float64)
    precision = []
    for rows, found in nearest(points, k, query_rows(len(x), max_queries, random_state), random_state):
        match = (codes[found] == codes[torch.as_tensor(rows, device=x.device), None]).double()  # (b, k)
        precision.append((match * match.cumsum(dim=1) / place).sum(dim=1) / match.sum(dim=1).clamp(min=1))
    return float(torch.cat(precision).mean())


def graph_connectivity(
    x: Matrix,
    cell_type: Labels,
    n_neighbors: int = 15,
    *,
    random_state: int = 0,
    device: str | torch.device | None = None,
) -> float:
    """Fraction of the cells of a type in its largest connected part, mean over types (equation 18; [Luecken22]_).

    Above 0 to 1, higher is better.

    Parameters
    ----------
    x
        ``(n, z)`` embedding, cells of all modalities stacked.
    cell_type
        ``(n,)`` labels. One label is enough.
    n_neighbors
        Neighbours of a cell, itself not counted; scanpy counts it, so its 15 are 14 here.
    random_state
        Seed of the order of ties.
    device
        As in :func:`knn_accuracy`.

    Raises
    ------
    ScmambaError
        If ``x`` is not finite, if labels are missing or of another number, if no label occurs twice, or if there are
        not more cells than neighbours.

    Notes
    -----
    Two cells are joined if either is among the neighbours of the other, as in scib and in the paper's code;
    scib-metrics asks for paths along directed edges and gives lower scores. A type of one cell is connected whatever
    the embedding, and is left out of the mean.

    References
    ----------
    .. [Luecken22] Luecken et al., Benchmarking atlas-level data integration in single-cell genomics, Nature Methods
       2022.

    Examples
    --------
    >>> metrics.graph_connectivity(np.array([[0.0], [1.0], [8.0], [9.0]]), list("TTTT"), n_neighbors=1)
    0.5
    """
    x = as_matrix(x, "x", device)
    n = len(x)
    codes = label_codes(cell_type, n, "cell_type", at_least=1)
    k = resolve_k(n_neighbors, None, n)
    sizes = np.bincount(codes)
    if sizes.max() < 2:
        raise ScmambaError(f"cell_type has {n:,} labels for {n:,} cells: no type has two cells to connect.")
    (points,) = prepare(x)
    starts, ends = [], []
    for rows, found in nearest(points, k, np.arange(n), random_state):
        end = found.cpu().numpy()
        inside = codes[end] == codes[rows, None]  # edges within a type
        starts.append(np.repeat(rows, inside.sum(axis=1)))
        ends.append(end[inside])
    start, end = np.concatenate(starts), np.concatenate(ends)
    graph = sparse.coo_array((np.ones(len(start), dtype=bool), (start, end)), shape=(n, n)).tocsr()
    component = connected_components(graph, directed=False)[1]
    largest = np.zeros(len(sizes))
    _, first, size = np.unique(component, return_index=True, return_counts=True)
    np.maximum.at(largest, codes[first], size)
    return float((largest / sizes)[sizes > 1].mean())
