"""Cells coloured by their pseudotime, and lines between the groups that are joined."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mudata import MuData

from .._columns import obs_column
from .._keys import UMAP_KEY
from ..errors import ScmambaError, UnknownNameError
from ._canvas import FONT_SIZE, figure_or_new, style_color_bar
from ._cells import aligned, coordinates, draw_values
from ._labels import OUTLINE, shorten, spread

#: Inches of a panel with its title, and of the panel alone.
SIDE, PANEL = 4.2, 3.8
#: Characters of a group's name.
NAME_LENGTH: Final = 28
#: Joins of groups that are weaker than this are noise between neighbouring points.
MIN_CONNECTIVITY: Final = 0.1


def trajectory(
    mdata: MuData,
    pseudotime: pd.DataFrame | pd.Series,
    *,
    connectivities: pd.DataFrame | None = None,
    groupby: str | None = None,
    basis: str = UMAP_KEY,
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
        Groups by groups, such as those of PAGA: the stronger, the wider the
        line; those below 0.1 are not drawn. `None`: no lines.
    groupby
        Column of ``obs`` with these groups; needed with ``connectivities``, and must have cells of each.
    basis
        Key of ``mdata.obsm``.
    figure
        Draw into this empty figure, which is given the size needed; `None` makes one with pyplot.

    Returns
    -------
    One ``Axes`` per panel. Cells without a pseudotime are grey.

    Examples
    --------
    >>> mdata.obsm["X_umap_scmamba"] = model.get_latent_representation()[:, :2]  # any two coordinates
    >>> axes = pl.trajectory(mdata, model.get_pseudotime(root="type_1", groupby="cell_type")["joint"])
    """
    table = aligned(pd.DataFrame(pseudotime), mdata, "pseudotime")
    xy = coordinates(mdata, basis)
    if not np.isfinite(table.to_numpy(dtype=float)).any():
        raise ScmambaError("pseudotime holds no finite value; pass what model.get_pseudotime() gives.")
    connectivities = pd.DataFrame() if connectivities is None else connectivities
    centers = _centers(mdata, groupby, connectivities, xy) if len(connectivities) else {}
    figure = figure_or_new(figure, SIDE * table.shape[1] + 0.8, SIDE)
    axes = figure.subplots(1, table.shape[1], squeeze=False)[0]
    for ax, name in zip(axes, table, strict=True):
        points = draw_values(ax, xy, table[name].to_numpy(dtype=float), cmap="viridis", vmin=0, vmax=1)
        ax.set_title(str(name), fontsize=FONT_SIZE + 1)
        for a, b in itertools.combinations(centers, 2):
            weight = float(connectivities.loc[a, b])
            if weight >= MIN_CONNECTIVITY:
                width = 0.6 + 3 * min(weight, 1)  # points
                ends = np.array([centers[a], centers[b]])
                ax.plot(*ends.T, color="0.15", lw=width, alpha=0.75, solid_capstyle="round")
        for x, y in centers.values():
            ax.plot(x, y, "o", ms=5, mfc="white", mec="0.15", mew=1)
        _write_names(ax, centers)
    style_color_bar(figure.colorbar(points, ax=list(axes), shrink=0.6, pad=0.02), "pseudotime")
    return list(axes)


def _centers(mdata: MuData, groupby: str | None, connectivities: pd.DataFrame, xy: np.ndarray) -> dict[str, np.ndarray]:
    """Median ``(2,)`` of the cells of each group that has any with coordinates."""
    if groupby is None:
        raise ScmambaError("connectivities are drawn between groups: name their column, groupby=...")
    unlike = connectivities.index.symmetric_difference(connectivities.columns)
    if len(unlike):
        raise ScmambaError(
            f"The rows and columns of connectivities must be the same groups; {unlike[0]!r} is in one only."
        )
    labels = obs_column(mdata, groupby, "groupby")
    known = sorted(labels.dropna().astype(str).unique())
    unknown = connectivities.index.difference(known)
    if len(unknown):
        raise UnknownNameError(f"group of {groupby!r}", unknown[0], known)
    members = {group: (labels.astype(str) == group).to_numpy() for group in connectivities.index}
    drawn = np.isfinite(xy).all(axis=1)
    return {group: np.median(xy[own & drawn], axis=0) for group, own in members.items() if (own & drawn).any()}


def _write_names(ax: Axes, centers: dict[str, np.ndarray]) -> None:
    """Each group's name above its centre, inside the panel, and moved up where it would cover another name."""
    if not centers:
        return
    write = partial(ax.text, 0, 0, ha="center", va="center", fontsize=FONT_SIZE - 1, path_effects=OUTLINE)
    texts = [write(s=shorten(group, NAME_LENGTH)) for group in centers]
    left, right = ax.get_xlim()
    inch = max(right - left, np.ptp(ax.get_ylim())) / PANEL  # in units of the coordinates
    extents = [text.get_window_extent() for text in texts]
    boxes = np.array([(box.width, box.height) for box in extents]) / ax.figure.dpi * inch
    at = np.array(list(centers.values())) + [0, 0.12 * inch]
    at[:, 0] = np.clip(at[:, 0], left + boxes[:, 0] / 2, right - boxes[:, 0] / 2)
    for text, place in zip(texts, spread(at, 1.05 * boxes), strict=True):
        text.set_position(place)
