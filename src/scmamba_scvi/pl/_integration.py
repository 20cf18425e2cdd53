"""The joint embedding, drawn once per question: which modality, which cell type, which batch, which cluster?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import matplotlib.patheffects as patheffects
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from ..errors import ScmambaError, UnknownNameError
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
#: More categories than this are names of cells rather than groups of them.
MAX_CATEGORIES: Final = 100
#: From here on colours alone no longer tell categories apart: they are numbered in the plane and in the legend.
NUMBERED_FROM: Final = 9
#: Names up to this length stand in the plane themselves.
SHORT_NAME: Final = 3

# inches
PANEL, TITLE, MARGIN, LEGEND_GAP = 3.8, 0.32, 0.15, 0.1
FONT_SIZE: Final = 8.5
#: Entries of a legend that fit beside a panel.
LEGEND_ROWS: Final = 23


@dataclass(frozen=True)
class _Panel:
    """Points ``(n, 2)`` and what gives each its colour."""

    title: str
    xy: np.ndarray
    values: pd.Series


def integration(
    mdata: MuData,
    color: str | Sequence[str] | None = None,
    *,
    modalities: bool | Sequence[str] = True,
    ncols: int | None = None,
    size: float | None = None,
    alpha: float | None = None,
    figure: Figure | None = None,
) -> list[Axes]:
    """Draw the embedding side by side, coloured by modality, cell type, batch and cluster.

    Parameters
    ----------
    mdata
        With ``obsm["X_umap"]``, coordinates ``(n_cells, 2)`` of the joint embedding, and for the panel of modalities
        the same key in the modalities: one plane for their views, which is not that of the joint embedding. As
        :func:`scmamba_scvi.workflow.integrate` writes them.
    color
        Columns of ``mdata.obs`` or of a modality's ``obs``, one panel each; numbers get a colour bar. ``None`` takes
        what the data have of cell type, batch and cluster under their usual names.
    modalities
        Whether to start with a panel in which each cell stands once per modality; or which modalities.
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
    panels = _panels(mdata, color, modalities)
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure()
    axes = []
    for i, panel in enumerate(panels):
        ax = figure.add_axes((0, 0, 1, 1), label=f"panel {i}")  # placed below, when the legends can be measured
        # a square around all there is: the same in all panels of the joint embedding, so that a cell keeps its place
        low, high = np.nanmin(panel.xy, axis=0), np.nanmax(panel.xy, axis=0)
        center, half = (low + high) / 2, max(float((high - low).max()), 1e-6) * 0.52
        ax.set(xlim=(center[0] - half, center[0] + half), ylim=(center[1] - half, center[1] + half))
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(color="0.75", linewidth=0.6)
        ax.set_title(_shorten(panel.title, 48), fontsize=FONT_SIZE + 2, pad=5)
        _draw(ax, panel, size, alpha)
        axes.append(ax)
    _arrange(figure, axes, ncols or (len(axes) if len(axes) <= 3 else -(-len(axes) // 2)))
    return axes


def _panels(mdata: MuData, color: str | Sequence[str] | None, modalities: bool | Sequence[str]) -> list[_Panel]:
    """What to draw; every fault in what was asked for is found here, before a figure exists."""
    joint = _coordinates(mdata, "mdata")
    panels = []
    if modalities is not False:
        keys = [key for key in mdata.mod if "X_umap" in mdata[key].obsm] if modalities is True else list(modalities)
        for key in keys:
            if key not in mdata.mod:
                raise UnknownNameError("modality", key, mdata.mod)
        if keys:
            xy = [_coordinates(mdata[key], f"mdata[{key!r}]") for key in keys]
            names = np.repeat(keys, [len(part) for part in xy])
            values = pd.Series(pd.Categorical(names, categories=keys))
            panels.append(_Panel("modality", np.concatenate(xy), values))
    columns = {**{f"{key}:{name}": None for key in mdata.mod for name in mdata[key].obs}, **dict.fromkeys(mdata.obs)}
    if color is None:
        wanted = [found for group in USUAL_COLUMNS if (found := _usual(mdata, group)) is not None]
    else:
        wanted = [color] if isinstance(color, str) else list(color)
    for name in wanted:
        if name not in columns and not any(name in mdata[key].obs for key in mdata.mod):
            raise UnknownNameError("column to colour by", name, columns)
        panels.append(_Panel(name, joint, _column(mdata, name)))
    if not panels:
        raise ScmambaError(
            "There is nothing to colour by: no modality has obsm['X_umap'] and obs has none of the usual columns. "
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


def _usual(mdata: MuData, group: Sequence[str]) -> str | None:
    """The first column of ``group`` that exists and is not constant padding of a thousand names."""
    for name in group:
        if name in mdata.obs or any(name in mdata[key].obs for key in mdata.mod):
            if 0 < _n_categories(_column(mdata, name)) <= MAX_CATEGORIES:
                return name
    return None


def _coordinates(data, name: str) -> np.ndarray:
    if "X_umap" not in data.obsm:
        raise ScmambaError(
            f"{name}.obsm has no 'X_umap' to draw (it has {sorted(data.obsm) or 'nothing'}): "
            f"scmamba_scvi.workflow.integrate(mdata) writes it, or compute it from obsm['X_scmamba'] with scanpy."
        )
    xy = np.asarray(data.obsm["X_umap"], dtype=float)
    if xy.ndim != 2 or xy.shape[1] < 2:
        raise ScmambaError(f"{name}.obsm['X_umap'] must have two columns, it has shape {xy.shape}.")
    if not np.isfinite(xy[:, :2]).any():
        raise ScmambaError(f"{name}.obsm['X_umap'] holds no finite coordinates.")
    return xy[:, :2]


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
    # a few cells are drawn as discs, a hundred thousand as a density
    size = size if size is not None else float(np.clip(45_000 / n, 0.6, 28))
    alpha = alpha if alpha is not None else float(np.clip(1.15 - 0.1 * np.log10(n), 0.6, 0.9))
    # drawn in random order, no group lies on top of the others because it comes last
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
    groups = _as_categorical(values)
    colors = np.array([*palette(len(groups.categories)), MISSING])  # code -1, missing, is the last
    known = groups.codes >= 0
    order = np.concatenate([order[~known[order]], order[known[order]]])  # grey lies below
    scatter(*xy[order].T, c=colors[groups.codes[order]])
    names = [_shorten(name, 28) for name in groups.categories]
    if len(names) >= NUMBERED_FROM and _is_grouped(xy, groups):
        short = all(len(name) <= SHORT_NAME for name in names)
        marks_in_plane = names if short else [str(i) for i in range(1, len(names) + 1)]
        names = names if short else [f"{i}  {name}" for i, name in enumerate(names, start=1)]
        _write_in_plane(ax, xy, groups, marks_in_plane)
    _legend(ax, names, colors, has_missing=not known.all())


def _as_categorical(values: pd.Series) -> pd.Categorical:
    """Used categories only; in their own order if they have one, else sorted as people count ("2" before "10")."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        given = pd.Categorical(values).remove_unused_categories()
        categories = list(given.categories)
        if given.ordered or categories != sorted(categories):
            return given.rename_categories([str(c) for c in categories])
    text = values.astype("string")
    return pd.Categorical(text, categories=sorted(text.dropna().unique(), key=_natural))


def _natural(text: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part.lower()) for part in re.split(r"(\d+)", text) if part]


def _is_grouped(xy: np.ndarray, groups: pd.Categorical) -> bool:
    """Whether most categories have a place of their own; batches that mix have none to write a number at."""
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
            # the median itself may lie where no cell is, as in the middle of a ring
            at.append(cells[((cells - np.median(cells, axis=0)) ** 2).sum(axis=1).argmin()])
            written.append(name)
    inch = np.ptp(ax.get_xlim()) / PANEL
    box = np.array([0.075 * max(map(len, written)) + 0.04, 0.13]) * inch  # of the widest name
    outline = [patheffects.withStroke(linewidth=1.8, foreground="white")]
    for (x, y), name in zip(_spread(np.array(at), box), written, strict=True):
        ax.text(x, y, name, fontsize=FONT_SIZE, weight="bold", ha="center", va="center", path_effects=outline)


def _spread(points: np.ndarray, box: np.ndarray, n_rounds: int = 100) -> np.ndarray:
    """Push boxes of one size, centred at ``points`` ``(n, 2)``, apart along the axis on which they overlap least."""
    points = points.copy()
    for _ in range(n_rounds):
        between = points[:, None] - points  # (n, n, 2)
        overlap = box - np.abs(between)
        hit = (overlap > 0).all(axis=-1) & ~np.eye(len(points), dtype=bool)
        if not hit.any():
            break
        least = (overlap / box).argmin(axis=-1)
        for axis in (0, 1):
            # two boxes at one place part in the order of their rows
            sign = np.sign(between[..., axis]) + (between[..., axis] == 0) * np.sign(np.subtract.outer(
                np.arange(len(points)), np.arange(len(points))))  # fmt: skip
            push = np.where(hit & (least == axis), sign * overlap[..., axis], 0.0)
            points[:, axis] += 0.3 * push.sum(axis=1)
    return points


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


def _shorten(name: str, length: int) -> str:
    """The start and the end: names of cell types differ at either."""
    if len(name) <= length:
        return name
    tail = length // 3
    return f"{name[: length - tail - 1].rstrip()}…{name[-tail:].lstrip()}"


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
