"""What figures draw, looked up and checked: coordinates of cells, and columns of a table."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from .._keys import UMAP_KEY
from ..errors import ScmambaError


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
    xy = np.where(np.isfinite(xy), xy, np.nan)
    if np.isnan(xy[:, :2]).any(axis=1).all():
        raise ScmambaError(f"{name}.obsm[{key!r}] holds no finite coordinates.")
    return xy[:, :2]


def check_columns(table: pd.DataFrame, needed: Iterable[str], method: str) -> None:
    """Refuse a table that is not what ``method`` of the model gives."""
    lacking = [name for name in needed if name not in table]
    if lacking:
        raise ScmambaError(f"The table lacks {lacking}; pass what model.{method}() gives.")
