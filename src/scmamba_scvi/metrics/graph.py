"""The neighbour graph for scanpy's clustering and diffusion, from the same distances as every other score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from torch import Tensor

from .distances import nearest_with_distances, prepare

if TYPE_CHECKING:
    from anndata import AnnData


class _KnownNeighbors:
    """Neighbours found already, in the form of a scikit-learn transformer that scanpy expects of a neighbour search.

    ``n_neighbors`` counts the cell itself, as in scanpy; ``graph`` holds the distances.
    """

    def __init__(self, graph: sparse.csr_matrix, n_neighbors: int) -> None:
        self._graph, self._n_neighbors = graph, n_neighbors

    def get_params(self) -> dict[str, int]:
        return {"n_neighbors": self._n_neighbors}

    def fit_transform(self, x: object) -> sparse.csr_matrix:
        return self._graph


def neighbor_graph(x: Tensor, n_neighbors: int, random_state: int) -> AnnData:
    """An AnnData that holds scanpy's graph (UMAP's weights) of the exact neighbours among the rows of ``x``.

    Parameters
    ----------
    x
        ``(n, z)`` finite float64.
    n_neighbors
        Neighbours of a cell, itself not counted; scanpy counts it, so its number is one higher.
    random_state
        Seed of the order of ties.
    """
    import scanpy as sc
    from anndata import AnnData

    n = len(x)
    (points,) = prepare(x)
    found = list(nearest_with_distances(points, points, n_neighbors, np.arange(n), random_state))
    neighbors = np.concatenate([index.cpu().numpy() for _, index, _ in found])
    distances = np.concatenate([square.sqrt().float().cpu().numpy() for _, _, square in found])
    # scanpy expects each cell as the first of its own neighbours
    neighbors = np.hstack([np.arange(n)[:, None], neighbors])
    distances = np.hstack([np.zeros((n, 1), dtype=np.float32), distances])
    starts = np.arange(0, n * (n_neighbors + 1) + 1, n_neighbors + 1)
    # csr_matrix, not csr_array: scanpy 1.11 calls a method that only the former has
    graph = sparse.csr_matrix((distances.ravel(), neighbors.ravel(), starts), shape=(n, n))
    cells = AnnData(obsm={"X": x.cpu().numpy()}, shape=(n, 0))
    sc.pp.neighbors(cells, use_rep="X", transformer=_KnownNeighbors(graph, n_neighbors + 1))
    return cells
