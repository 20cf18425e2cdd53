"""Distances of cells, computed a block of rows at a time and reduced before the next block.

``n`` cells have ``n * n`` distances, 6 GB for 40,000 cells. No metric needs them all at once: each counts or sums
within a row. The functions here hold `BLOCK_ENTRIES` of them at a time, so memory is linear in ``n``, and work on
any device.

Precision
---------
Squared distances come from a matrix product, ``|q|^2 - 2 q.p + |p|^2``, in float64, with an error of a few units in the last
place of ``|q|^2``.

Ties
----
Distances that differ by less than that error are ties. Counts add half of the ties; neighbours, see
:mod:`scmamba_scvi.metrics.graph`, are found in random order among ties. So a score never depends on the order of the
rows, and an embedding that puts all cells at one point scores as chance does.
"""

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import pairwise_distances_chunked
from torch import Tensor

from .._arguments import check_count
from .._compat import explained
from ..errors import ScmambaError

#: An embedding: cells in rows, dimensions in columns.
Matrix: TypeAlias = np.ndarray | Tensor

#: Entries of the distance matrix that exist at a time: 8 MB, which fits the caches of a core.
BLOCK_ENTRIES = 2**20
#: Bound on the rounding of a squared distance in units of ``eps * |q|^2``, with room for sums over many dimensions.
ROUNDING = 48


def as_matrix(values: Any, name: str = "x", device: str | torch.device | None = None) -> Tensor:
    """``values``, called ``name`` in errors, as a finite float64 tensor ``(n, z)``, not empty.

    ``device=None`` leaves a tensor where it lies and puts an array on the CPU; ``"auto"`` takes a CUDA device if there is
    one.
    """
    with explained(f"{name} must be an array of numbers (n cells, n dimensions); got {type(values).__name__}"):
        if isinstance(values, pd.DataFrame):  # of two tables, the names could say other than the rows
            raise TypeError("pass its rows, .to_numpy(), in the order of the cells")
        # torch takes no array with its rows reversed, and warns of those that cannot be written
        x = torch.as_tensor(values if isinstance(values, Tensor) else np.require(values, None, ["C", "W"])).detach()
    if x.ndim != 2 or 0 in x.shape:
        raise ScmambaError(f"{name} must be a matrix (n cells, n dimensions), not empty; got shape {tuple(x.shape)}.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device is None:
        device = x.device
    with explained(f"device={device!r} cannot be used here, 'auto' takes a GPU if there is one"):
        if torch.device(device).type == "mps":
            device = "cpu"  # Apple's GPUs have no float64
        torch.empty(0, device=device)  # alone: an error of memory below is none of the device
    x = x.to(device).double()
    bad = int((~torch.isfinite(x).all(dim=1)).sum())
    if bad:
        raise ScmambaError(
            f"{bad:,} of {len(x):,} rows of {name} are not finite: leave out cells that lack a modality."
        )
    return x


def centred_array(x: Matrix) -> np.ndarray:
    """``x`` around the origin, where its distances lose no digits, as a float64 array on the CPU ``(n, z)``."""
    points = as_matrix(x).cpu().numpy()
    return points - points.mean(axis=0)


def prepare(*sets: Tensor) -> tuple[Tensor, ...]:
    """The matrices, centred together."""
    # differences of squares lose digits when the cloud is far from the origin
    centre = torch.stack([x.mean(dim=0) for x in sets]).mean(dim=0)
    return tuple(x - centre for x in sets)


def query_rows(n: int, max_queries: int | None, random_state: int) -> np.ndarray:
    """Sorted positions of the query cells: all of them, or ``max_queries`` drawn at random without replacement."""
    if max_queries is not None:
        check_count("max_queries", max_queries, advice=" or None (all cells)")
    if max_queries is None or max_queries >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(random_state).choice(n, max_queries, replace=False))


def distance_blocks(queries: Tensor, points: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Positions of ``b`` consecutive queries, and their squared distances ``(b, n)``, a block at a time.

    Distances may be negative by rounding. The caller may write into a block; the next one overwrites it.
    """
    q_square, p_square = (queries * queries).sum(dim=1), (points * points).sum(dim=1)
    size = max(1, min(BLOCK_ENTRIES // len(points), len(queries)))
    buffer = torch.empty(size, len(points), dtype=points.dtype, device=points.device)
    for start in range(0, len(queries), size):
        rows = slice(start, min(start + size, len(queries)))
        block = buffer[: rows.stop - start]  # (b, n)
        with torch.autocast(points.device.type, enabled=False):  # the caller may be under it
            torch.addmm(p_square, queries[rows], points.T, alpha=-2.0, out=block)
        yield rows, block.add_(q_square[rows, None])


def count_closer(queries: Tensor, points: Tensor, radius: Tensor, exclude: Tensor) -> tuple[Tensor, Tensor]:
    """How many points are nearer to each query than its radius, and how many as near: two float64 tensors ``(m,)``.

    ``queries`` ``(m, z)`` and ``points`` ``(n, z)`` come from one call of :func:`prepare`; ``radius`` ``(m,)`` is squared.
    ``exclude`` ``(m,)`` is the one point that is not counted for each query: itself, or the true match at the radius.
    """
    # a point near the radius r of q is at most |q| + r from the origin, so this bounds the rounding of its distance
    # even if other points lie far out
    rounding = ROUNDING * torch.finfo(points.dtype).eps * ((queries * queries).sum(dim=1) + radius)
    closer, within = [], []
    flags = torch.empty(0)
    for rows, distances in distance_blocks(queries, points):
        # comparing into floats and summing those is faster than counting booleans
        flags = flags if flags.shape == distances.shape else torch.empty_like(distances)
        distances[torch.arange(len(distances), device=distances.device), exclude[rows]] = torch.inf
        r, tolerance = radius[rows], rounding[rows]
        closer.append(torch.lt(distances, (r - tolerance)[:, None], out=flags).sum(dim=1))
        within.append(torch.le(distances, (r + tolerance)[:, None], out=flags).sum(dim=1))
    n_closer = torch.cat(closer).double()
    return n_closer, torch.cat(within).double() - n_closer


def medoid(x: Matrix) -> int:
    """Position of the row of ``x`` ``(n, z)`` with the least total distance to the others."""
    blocks = pairwise_distances_chunked(centred_array(x), reduce_func=lambda block, _: block.sum(axis=1))
    return int(np.concatenate(list(blocks)).argmin())


def resolve_k(n_neighbors: int | None, n: int, least: int = 1) -> int:
    """Number of neighbours, between 1 and ``n - 1``, as the cell itself is none.

    `None`: one in a hundred of ``n`` cells, but at least ``least``, or all there are.
    """
    k = min(max(least, math.floor(0.01 * n + 0.5)), n - 1) if n_neighbors is None else n_neighbors
    check_count("n_neighbors", k)
    if k >= n:
        raise ScmambaError(
            f"Each of {n:,} cells can have 1 to {n - 1:,} neighbours other than itself; {k:,} were asked for."
        )
    return k
