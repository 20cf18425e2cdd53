"""The neighbour graph that scanpy clusters and walks on, from the same distances as every other score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from torch import Tensor

from ._distances import nearest_with_distances, prepare

if TYPE_CHECKING:
    from anndata import AnnData


class _Neighbors:
    """What scanpy asks of a neighbour search: its number of neighbours, the cell counted, and a CSR of distances."""

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
        True neighbours; scanpy, which counts the cell, calls this one more.
    random_state
        Order of ties.
    """
    import scanpy as sc
    from anndata import AnnData

    n = len(x)
    (points,) = prepare(x)
    indices, distances = [np.arange(n)[:, None]], [np.zeros((n, 1), dtype=np.float32)]
    found = list(nearest_with_distances(points, points, n_neighbors, np.arange(n), random_state))
    indices.append(np.concatenate([index.cpu().numpy() for _, index, _ in found]))
    distances.append(np.concatenate([square.sqrt().float().cpu().numpy() for _, _, square in found]))
    starts = np.arange(0, n * (n_neighbors + 1) + 1, n_neighbors + 1)
    # csr_matrix, not csr_array: scanpy 1.11 calls a method that only the former has
    graph = sparse.csr_matrix((np.hstack(distances).ravel(), np.hstack(indices).ravel(), starts), shape=(n, n))
    cells = AnnData(obsm={"X": x.cpu().numpy()}, shape=(n, 0))
    sc.pp.neighbors(cells, use_rep="X", transformer=_Neighbors(graph, n_neighbors + 1))
    return cells
