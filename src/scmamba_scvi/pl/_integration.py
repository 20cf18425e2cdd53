"""The joint embedding, drawn once per question: which modality, which cell type, which batch, which cluster?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from .._keys import UMAP_KEY
from ..errors import ScmambaError, UnknownNameError
from ._canvas import figure_or_new, style_plane
from ._cells import coordinates
from ._labels import OUTLINE, as_categorical, shorten, spread
from ._palette import MISSING, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mudata import MuData

#: Columns drawn when none is named: the first of each group that ``obs`` has.
USUAL_COLUMNS: Final = (
    ("cell_type", "celltype", "cell_types", "CellType", "cell_type_fine", "annotation", "labels"),
    ("batch", "donor", "sample", "Sample"),
    ("leiden_scmamba", "leiden"),
)
#: A column with more categories than this names single cells rather than groups of them.
MAX_CATEGORIES: Final = 100
#: From this many categories on, colours alone no longer tell them apart: they are numbered among the cells and in the
#: legend.
NUMBERED_FROM: Final = 9
#: Names up to this length are written among the cells themselves, instead of a number.
SHORT_NAME: Final = 3

# inches
PANEL, TITLE, MARGIN, LEGEND_GAP = 3.8, 0.32, 0.15, 0.1
FONT_SIZE: Final = 8.5
#: Entries of a legend that fit beside a panel.
LEGEND_ROWS: Final = 23


@dataclass(frozen=True)
class _Panel:
    """Points ``(n, 2)`` and the values ``(n,)`` that colour them."""

    title: str
    xy: np.ndarray
    values: pd.Series


def integration(
    mdata: MuData,
    color: str | Sequence[str] | None = None,
    *,
    modalities: bool | Sequence[str] = True,
    basis: str = UMAP_KEY,
    ncols: int | None = None,
    size: float | None = None,
    alpha: float | None = None,
    figure: Figure | None = None,
) -> list[Axes]:
    """Draw the embedding side by side, coloured by modality, cell type, batch and cluster.

    Parameters
    ----------
    mdata
        With ``obsm[basis]``, coordinates ``(n_cells, 2)`` of the joint embedding. The panel of modalities needs the
        same key in each modality; their coordinates share a plane, which is not that of the joint embedding.
        :func:`scmamba_scvi.workflow.integrate` writes both.
    color
        Columns of ``mdata.obs`` or of a modality's ``obs``, one panel each; numbers get a colour bar. ``None`` looks
        for cell type, batch and cluster under their usual names.
    modalities
        Whether to start with a panel that shows each cell once per modality; or the modalities to show.
    basis
        Key of ``obsm``, such as ``"X_umap"`` for coordinates from scanpy.
    ncols
        Panels in a row. ``None``: up to three in one row, more in two rows.
    size, alpha
        Area in square points and opacity of a cell; ``None`` follows the number of cells.
    figure
        Draw into this empty figure, which is given the size needed; ``None`` makes one with pyplot.

    Returns
    -------
    One ``Axes`` per panel; ``axes[0].figure.savefig(...)`` saves them. Points are rasterised in vector formats.

    Raises
    ------
    ScmambaError
        If coordinates are missing, or a column holds too many different values to be a legend.
    UnknownNameError
        If a column or a modality does not exist.

    Examples
    --------
    >>> scmamba_scvi.workflow.write_embeddings(mdata, model)
    >>> scmamba_scvi.workflow.write_umap(mdata, ["rna", "atac"])
    >>> axes = pl.integration(mdata, color=["cell_type", "batch"])
    """
    panels = _panels(mdata, color, modalities, basis)
    figure = figure_or_new(figure)
    axes = []
    for i, panel in enumerate(panels):
        ax = figure.add_axes((0, 0, 1, 1), label=f"panel {i}")  # placed at the end, when the legends can be measured
        # a square around all cells: the same in all panels of the joint embedding, so that a cell keeps its place
        low, high = np.nanmin(panel.xy, axis=0), np.nanmax(panel.xy, axis=0)
        center, half = (low + high) / 2, max(float((high - low).max()), 1e-6) * 0.52
        ax.set(xlim=(center[0] - half, center[0] + half), ylim=(center[1] - half, center[1] + half))
        style_plane(ax)
        ax.set_title(shorten(panel.title, 48), fontsize=FONT_SIZE + 2, pad=5)
        _draw(ax, panel, size, alpha)
        axes.append(ax)
    _arrange(figure, axes, ncols or (len(axes) if len(axes) <= 3 else -(-len(axes) // 2)))
    return axes


def _panels(
    mdata: MuData, color: str | Sequence[str] | None, modalities: bool | Sequence[str], basis: str
) -> list[_Panel]:
    """What to draw; everything wrong with the arguments is found here, before a figure exists."""
    joint = coordinates(mdata, basis)
    panels = _modality_panel(mdata, modalities, basis)
    panels += [_Panel(name, joint, _column(mdata, name)) for name in _columns_to_draw(mdata, color)]
    if not panels:
        raise ScmambaError(
            f"There is nothing to colour by: no modality has obsm[{basis!r}] and obs has none of the usual columns. "
            "Name one: color='...'."
        )
    for panel in panels:
        n = _n_categories(panel.values)
        if n > MAX_CATEGORIES:
            raise ScmambaError(
                f"{panel.title!r} has {n:,} different values, more than the {MAX_CATEGORIES} a legend can hold: "
                f"colour by a column of groups, or by one of numbers."
            )
    return panels


def _modality_panel(mdata: MuData, modalities: bool | Sequence[str], basis: str) -> list[_Panel]:
    """Each cell once per modality; no panel if there is no modality to show."""
    if isinstance(modalities, bool):
        keys = [key for key in mdata.mod if modalities and basis in mdata[key].obsm]
    else:
        keys = list(modalities)
    for key in keys:
        if key not in mdata.mod:
            raise UnknownNameError("modality", key, mdata.mod)
    if not keys:
        return []
    xy = [coordinates(mdata[key], basis, f"mdata[{key!r}]") for key in keys]
    names = np.repeat(keys, [len(part) for part in xy])
    return [_Panel("modality", np.concatenate(xy), pd.Series(pd.Categorical(names, categories=keys)))]


def _columns_to_draw(mdata: MuData, color: str | Sequence[str] | None) -> list[str]:
    if color is None:
        return [found for group in USUAL_COLUMNS if (found := _usual(mdata, group)) is not None]
    names = [color] if isinstance(color, str) else list(color)
    qualified = [f"{key}:{name}" for key in mdata.mod for name in mdata[key].obs]
    for name in names:
        if name not in qualified and not _has_column(mdata, name):
            raise UnknownNameError("column to colour by", name, [*qualified, *mdata.obs])
    return names


def _usual(mdata: MuData, group: Sequence[str]) -> str | None:
    """The first column of ``group`` that the data have, with at least one value and not too many for a legend."""
    for name in group:
        if _has_column(mdata, name) and 0 < _n_categories(_column(mdata, name)) <= MAX_CATEGORIES:
            return name
    return None


def _has_column(mdata: MuData, name: str) -> bool:
    return name in mdata.obs or any(name in mdata[key].obs for key in mdata.mod)


def _column(mdata: MuData, name: str) -> pd.Series:
    """Column of ``mdata.obs``, ``"rna:name"``, or of the first modality that has it; missing for cells it lacks."""
    if name in mdata.obs:
        return mdata.obs[name]
    key, _, rest = name.partition(":")
    if key in mdata.mod and rest in mdata[key].obs:
        return mdata[key].obs[rest].reindex(mdata.obs_names)
    key = next(key for key in mdata.mod if name in mdata[key].obs)
    return mdata[key].obs[name].reindex(mdata.obs_names)


def _is_continuous(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _n_categories(values: pd.Series) -> int:
    return 1 if _is_continuous(values) else values.nunique()


def _draw(ax: Axes, panel: _Panel, size: float | None, alpha: float | None) -> None:
    xy, values = panel.xy, panel.values
    n = len(xy)
    size = size if size is not None else float(np.clip(45_000 / n, 0.6, 28))
    alpha = alpha if alpha is not None else float(np.clip(1.15 - 0.1 * np.log10(n), 0.6, 0.9))
    # in random order, so that no group covers the others because it comes last
    order = np.random.default_rng(0).permutation(n)
    scatter = partial(ax.scatter, s=size, alpha=alpha, linewidths=0, rasterized=True, plotnonfinite=True)
    if _is_continuous(values):
        numbers = values.to_numpy(dtype=float, na_value=np.nan)
        known = np.isfinite(numbers)
        scatter(*xy[~known].T, c=MISSING)
        order = order[known[order]]
        drawn = scatter(*xy[order].T, c=numbers[order], cmap="viridis")
        bar = ax.inset_axes((1.03, 0.25, 0.035, 0.5))
        ax.figure.colorbar(drawn, cax=bar).ax.tick_params(labelsize=FONT_SIZE - 1)
        bar.collections[-1].set_alpha(1)
        return
    groups = as_categorical(values)
    colors = np.array([*palette(len(groups.categories)), MISSING])  # missing has code -1, the last
    known = groups.codes >= 0
    order = np.concatenate([order[~known[order]], order[known[order]]])  # grey lies below
    scatter(*xy[order].T, c=colors[groups.codes[order]])
    names = [shorten(name, 28) for name in groups.categories]
    if len(names) >= NUMBERED_FROM and _is_grouped(xy, groups):
        short = all(len(name) <= SHORT_NAME for name in names)
        marks_in_plane = names if short else [str(i) for i in range(1, len(names) + 1)]
        names = names if short else [f"{i}  {name}" for i, name in enumerate(names, start=1)]
        _write_in_plane(ax, xy, groups, marks_in_plane)
    _legend(ax, names, colors, has_missing=not known.all())


def _is_grouped(xy: np.ndarray, groups: pd.Categorical) -> bool:
    """Whether most categories have a place of their own; batches that mix have none where a number would help."""
    every = np.nanmedian(np.abs(xy - np.nanmedian(xy, axis=0)))
    own = [np.nanmedian(np.abs(part - np.nanmedian(part, axis=0))) for part in _parts(xy, groups)]
    return bool(np.median(own) < 0.6 * every)


def _parts(xy: np.ndarray, groups: pd.Categorical) -> list[np.ndarray]:
    """Points of each category that has any to draw."""
    drawn = np.isfinite(xy).all(axis=1)
    parts = [xy[(groups.codes == code) & drawn] for code in range(len(groups.categories))]
    return [part for part in parts if len(part)]


def _write_in_plane(ax: Axes, xy: np.ndarray, groups: pd.Categorical, names: Sequence[str]) -> None:
    """Write each category's name at the cell nearest to its median, and move names apart that would overlap."""
    at, written = [], []
    for code, name in enumerate(names):
        cells = xy[(groups.codes == code) & np.isfinite(xy).all(axis=1)]
        if len(cells):
            # there may be no cell at the median itself, as in the middle of a ring
            at.append(cells[((cells - np.median(cells, axis=0)) ** 2).sum(axis=1).argmin()])
            written.append(name)
    inch = np.ptp(ax.get_xlim()) / PANEL  # in units of the coordinates
    box = np.array([0.075 * max(map(len, written)) + 0.04, 0.13]) * inch  # of the widest name
    for (x, y), name in zip(spread(np.array(at), box), written, strict=True):
        ax.text(x, y, name, fontsize=FONT_SIZE, weight="bold", ha="center", va="center", path_effects=OUTLINE)


def _legend(ax: Axes, names: Sequence[str], colors: np.ndarray, has_missing: bool) -> None:
    shades = list(colors[:-1])
    if has_missing:
        names, shades = [*names, "missing"], [*shades, MISSING]
    handles = [Line2D([], [], marker="o", ls="", markersize=5.5, markeredgewidth=0, color=c) for c in shades]
    columns = -(-len(names) // LEGEND_ROWS)
    ax.legend(
        handles, names, loc="center left", bbox_to_anchor=(1 + LEGEND_GAP / PANEL, 0.5), ncols=columns, frameon=False,
        fontsize=FONT_SIZE, borderpad=0, borderaxespad=0, handletextpad=0.2, columnspacing=0.9, labelspacing=0.35,
    )  # fmt: skip


def _arrange(figure: Figure, axes: Sequence[Axes], ncols: int) -> None:
    """Size the figure, and place equal squares with room for each column's widest legend."""
    beside = [_width_beside(ax) for ax in axes]
    columns = [max(beside[c::ncols], default=0.0) for c in range(ncols)]
    rows = -(-len(axes) // ncols)
    width = sum(MARGIN + PANEL + extra for extra in columns) + MARGIN
    height = rows * (PANEL + TITLE + MARGIN) + MARGIN
    figure.set_size_inches(width, height)
    for i, ax in enumerate(axes):
        row, column = divmod(i, ncols)
        left = sum(MARGIN + PANEL + extra for extra in columns[:column]) + MARGIN
        bottom = height - (row + 1) * (PANEL + TITLE + MARGIN)
        ax.set_position((left / width, bottom / height, PANEL / width, PANEL / height))


def _width_beside(ax: Axes) -> float:
    """Inches right of the panel that its legend or colour bar needs."""
    legend = ax.get_legend()
    if legend is None:
        return 0.75
    return legend.get_window_extent().width / ax.figure.dpi + 2 * LEGEND_GAP
