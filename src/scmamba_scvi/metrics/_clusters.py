"""Do clusters of the embedding recover the cell types?"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from .._arguments import check_count
from ..errors import ScmambaError
from ._labels import Labels, label_codes
from .distances import Matrix, as_matrix, resolve_k
from .graph import leiden, neighbor_graph

#: 0.1 to 2.0 in steps of 0.1, as in section 4.2.1 of the paper.
RESOLUTIONS = tuple(round(0.1 * step, 1) for step in range(1, 21))
#: Which clusters happen to split depends on chance.
N_SEEDS = 5


class LeidenScores(NamedTuple):
    """Best scores over all resolutions, means over seeds, and their standard deviations over seeds.

    Examples
    --------
    >>> cells = np.repeat(np.eye(2), 20, axis=0)
    >>> metrics.leiden_ari_nmi(cells, ["T"] * 20 + ["B"] * 20)
    LeidenScores(ari=1.0, nmi=1.0, ari_std=0.0, nmi_std=0.0)
    """

    #: Adjusted Rand index, and normalised mutual information.
    ari: float
    nmi: float
    #: Their standard deviations over the seeds, at the resolution that is best for each.
    ari_std: float
    nmi_std: float


def leiden_ari_nmi(
    x: Matrix,
    cell_type: Labels,
    resolutions: Sequence[float] | np.ndarray = RESOLUTIONS,
    *,
    n_neighbors: int = 15,
    n_seeds: int = N_SEEDS,
    random_state: int = 0,
) -> LeidenScores:
    """Adjusted Rand index and normalised mutual information of Leiden clusters with the cell types.

    Higher is better; both are 1 if the clusters are the types. ARI is 0 on average for random clusters, and may be
    negative; NMI is 0 to 1.

    Parameters
    ----------
    x, cell_type
        As in :func:`knn_accuracy`.
    resolutions
        Resolutions of the Leiden algorithm to choose from, above 0.
    n_neighbors
        Neighbours of a cell in the graph, itself not counted.
    n_seeds
        How often cells are clustered at each resolution, whose scores are the means.
    random_state
        First seed of the clustering, and that of the order of ties.

    Returns
    -------
    :class:`LeidenScores`.

    Raises
    ------
    ScmambaError
        As :func:`knn_accuracy`, or ``resolutions`` is empty or has one that is not above 0, or ``n_seeds`` is below 1.

    Notes
    -----
    As in section 4.2.1, the best ARI and the best NMI may come from different resolutions; the paper clusters once. NMI is
    normalised by the arithmetic mean of the entropies. The graph is scanpy's, on exact neighbours up to 100,000 rows.

    Examples
    --------
    >>> cells = np.repeat(np.eye(2), 20, axis=0)
    >>> metrics.leiden_ari_nmi(cells, ["T"] * 20 + ["B"] * 20).ari
    1.0
    """
    x = as_matrix(x)
    types = label_codes(cell_type, len(x), "cell_type")
    k = resolve_k(n_neighbors, len(x))
    wanted = np.asarray(resolutions, dtype=float).ravel()
    if wanted.size == 0 or not (wanted > 0).all():
        raise ScmambaError(f"resolutions must hold at least one number, all above 0; got {resolutions}.")
    check_count("n_seeds", n_seeds)
    graph = neighbor_graph(x, k, random_state)
    rows = []
    for resolution, seed in itertools.product(wanted, range(random_state, random_state + n_seeds)):
        clusters = leiden(graph, seed, resolution).cat.codes.to_numpy()
        nmi = normalized_mutual_info_score(types, clusters, average_method="arithmetic")
        rows.append((adjusted_rand_score(types, clusters), nmi))
    scores = np.array(rows).reshape(len(wanted), n_seeds, 2)
    mean, spread = scores.mean(axis=1), scores.std(axis=1)  # (resolutions, 2)
    best = mean.argmax(axis=0)
    return LeidenScores(*map(float, mean[best, [0, 1]]), *map(float, spread[best, [0, 1]]))
