"""Are the nearest neighbours of a cell of its type?"""

from typing import Final

import numpy as np
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors

from ..errors import ScmambaError
from ._labels import Labels, label_codes
from .distances import Matrix, as_matrix, query_rows, resolve_k
from .graph import break_ties, nearest

#: Of fewer neighbours the precision of a cell has few values.
FEWEST_NEIGHBORS: Final = 10


def knn_accuracy(
    x: Matrix,
    cell_type: Labels,
    n_neighbors: int = 15,
    *,
    max_queries: int | None = None,
    random_state: int = 0,
) -> float:
    """Fraction of cells whose type is the most frequent one among their nearest neighbours, themselves left out.

    0 to 1, higher is better; chance is at most the fraction of the most frequent type.

    Parameters
    ----------
    x
        ``(n, z)`` embedding; stack the modalities to score them together.
    cell_type
        ``(n,)`` labels.
    n_neighbors
        Neighbours that vote, the cell itself never among them.
    max_queries
        Average over this many cells, drawn at random, instead of all; they are still compared with all. Unbiased, and
        enough above 50,000 rows.
    random_state
        Seed of that draw and of the order of ties.

    Returns
    -------
    The score, a float.

    Raises
    ------
    ScmambaError
        Labels are missing for some cells, all cells have one label, ``n_neighbors`` is not below the number of cells, or
        ``x`` is not a finite matrix.

    Notes
    -----
    Of types with equally many votes, the one with the nearest voter wins. A cell whose label occurs once is always
    wrong.

    Examples
    --------
    >>> cells = np.array([[0.0], [1.0], [8.0], [9.0]])
    >>> metrics.knn_accuracy(cells, list("TTBB"), n_neighbors=1)
    1.0
    """
    x = as_matrix(x)
    codes = label_codes(cell_type, len(x), "cell_type")
    k = resolve_k(n_neighbors, len(x))
    # ties: each place weighs more than all later places together, and all places together less than one vote
    weight = 1 + 0.5 ** np.arange(1.0, k + 1)
    correct = []
    for rows, found in nearest(x, k, query_rows(len(x), max_queries, random_state), random_state):
        votes = np.zeros((len(rows), codes.max() + 1))
        np.add.at(votes, (np.arange(len(rows))[:, None], codes[found]), weight)
        correct.append(votes.argmax(axis=1) == codes[rows])
    return float(np.concatenate(correct).mean())


def mean_average_precision(
    x: Matrix,
    cell_type: Labels,
    n_neighbors: int | None = None,
    *,
    max_queries: int | None = None,
    random_state: int = 0,
) -> float:
    """Mean average precision of the cell types among nearest neighbours (equations 10 and 11; [Cao22]_).

    0 to 1, higher is better; chance is about the frequency of the types with many neighbours and more with few: of four
    equal types 0.4 with 10, 0.28 with 100.

    Parameters
    ----------
    n_neighbors
        Neighbours of a cell, itself not counted; ``None``: the paper's 1 % of the cells, but at least 10, or all there are.
    x, cell_type, max_queries, random_state
        As in :func:`knn_accuracy`.

    Returns
    -------
    The score, a float.

    Raises
    ------
    ScmambaError
        As :func:`knn_accuracy`.

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
    >>> cells = np.array([[0.0], [1.0], [8.0], [9.0]])
    >>> metrics.mean_average_precision(cells, list("TTBB"), n_neighbors=1)
    1.0
    """
    x = as_matrix(x)
    codes = label_codes(cell_type, len(x), "cell_type")
    k = resolve_k(n_neighbors, len(x), FEWEST_NEIGHBORS)
    precision = []
    for rows, found in nearest(x, k, query_rows(len(x), max_queries, random_state), random_state):
        match = codes[found] == codes[rows, None]  # (b, k)
        so_far = match.cumsum(axis=1) / np.arange(1, k + 1)
        precision.append((match * so_far).sum(axis=1) / match.sum(axis=1).clip(min=1))
    return float(np.concatenate(precision).mean())


def graph_connectivity(
    x: Matrix,
    cell_type: Labels,
    n_neighbors: int = 15,
    *,
    random_state: int = 0,
) -> float:
    """Fraction of the cells of a type in its largest connected part, mean over types (equation 18; [Luecken22]_).

    Above 0 to 1, higher is better.

    Parameters
    ----------
    n_neighbors
        Neighbours of a cell, itself not counted; scanpy counts it, so its 15 are 14 here.
    x, cell_type, random_state
        As in :func:`knn_accuracy`; one label is enough.

    Returns
    -------
    The score, a float.

    Raises
    ------
    ScmambaError
        As :func:`knn_accuracy`, or no type has two cells.

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
    >>> cells = np.array([[0.0], [1.0], [8.0], [9.0]])
    >>> metrics.graph_connectivity(cells, list("TTTT"), n_neighbors=1)
    0.5
    """
    x = as_matrix(x)
    codes = label_codes(cell_type, len(x), "cell_type", at_least=1)
    k = resolve_k(n_neighbors, len(x))
    types = [own for code in range(codes.max() + 1) if len(own := np.flatnonzero(codes == code)) > 1]
    if not types:
        raise ScmambaError(f"cell_type has {len(x):,} labels for {len(x):,} cells: no type has two cells to connect.")
    graph = NearestNeighbors(n_neighbors=k).fit(break_ties(x, random_state)).kneighbors_graph()  # without itself
    components = [connected_components(graph[own][:, own], directed=False)[1] for own in types]
    return float(np.mean([np.bincount(component).max() / len(component) for component in components]))
