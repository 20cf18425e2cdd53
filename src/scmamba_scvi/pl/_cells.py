"""Cells as points: where they lie, which values are theirs, and how large they are drawn."""

from collections.abc import Iterable
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from mudata import MuData

from .._keys import UMAP_KEY
from ..errors import ScmambaError
from ._canvas import style_plane
from ._palette import MISSING

Table = TypeVar("Table", pd.Series, pd.DataFrame)


def coordinates(data: MuData | AnnData, key: str, name: str = "mdata") -> np.ndarray:
    """The first two columns of ``data.obsm[key]``, ``(n_cells, 2)``; ``name`` is what an error calls ``data``."""
    if key not in data.obsm:
        hint = "scmamba_scvi.workflow.integrate(mdata) writes it; basis='X_umap' draws the coordinates of scanpy."
        raise ScmambaError(
            f"{name}.obsm has no {key!r} to draw (it has {sorted(data.obsm) or 'nothing'})"
            f"{': ' + hint if key == UMAP_KEY else '.'}"
        )
    xy = np.asarray(data.obsm[key], dtype=float)
    if xy.ndim != 2 or xy.shape[1] < 2:
        raise ScmambaError(f"{name}.obsm[{key!r}] must have two columns, it has shape {xy.shape}.")
    if not np.isfinite(xy[:, :2]).any():
        raise ScmambaError(f"{name}.obsm[{key!r}] holds no finite coordinates.")
    return xy[:, :2]


def aligned(values: Table, mdata: MuData, name: str) -> Table:
    """Rows in the order of ``mdata.obs_names``, NaN where ``values`` has none; ``name`` is what an error calls them."""
    unknown = values.index.difference(mdata.obs_names)
    if len(unknown):
        raise ScmambaError(f"{len(unknown):,} cells of {name}, such as {unknown[0]!r}, are not in mdata.")
    return values.reindex(mdata.obs_names)


def check_columns(table: pd.DataFrame, needed: Iterable[str], method: str) -> None:
    """Refuse a table that is not what ``method`` of the model gives."""
    lacking = [name for name in needed if name not in table]
    if lacking:
        raise ScmambaError(f"The table lacks {lacking}; pass what model.{method}() gives.")


def draw_values(ax: Axes, xy: np.ndarray, values: np.ndarray, **colors: Any) -> PathCollection:
    """Cells coloured by a number, the later ones on top, those without one in grey below; ``colors`` as of ``scatter``."""
    known = np.isfinite(values)
    scatter = partial(ax.scatter, s=point_size(len(xy)), linewidths=0, rasterized=True)
    scatter(*xy[~known].T, c=MISSING)
    style_plane(ax)
    ax.set_aspect("equal", adjustable="datalim")
    return scatter(*xy[known].T, c=values[known], **colors)


def point_size(n_cells: int) -> float:
    """Area in square points: a few cells are drawn as discs, a hundred thousand as a density."""
    return float(np.clip(30_000 / n_cells, 0.6, 22))
