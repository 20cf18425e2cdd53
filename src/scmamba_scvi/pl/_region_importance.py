"""Importance along the whole genome, chromosomes side by side on one axis."""

import itertools
import textwrap
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import ScmambaError
from ._canvas import FONT_SIZE, figure_or_new, style_axes, write_above
from ._cells import check_columns
from ._labels import plain, shortened
from ._palette import LINES

#: Inches of the figure's width, and of a group's height.
WIDTH, HEIGHT = 11.0, 1.25
#: Fraction of the width that the name of a peak takes, which has the height to itself, and that of a chromosome.
NAME, CHROMOSOME = (0.145, 1.0), 0.018
#: Features named per group.
N_LABELS: Final = 3
COLUMNS: Final = ("group", "name", "chrom", "start", "end", "importance")


def region_importance(table: pd.DataFrame, *, figure: Figure | None = None) -> list[Axes]:
    """Draw which features place groups of cells where they lie, a row per group, chromosomes from left to right.

    Parameters
    ----------
    table
        What :meth:`scmamba_scvi.SCMAMBA.get_region_importance` gives; groups are drawn in its order.
    figure
        Draw into this empty figure, which is given the size needed; `None` makes one with pyplot.

    Returns
    -------
    One ``Axes`` per group, with the names of its most important features.

    Raises
    ------
    ScmambaError
        The table lacks a column, or none of its features has coordinates.

    Examples
    --------
    >>> table = model.get_region_importance(
    ...     groupby="cell_type", modality="atac", groups=["type_1"]
    ... )
    >>> axes = pl.region_importance(table)
    """
    check_columns(table, COLUMNS, "get_region_importance")
    groups = list(dict.fromkeys(table["group"].astype(str)))
    # read from a file, "" is missing
    placed = table[table["chrom"].notna() & (table["chrom"] != "") & np.isfinite(table["importance"])]
    if placed.empty:
        raise ScmambaError("No feature of the table has coordinates: annotate_genome() gives them to genes.")
    # chromosomes in the order of the table, which is that of the genome
    lengths = placed.groupby("chrom", sort=False, observed=True)["end"].max().astype(float)
    lengths.index = lengths.index.astype(str)
    offsets = lengths.cumsum() - lengths
    figure = figure_or_new(figure, WIDTH, 0.7 + HEIGHT * len(groups))
    axes = figure.subplots(len(groups), 1, squeeze=False, sharex=True)[:, 0]
    whole, middles = lengths.sum(), offsets + lengths / 2
    axes[-1].set_xlim(0, whole)
    labels = [plain("\n".join(textwrap.wrap(name, 16))) for name in shortened(groups, 32)]
    for ax, group, label, color in zip(axes, groups, labels, itertools.cycle(LINES), strict=False):
        own = placed[placed["group"].astype(str) == group]
        x = own["chrom"].astype(str).map(offsets).to_numpy() + (own["start"] + own["end"]).to_numpy() / 2
        _draw_row(ax, x, own["importance"].to_numpy(dtype=float), own["name"].to_numpy(), color)
        ax.set_ylabel(label, fontsize=FONT_SIZE, rotation=0, ha="right", va="center")
        for chrom in offsets.index[1::2]:
            ax.axvspan(offsets[chrom], offsets[chrom] + lengths[chrom], color="0.5", alpha=0.1, lw=0, zorder=-1)
    # the longest first; a name that would touch another one is left out
    names = pd.Series({chrom: len(chrom.removeprefix("chr")) for chrom in lengths.index})  # contigs have long ones
    named: list[str] = []
    for chrom in lengths.sort_values(ascending=False, kind="stable").index:
        room = CHROMOSOME * whole * (names[named] + names[chrom]).clip(lower=4) / 4
        if ((middles[named] - middles[chrom]).abs() >= room).all():
            named.append(chrom)
    ticks = [chrom.removeprefix("chr") for chrom in named]
    axes[-1].set_xticks(middles[named].tolist(), ticks, fontsize=FONT_SIZE - 1)
    axes[-1].set_xlabel("chromosome", fontsize=FONT_SIZE)
    axes[0].set_title("importance", fontsize=FONT_SIZE, loc="left")
    return list(axes)


def _draw_row(ax: Axes, x: np.ndarray, y: np.ndarray, names: np.ndarray, color: str) -> None:
    ax.vlines(x, 0, y, color=color, lw=0.7, rasterized=True)
    ax.axhline(0, color="0.6", lw=0.5)
    low, high = y.min(initial=0.0), y.max(initial=0.0)
    ax.set_ylim(low - 0.05 * (high - low or 1), high + 0.35 * (high - low or 1))
    write_above(ax, ((names[i], x[i], y[i]) for i in np.argsort(-y, kind="stable") if y[i] > 0), N_LABELS, NAME)
    ax.locator_params(axis="y", nbins=3)
    style_axes(ax, font_size=FONT_SIZE - 2, tick_length=2)
