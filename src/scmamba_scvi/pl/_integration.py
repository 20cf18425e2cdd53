"""The joint embedding, drawn once per question: which modality, which cell type, which batch, which cluster?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from mudata import MuData

from .._columns import obs_column
from .._keys import OBSM_KEY, UMAP_KEY
from ..errors import ScmambaError, UnknownNameError
from ._canvas import MARGIN, figure_or_new, style_plane
from ._cells import coordinates
from ._labels import SOFT, as_categorical, plain, rim, shorten, shortened, spread
from ._palette import MISSING, modality_colors, palette
from .coloring import MAX_CATEGORIES, can_color, is_continuous

#: From this many categories on, colours alone no longer tell them apart: they are numbered among the cells and in the
#: legend.
NUMBERED_FROM: Final = 9
#: Names up to this length are written among the cells themselves, instead of a number.
SHORT_NAME: Final = 3

# inches
PANEL, TITLE, LABEL, LEGEND_GAP, BAR = 3.8, 0.32, 0.22, 0.1, 0.75
FONT_SIZE: Final = 8.5
#: Entries of a legend that fit beside a panel.
LEGEND_ROWS: Final = 23


@dataclass(frozen=True)
class _Panel:
    """Points ``(n, 2)`` of a plane and the values ``(n,)`` that colour them; `None`: colours of the usual palette."""

    title: str
    plane: str
    xy: np.ndarray
    values: pd.Series
    colors: list[str] | None = None


def integration(
    mdata: MuData,
    color: str | Sequence[str] = (),
    *,
    modalities: bool | str | Sequence[str] = True,
    basis: str = UMAP_KEY,
    figure: Figure | None = None,
) -> list[Axes]:
    """Draw the embedding side by side, coloured by modality, cell type, batch and cluster.

    Parameters
    ----------
    mdata
        With ``obsm[basis]``, coordinates ``(n_cells, 2)`` of the joint embedding. The panel of modalities needs the
        same key in each modality; their coordinates share a plane, which is not that of the joint embedding. A kind of
        modality has the same colour in every figure.
        :func:`scmamba_scvi.workflow.integrate` writes both.
    color
        Columns of ``mdata.obs`` or of a modality's ``obs``, one panel each. Numbers get a colour bar; whole numbers, if there
        are at most 100 of them, a legend, as they mostly number clusters or donors.
    modalities
        Whether to start with a panel that shows each cell once per modality; or the modalities to show. ``True``: where
        ``basis`` is a key of this package, as only then their coordinates are sure to share a plane.
    basis
        Key of ``obsm``, such as ``"X_umap"`` for coordinates from scanpy.
    figure
        Draw into this empty figure, which is given the size needed; ``None`` makes one with pyplot.

    Returns
    -------
    One ``Axes`` per panel, up to three in one row, more in two; ``axes[0].figure.savefig(...)`` saves them. Size and
    opacity of a cell follow their number; points are rasterised in vector formats, sharp in print with
    ``savefig("cells.pdf", dpi=300)``.

    Raises
    ------
    ScmambaError
        If coordinates are missing, or a column holds too many different values to be a legend.
    UnknownNameError
        If a column or a modality does not exist.

    Examples
    --------
    >>> scmamba_scvi.workflow.write_embeddings(mdata, model)
    >>> # without a UMAP, the first two dimensions of the embedding
    >>> axes = pl.integration(mdata, color="cell_type", basis="X_scmamba")
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
        ax.set_title(plain(shorten(panel.title, 48)), fontsize=FONT_SIZE + 2, pad=5)
        axis = basis.removeprefix("X_").removesuffix("_scmamba").upper()
        ax.set_xlabel(f"{axis} 1 of {panel.plane}", fontsize=FONT_SIZE - 1, labelpad=3, alpha=SOFT)
        ax.set_ylabel(f"{axis} 2", fontsize=FONT_SIZE - 1, labelpad=3, alpha=SOFT)
        _draw(ax, panel)
        axes.append(ax)
    _arrange(figure, axes, len(axes) if len(axes) <= 3 else -(-len(axes) // 2))
    return axes


def _panels(
    mdata: MuData, color: str | Sequence[str], modalities: bool | str | Sequence[str], basis: str
) -> list[_Panel]:
    """What to draw; everything wrong with the arguments is found here, before a figure exists."""
    if not isinstance(mdata, MuData):
        raise ScmambaError(
            f"pl.integration draws a MuData, got {type(mdata).__name__}; scanpy's sc.pl.embedding(adata, {basis!r}) draws "
            f"one modality."
        )
    if color is None:
        raise ScmambaError("color must be columns of obs, or () for none; got None.")
    joint, panels = coordinates(mdata, basis), []
    if isinstance(modalities, bool):
        together = modalities and basis in (UMAP_KEY, OBSM_KEY)
        modalities = [key for key in mdata.mod if together and basis in mdata[key].obsm]
    modalities = [modalities] if isinstance(modalities, str) else modalities
    for key in modalities:
        if key not in mdata.mod:
            raise UnknownNameError("modality", key, mdata.mod)
    if modalities:  # each cell once per modality
        xy = [coordinates(mdata[key], basis, f"mdata[{key!r}]") for key in modalities]
        names = np.repeat(modalities, [len(part) for part in xy])
        values = pd.Series(pd.Categorical(names, categories=modalities))
        plane = "the modalities, a plane of their own"
        panels.append(_Panel("modality", plane, np.concatenate(xy), values, modality_colors(modalities)))
    for name in [color] if isinstance(color, str) else color:
        panels.append(_Panel(name, "the joint embedding", joint, obs_column(mdata, name, "column to colour by")))
        if not can_color(panels[-1].values):
            raise ScmambaError(
                f"{name!r} has {panels[-1].values.nunique():,} different values, more than the {MAX_CATEGORIES} a legend "
                f"can hold: colour by a column of groups, or by one of numbers."
            )
    if not panels:
        raise ScmambaError(
            f"There is nothing to colour by: name a column, color='...', or modalities with obsm[{basis!r}], modalities=[...]."
        )
    return panels


def _draw(ax: Axes, panel: _Panel) -> None:
    xy, values = panel.xy, panel.values
    n = len(xy)
    size, alpha = float(np.clip(45_000 / n, 0.6, 28)), float(np.clip(1.15 - 0.1 * np.log10(n), 0.6, 0.9))
    # in random order, so that no group covers the others because it comes last
    order = np.random.default_rng(0).permutation(n)
    scatter = partial(ax.scatter, s=size, alpha=alpha, linewidths=0, rasterized=True, plotnonfinite=True)
    if is_continuous(values):
        numbers = values.to_numpy(dtype=float, na_value=np.nan)
        known = np.isfinite(numbers)
        scatter(*xy[~known].T, c=MISSING)
        order = order[known[order]]
        drawn = scatter(*xy[order].T, c=numbers[order], cmap="viridis")
        bar = ax.inset_axes((1.03, 0.25, 0.035, 0.5))
        ax.figure.colorbar(drawn, cax=bar).ax.tick_params(labelsize=FONT_SIZE - 1)
        bar.collections[-1].set_alpha(1)
        if not known.all():
            _write_legend(ax, [MISSING], ["missing"], 0.17)
        return
    groups = as_categorical(values)
    colors = [*(panel.colors or palette(len(groups.categories))), MISSING]  # missing has code -1, the last
    known = groups.codes >= 0
    order = np.concatenate([order[~known[order]], order[known[order]]])  # grey lies below
    scatter(*xy[order].T, c=np.array(colors)[groups.codes[order]])
    names = [plain(name) for name in shortened(list(groups.categories), 28)]
    if len(names) >= NUMBERED_FROM:
        names = _write_in_plane(ax, xy, groups, names)
    if known.all():
        colors = colors[:-1]
    else:
        names = [*names, "missing"]
    _write_legend(ax, colors, names, 0.5)


def _write_legend(ax: Axes, colors: Sequence[str], names: Sequence[str], height: float) -> None:
    """Beside the panel, its middle at this fraction of the panel's height."""
    handles = [Line2D([], [], marker="o", ls="", markersize=5.5, markeredgewidth=0, color=c) for c in colors]
    ax.legend(
        handles, names, loc="center left", bbox_to_anchor=(1 + LEGEND_GAP / PANEL, height), ncols=-(-len(names) // LEGEND_ROWS),
        frameon=False, fontsize=FONT_SIZE, borderpad=0, borderaxespad=0, handletextpad=0.2, columnspacing=0.9,
        labelspacing=0.35,
    )  # fmt: skip


def _write_in_plane(ax: Axes, xy: np.ndarray, groups: pd.Categorical, names: list[str]) -> list[str]:
    """Write a number, or a short name, at the cell of each category that is nearest to its median; the legend's names.

    Categories that have no place of their own, such as batches that mix, get none.
    """
    drawn = np.isfinite(xy).all(axis=1)
    parts = {code: xy[(groups.codes == code) & drawn] for code in range(len(names))}
    medians = {code: np.median(part, axis=0) for code, part in parts.items() if len(part)}
    own = [np.median(np.abs(parts[code] - median)) for code, median in medians.items()]
    if not own or np.median(own) >= 0.6 * np.median(np.abs(xy[drawn] - np.median(xy[drawn], axis=0))):
        return names
    marks = names
    if max(map(len, names)) > SHORT_NAME:
        marks = [str(i) for i in range(1, len(names) + 1)]
        names = [f"{mark}  {name}" for mark, name in zip(marks, names, strict=True)]
    # there may be no cell at the median itself, as in the middle of a ring
    at = [parts[code][((parts[code] - median) ** 2).sum(axis=1).argmin()] for code, median in medians.items()]
    inch = np.ptp(ax.get_xlim()) / PANEL  # in units of the coordinates
    box = np.array([0.075 * max(map(len, marks)) + 0.04, 0.13]) * inch  # of the widest name
    low, high = ax.get_ylim()
    for (x, y), (_, own_y), code in zip(spread(np.array(at), box), at, medians, strict=True):
        if abs(y - own_y) > 3 * box[1] or not low + box[1] / 2 <= y <= high - box[1] / 2:
            continue  # too many in one place: a name far from its cells would be taken for that of others
        ax.text(x, y, marks[code], fontsize=FONT_SIZE, weight="bold", ha="center", va="center", path_effects=rim(ax))
    return names


def _arrange(figure: Figure, axes: Sequence[Axes], ncols: int) -> None:
    """Size the figure, and place equal squares with room for each column's widest legend."""
    legends = [ax.get_legend() for ax in axes]
    # inches right of a panel that its legend or colour bar needs
    beside = [max(of.get_window_extent().width / figure.dpi + 2 * LEGEND_GAP if of else 0, BAR) for of in legends]
    ends = np.cumsum([MARGIN + LABEL + PANEL + max(beside[c::ncols], default=0.0) for c in range(ncols)])
    rows = -(-len(axes) // ncols)
    row_height = TITLE + PANEL + LABEL + MARGIN
    width, height = ends[-1] + MARGIN, rows * row_height + MARGIN
    figure.set_size_inches(width, height)
    for i, ax in enumerate(axes):
        row, column = divmod(i, ncols)
        left = MARGIN + LABEL + (ends[column - 1] if column else 0.0)
        bottom = height - (row + 1) * row_height + LABEL
        ax.set_position((left / width, bottom / height, PANEL / width, PANEL / height))
