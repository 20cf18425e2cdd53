"""Cells coloured by their pseudotime, and over them how groups are joined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from ..errors import ScmambaError, UnknownNameError
from ._palette import MISSING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mudata import MuData

FONT_SIZE: Final = 9.0
SIDE: Final = 4.2
#: Joins of groups that are weaker than this are noise between neighbouring points.
MIN_CONNECTIVITY: Final = 0.1


def trajectory(
    mdata: MuData,
    pseudotime: pd.DataFrame | pd.Series,
    *,
    connectivities: pd.DataFrame | None = None,
    groupby: str | None = None,
    basis: str = "X_umap",
    min_connectivity: float = MIN_CONNECTIVITY,
    figure: Figure | None = None,
) -> list[Axes]:
    """Draw the cells coloured by pseudotime, one panel per embedding, and lines between the groups that are joined.

    Parameters
    ----------
    mdata
        With ``obsm[basis]``, coordinates ``(n_cells, 2)``.
    pseudotime
        What :meth:`scmamba_scvi.SCMAMBA.get_pseudotime` gives, one panel per column; or one of its columns. Aligned by
        the names of cells.
    connectivities
        Groups by groups, what :meth:`scmamba_scvi.SCMAMBA.get_group_connectivities` gives; lines are as wide as these are
        strong. `None`: no lines.
    groupby
        Column of ``mdata.obs`` with these groups; needed with ``connectivities``.
    basis
        Key of ``mdata.obsm``.
    min_connectivity
        Weaker joins are not drawn.
    figure
        Draw into this empty figure, which is given the size needed; `None` makes one with pyplot.

    Returns
    -------
    One ``Axes`` per panel. Cells without a pseudotime are grey.

    Raises
    ------
    ScmambaError
        Coordinates, the column of groups or all values are missing, or cells are unknown.

    Examples
    --------
    >>> mdata.obsm["X_umap"] = model.get_latent_representation()[:, :2]  # any two coordinates
    >>> axes = pl.trajectory(mdata, model.get_pseudotime("type_1", groupby="cell_type")["joint"])
    """
    table = pseudotime.to_frame() if isinstance(pseudotime, pd.Series) else pseudotime
    if basis not in mdata.obsm:
        raise ScmambaError(f"mdata.obsm has no {basis!r} to draw (it has {sorted(mdata.obsm) or 'nothing'}).")
    unknown = table.index.difference(mdata.obs_names)
    if len(unknown):
        raise ScmambaError(f"{len(unknown):,} cells of pseudotime, such as {unknown[0]!r}, are not in mdata.")
    table = table.reindex(mdata.obs_names)
    if not np.isfinite(table.to_numpy(dtype=float)).any():
        raise ScmambaError("pseudotime holds no finite value; pass what model.get_pseudotime() gives.")
    if connectivities is not None and (groupby is None or groupby not in mdata.obs):
        raise UnknownNameError("groupby", groupby, mdata.obs)
    xy = np.asarray(mdata.obsm[basis], dtype=float)[:, :2]
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure()
    figure.set_layout_engine("constrained")
    figure.set_size_inches(SIDE * table.shape[1] + 0.8, SIDE)
    axes = figure.subplots(1, table.shape[1], squeeze=False)[0]
    for ax, name in zip(axes, table, strict=True):
        drawn = _cells(ax, xy, table[name].to_numpy(dtype=float))
        ax.set_title(str(name), fontsize=FONT_SIZE + 1)
        if connectivities is not None:
            _groups(ax, xy, mdata.obs[groupby], connectivities, min_connectivity)
    bar = figure.colorbar(drawn, ax=list(axes), shrink=0.6, pad=0.02)
    bar.set_label("pseudotime", fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE - 1, color="0.6", length=2)
    bar.outline.set_visible(False)
    return list(axes)


def _cells(ax: Axes, xy: np.ndarray, time: np.ndarray):
    known = np.isfinite(time)
    size = float(np.clip(30_000 / len(xy), 0.6, 22))
    ax.scatter(xy[~known, 0], xy[~known, 1], s=size, c=MISSING, linewidths=0, rasterized=True)
    drawn = ax.scatter(
        xy[known, 0], xy[known, 1], s=size, c=time[known], cmap="viridis", vmin=0, vmax=1, linewidths=0, rasterized=True
    )
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
    for spine in ax.spines.values():
        spine.set(color="0.75", linewidth=0.6)
    return drawn


def _groups(ax: Axes, xy: np.ndarray, labels: pd.Series, connectivities: pd.DataFrame, least: float) -> None:
    labels = labels.astype(str).to_numpy()
    usable = np.isfinite(xy).all(axis=1)
    centre = {
        g: np.median(xy[usable & (labels == g)], axis=0) for g in connectivities.index if (usable & (labels == g)).any()
    }
    for i, a in enumerate(centre):
        for b in list(centre)[i + 1 :]:
            weight = float(connectivities.loc[a, b])
            if weight >= least:
                ax.plot(*np.array([centre[a], centre[b]]).T, color="0.15", lw=0.6 + 3 * min(weight, 1), alpha=0.75, solid_capstyle="round")  # fmt: skip
    for group, (x, y) in centre.items():
        ax.plot(x, y, "o", ms=5, mfc="white", mec="0.15", mew=1)
        ax.annotate(group, (x, y), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=FONT_SIZE - 1,
                    bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.75})  # fmt: skip
