"""What is found among the nearest neighbours of a cell: its type, the other layers, its partner's neighbours."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ..errors import ScmambaError
from ._distances import as_matrix, check_k, nearest, nearest_with_distances, prepare, query_rows
from ._labels import Labels, label_codes
from ._matching import check_pairs

Matrix = np.ndarray | Tensor


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

    0 to 1, higher is better; chance is about the share of the types, or somewhat more with few neighbours.

    Parameters
    ----------
    x
        ``(n, z)`` embedding; stack the modalities to score them together.
    cell_type
        ``(n,)`` labels.
    neighbor_frac
        Neighbours of a cell as a share of all cells, at least one; the paper's 1 %.
    n_neighbors
        Their number instead. The cell itself is never one of them.
    max_queries
        Average over this many cells, drawn at random, instead of all. Unbiased, and enough above 50,000 rows.
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
    Equation 11 as printed is always 1: it lacks the precision at each match. Here, as in [Cao22]_, the average
    precision of a cell is the mean over its matching neighbours of the share of matches up to them. It is 0 without a
    match, thus always for a cell whose label is seen once.

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
    k = check_k(n_neighbors, neighbor_frac, len(x))
    (points,) = prepare(x)
    place = torch.arange(1, k + 1, device=x.device, dtype=torch.float64)
    precision = []
    for rows, found in nearest(points, k, query_rows(len(x), max_queries, random_state), random_state):
        match = (codes[found] == codes[torch.as_tensor(rows, device=x.device), None]).double()  # (b, k)
        precision.append((match * match.cumsum(dim=1) / place).sum(dim=1) / match.sum(dim=1).clamp(min=1))
    return float(torch.cat(precision).mean())


def omics_entropy_mixing(
    x: Matrix,
    omics: Labels,
    *,
    n_neighbors: int = 100,
    n_samples: int | None = 100,
    n_pools: int = 100,
    normalize: bool = True,
    random_state: int = 0,
    device: str | torch.device | None = None,
) -> float:
    """Omics entropy mixing score: evenness of the layers around a cell (equations 15 and 16).

    0 to 1, higher is better; 1 says that all layers surround a cell in the shares they have overall.

    Parameters
    ----------
    x
        ``(n, z)`` embedding, cells of all layers stacked.
    omics
        ``(n,)`` layer of each row.
    n_neighbors
        Neighbours of a cell, itself not counted.
    n_samples
        Cells drawn for each pool; ``None`` asks every cell once, which is the value that pools estimate.
    n_pools
        Draws to average over.
    normalize
        Divide the entropy by that of even shares, ``log(n_layers)``; otherwise it is in nats, 0 to ``log(n_layers)``.
    random_state
        Seed of the draws and of the order of ties.
    device
        As in :func:`mean_average_precision`.

    Raises
    ------
    ScmambaError
        If ``x`` is not finite, if layers are missing, of another number or all the same, if there are not more cells
        than neighbours, or for a number of draws below 1.

    Notes
    -----
    Equation 16 lacks the minus sign, a base and a scale; the sum over regions that the text speaks of is a mean. Here
    entropy is divided by its largest value, so that the base cancels and scores of two and of three layers compare.

    Examples
    --------
    >>> metrics.omics_entropy_mixing(np.eye(2).repeat(20, axis=0), ["rna"] * 20 + ["atac"] * 20, n_neighbors=10)
    0.0
    """
    x = as_matrix(x, "x", device)
    codes = label_codes(omics, len(x), "omics")
    k = check_k(n_neighbors, None, len(x))
    if (n_samples is not None and n_samples < 1) or n_pools < 1:
        raise ScmambaError(f"n_samples and n_pools must be at least 1; got {n_samples} and {n_pools}.")
    rows, weight = _drawn(len(x), n_samples, n_pools, random_state)
    overall = torch.as_tensor(np.bincount(codes) / len(codes), device=x.device)  # (layers,)
    share = torch.cat([counts / k for _, counts in _layer_counts(x, codes, k, rows, random_state)])  # (m, layers)
    share = share / overall
    share = share / share.sum(dim=1, keepdim=True)
    entropy = torch.special.entr(share).sum(dim=1).cpu().numpy()
    return float(np.average(entropy, weights=weight) / (math.log(len(overall)) if normalize else 1.0))


def _drawn(n: int, n_samples: int | None, n_pools: int, random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the cells that all draws ask, each once, and how often each was drawn."""
    if n_samples is None:
        return np.arange(n), np.ones(n)
    rng = np.random.default_rng(random_state)
    drawn = [rng.choice(n, min(n_samples, n), replace=False) for _ in range(n_pools)]
    return np.unique(np.concatenate(drawn), return_counts=True)


def _layer_counts(x: Tensor, codes: np.ndarray, k: int, rows: np.ndarray, random_state: int):
    """Neighbours from each layer around some of the cells: positions ``(b,)``, counts ``(b, layers)`` float64."""
    (points,) = prepare(x)
    one_hot = torch.nn.functional.one_hot(torch.as_tensor(codes, device=x.device)).double()
    for block, found in nearest(points, k, rows, random_state):
        yield block, torch.stack([layer[found].sum(dim=1) for layer in one_hot.T], dim=1)


def seurat_alignment(
    x: Matrix,
    omics: Labels,
    neighbor_frac: float = 0.01,
    n_repeats: int = 4,
    *,
    max_queries: int | None = None,
    random_state: int = 0,
    device: str | torch.device | None = None,
) -> float:
    """Seurat alignment score: how few neighbours of a cell are of its own omics layer (equation 17; [Butler18]_).

    0 to 1, higher is better; 1 says that a cell has no more neighbours of its own layer than the others.

    Parameters
    ----------
    x
        ``(n, z)`` embedding, cells of all layers stacked.
    omics
        ``(n,)`` layer of each row.
    neighbor_frac
        Neighbours of a cell as a share of the cells kept, at least one; the paper's 1 %.
    n_repeats
        Every layer is drawn down to the size of the smallest, so many times. Layers of one size need no draw and are
        scored once.
    max_queries, random_state, device
        As in :func:`mean_average_precision`.

    Raises
    ------
    ScmambaError
        If ``x`` is not finite, if layers are missing, of another number or all the same, if a layer has one cell, or if
        there are not more cells than neighbours.

    Notes
    -----
    In equation 17 the mean is that of the neighbours of the cell's own layer. It exceeds 1 where layers avoid
    themselves, as two copies of one cloud do, and is clipped.

    References
    ----------
    .. [Butler18] Butler et al., Integrating single-cell transcriptomic data across different conditions, technologies,
       and species, Nature Biotechnology 2018.

    Examples
    --------
    >>> metrics.seurat_alignment(np.eye(2).repeat(20, axis=0), ["rna"] * 20 + ["atac"] * 20)  # layers lie apart
    0.0
    """
    x = as_matrix(x, "x", device)
    codes = label_codes(omics, len(x), "omics")
    sizes = np.bincount(codes)
    if n_repeats < 1:
        raise ScmambaError(f"n_repeats must be at least 1; got {n_repeats}.")
    if sizes.min() < 2:
        raise ScmambaError("A layer of omics has one cell: drawn down to it, no layer has neighbours of its own.")
    rng = np.random.default_rng(random_state)
    scores = []
    for _ in range(1 if sizes.min() == sizes.max() else n_repeats):
        kept = np.sort(
            np.concatenate(
                [rng.choice(np.flatnonzero(codes == c), sizes.min(), replace=False) for c in range(len(sizes))]
            )
        )
        k = check_k(None, neighbor_frac, len(kept))
        queries = query_rows(len(kept), max_queries, random_state)
        same = [
            counts[torch.arange(len(rows)), torch.as_tensor(codes[kept][rows])]
            for rows, counts in _layer_counts(
                x[torch.as_tensor(kept, device=x.device)], codes[kept], k, queries, random_state
            )
        ]
        own, even = float(torch.cat(same).mean()), k / len(sizes)
        scores.append(min(1.0, 1 - (own - even) / (k - even)))
    return float(np.mean(scores))


def graph_connectivity(
    x: Matrix,
    cell_type: Labels,
    n_neighbors: int = 15,
    *,
    random_state: int = 0,
    device: str | torch.device | None = None,
) -> float:
    """Share of the cells of a type that its largest connected part holds, mean over types (equation 18; [Luecken22]_).

    Above 0 to 1, higher is better.

    Parameters
    ----------
    x
        ``(n, z)`` embedding, cells of all layers stacked.
    cell_type
        ``(n,)`` labels. One label is enough.
    n_neighbors
        Neighbours of a cell, itself not counted; scanpy's 15 are 14 of these.
    random_state
        Seed of the order of ties.
    device
        As in :func:`mean_average_precision`.

    Raises
    ------
    ScmambaError
        If ``x`` is not finite, if labels are missing or of another number, if no label is seen twice, or if there are
        not more cells than neighbours.

    Notes
    -----
    Two cells are joined if either is among the neighbours of the other, as in scib and in the paper's code;
    scib-metrics asks for paths along directed edges and gives less. A type of one cell is connected whatever the
    embedding, and left out of the mean.

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
    k = check_k(n_neighbors, None, n)
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


def matching_score(
    x: Matrix,
    y: Matrix,
    n_neighbors: int = 1,
    *,
    random_state: int = 0,
    device: str | torch.device | None = None,
) -> float:
    """Matching score: confidence that neighbourhoods shared across modalities lead to the partner (25 and 26).

    0 to 1, higher is better; chance is about ``1 / n``. Report ``n_neighbors`` with it, for it falls as that grows.

    Parameters
    ----------
    x
        ``(n, z)`` embedding from one modality.
    y
        ``(n, z)`` embedding of the same cells, in the same order, from the other modality.
    n_neighbors
        Neighbours of a cell in each modality, 1 to ``n``. In its own modality a cell is the first of its neighbours,
        by index: what is compared across modalities is the place it stands at.
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
    leaves open. Rows of ``M`` are divided by their sums and its diagonal averaged, so that the score of ``(y, x)`` is
    another one. A cell that shares no neighbour with any counts 0. The paper does not state ``k``; its code takes 1.

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
    x_of_y, y_of_x = _graph(x, y, k, random_state), _graph(y, x, k, random_state)
    x_of_y_t, y_of_y_t = x_of_y.T.tocsr(), y_of_y.T.tocsr()
    total = 0.0
    for start in range(0, n, 4096):  # the product has about k * k entries per row
        rows = slice(start, min(start + 4096, n))
        shared = (x_of_x[rows] @ x_of_y_t + y_of_x[rows] @ y_of_y_t).tocoo()
        jaccard = shared.data / (4 * k - shared.data)
        row_sum = np.bincount(shared.row, jaccard, minlength=rows.stop - start)
        partner = shared.col == shared.row + start
        total += float((jaccard[partner] / row_sum[shared.row[partner]]).sum())
    return total / n


def _graph(points: Tensor, queries: Tensor, k: int, random_state: int) -> sparse.csr_array:
    """Neighbours among the points of each query as ones, ``(m, n)``."""
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
    m, k = found.shape
    return sparse.csr_array((np.ones(m * k), found.ravel(), np.arange(0, m * k + 1, k)), shape=(m, n))
