"""Nearest neighbours by scikit-learn, and the graph of them that scanpy's clustering, diffusion and PAGA take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
from sklearn.neighbors import NearestNeighbors

from .._compat import scanpy_module
from .distances import Matrix, centred_array

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

#: Up to this many cells neighbours are searched exactly. That takes a minute at most, about as long as the approximate
#: search needs to compile, and gives the same neighbours on every machine.
EXACT_UP_TO: Final = 100_000
#: Rows whose neighbours are held at a time.
BLOCK_ROWS: Final = 1024


def nearest(x: Matrix, k: int, rows: np.ndarray, random_state: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The ``k < n`` nearest other rows of some ``rows`` of an embedding ``(n, z)``, nearest first, a block at a time.

    A row, told by its index, is never its own neighbour; ``random_state`` orders ties. Yields positions of rows ``(b,)`` and
    of their neighbours ``(b, k)``.
    """
    points = break_ties(x, random_state)
    search = NearestNeighbors(n_neighbors=k + 1).fit(points)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        found = search.kneighbors(points[block], return_distance=False)
        others = found != block[:, None]
        others[others.all(axis=1), -1] = False  # rounding put a row behind its copies
        yield block, found[others].reshape(len(block), k)


def neighbor_graph(x: Matrix, n_neighbors: int, random_state: int = 0) -> AnnData:
    """An AnnData without counts that holds scanpy's graph (UMAP's weights) of the nearest neighbours among the rows.

    A row of ``x`` ``(n, z)`` is not counted among its ``n_neighbors < n``; scanpy counts it, so its number is one higher.
    ``random_state`` orders ties and seeds the approximate search.
    """
    from anndata import AnnData

    sc = scanpy_module()
    points = break_ties(x, random_state)
    cells = AnnData(obsm={"X": points}, shape=(len(points), 0))
    transformer = "sklearn" if len(points) <= EXACT_UP_TO else "pynndescent"
    sc.pp.neighbors(cells, n_neighbors=n_neighbors + 1, use_rep="X", transformer=transformer, random_state=random_state)
    return cells


def leiden(graph: AnnData, random_state: int, resolution: float = 1.0) -> pd.Series:
    """Cluster of each row of a `neighbor_graph`, categorical."""
    scanpy_module().tl.leiden(
        graph, resolution=resolution, flavor="igraph", n_iterations=2, directed=False, random_state=random_state
    )
    return graph.obs["leiden"]


def break_ties(x: Matrix, random_state: int) -> np.ndarray:
    """``x`` centred, float64 ``(n, z)``, with noise of a ten-millionth of its spread.

    Copies of a cell have the same distances, and a search that takes the first of them makes it a hub.
    """
    points = centred_array(x)
    return points + 1e-7 * (points.std() or 1.0) * np.random.default_rng(random_state).normal(size=points.shape)
