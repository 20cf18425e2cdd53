"""The neighbour graph that scanpy's clustering, diffusion and PAGA take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from .distances import Matrix, as_matrix

if TYPE_CHECKING:
    from anndata import AnnData

#: Up to this many cells neighbours are searched exactly. That takes a minute at most, about as long as the approximate
#: search needs to compile, and gives the same neighbours on every machine.
EXACT_UP_TO: Final = 100_000


def neighbor_graph(x: Matrix, n_neighbors: int, random_state: int = 0) -> AnnData:
    """An AnnData without counts that holds scanpy's graph (UMAP's weights) of the nearest neighbours among the rows.

    Parameters
    ----------
    x
        ``(n, z)`` embedding.
    n_neighbors
        Neighbours of a cell, itself not counted, less than ``n``; scanpy counts it, so its number is one higher.
    random_state
        Seed of the order of ties and of the approximate search.
    """
    import scanpy as sc
    from anndata import AnnData

    points = as_matrix(x).cpu().numpy()
    points = points - points.mean(axis=0)
    # copies of a cell have the same distances, and a search that takes the first of them makes it a hub
    points += 1e-6 * (points.std() or 1.0) * np.random.default_rng(random_state).normal(size=points.shape)
    cells = AnnData(obsm={"X": points}, shape=(len(points), 0))
    transformer = "sklearn" if len(points) <= EXACT_UP_TO else "pynndescent"
    sc.pp.neighbors(cells, n_neighbors=n_neighbors + 1, use_rep="X", transformer=transformer, random_state=random_state)
    return cells
