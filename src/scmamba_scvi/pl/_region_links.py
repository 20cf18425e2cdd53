"""Pairs of a peak and a gene: the strength of each link against its distance, and what chance gives."""

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import ScmambaError
from ._canvas import FONT_SIZE, figure_or_new, style_axes, write_above
from ._cells import check_columns
from ._palette import FEW

#: Inches.
WIDTH, HEIGHT = 6.4, 3.8
COLUMNS: Final = ("gene", "peak", "distance", "z", "q")
#: Up to this many bases from the start of transcription the axis is linear, beyond it is logarithmic.
LINEAR: Final = 1_000
#: Pairs that a point of the line of means averages, at least, and most points of the line.
PAIRS_PER_MEAN: Final = 100
MAX_MEANS: Final = 40
#: Genes named, those with the highest z, and the fractions of width and height that a name takes.
N_LABELS, NAME = 4, (0.14, 0.07)


def region_links(table: pd.DataFrame, *, q: float = 0.1, figure: Figure | None = None) -> Axes:
    """Draw the z-score of pairs of genes and peaks against the distance between them.

    Parameters
    ----------
    table
        What :meth:`scmamba_scvi.SCMAMBA.get_region_links` gives.
    q
        False discovery rate up to which pairs are coloured.
    figure
        Draw into this empty figure, which is given the size needed; `None` makes one with pyplot.

    Returns
    -------
    The ``Axes``. The grey band is the background, mean and one standard deviation; the line is the mean of the pairs at
    that distance, with twice its standard error. The genes of the highest z are named.

    Raises
    ------
    ScmambaError
        The table lacks a column, or no pair has a z-score.

    Examples
    --------
    >>> ax = pl.region_links(model.get_region_links(max_distance=1_000_000))
    """
    check_columns(table, COLUMNS, "get_region_links")
    known = table[np.isfinite(table["z"])]
    if known.empty:
        raise ScmambaError("No pair of the table has a z-score: there was nothing to compare with, or no pair at all.")
    distance, z, sure = known["distance"].to_numpy(), known["z"].to_numpy(), (known["q"] <= q).to_numpy()
    figure = figure_or_new(figure, WIDTH, HEIGHT)
    ax = figure.subplots()
    ax.axhspan(-1, 1, color="0.5", alpha=0.14, lw=0, zorder=0)
    ax.axhline(0, color="0.75", lw=0.8, zorder=0)
    # a few found among very many pairs must be seen
    size, size_of_sure = (float(np.clip(20_000 / max(n, 1), 1.5, 14)) for n in (len(known), sure.sum()))
    ax.scatter(distance[~sure], z[~sure], s=size, c="0.62", alpha=0.5, linewidths=0, rasterized=True)
    ax.scatter(distance[sure], z[sure], s=1.6 * size_of_sure, c=FEW[0], alpha=0.8, linewidths=0, rasterized=True)
    # as small as among the others, a point in the legend would show no colour
    label = f"{sure.sum():,} of {len(known):,} pairs with q ≤ {q:g}"
    ax.scatter([], [], s=16, c=FEW[0], alpha=0.8, linewidths=0, label=label)
    _draw_means(ax, distance, z)
    low, high = min(z.min(), -1.2) - 0.2, max(z.max(), 1.2)
    ax.set_ylim(low, high + 0.28 * (high - low))  # above are the legend and names
    ax.set_xscale("symlog", linthresh=LINEAR)
    farthest = max(float(np.abs(distance).max()), LINEAR)
    steps = [step for step in (1_000, 10_000, 100_000, 1_000_000) if step <= farthest]
    ticks = [*(-step for step in reversed(steps)), 0, *steps]
    ax.set_xticks(ticks, [f"{tick // 1000:,}" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlim(-1.15 * farthest, 1.15 * farthest)
    best = known.sort_values("z", ascending=False, kind="stable").drop_duplicates("gene")
    write_above(ax, zip(best["gene"], best["distance"], best["z"], strict=True), N_LABELS, NAME)
    ax.set_xlabel("kilobases from the start of transcription (negative: upstream)", fontsize=FONT_SIZE)
    ax.set_ylabel("z against peaks elsewhere", fontsize=FONT_SIZE)
    ax.legend(fontsize=FONT_SIZE - 1, frameon=False, loc="upper left", ncols=2, borderaxespad=0.2)
    style_axes(ax)
    return ax


def _draw_means(ax: Axes, distance: np.ndarray, z: np.ndarray) -> None:
    """Mean of ``z`` over groups of about equally many pairs of similar distance."""
    order = np.argsort(distance, kind="stable")
    groups = np.array_split(order, int(np.clip(len(order) // PAIRS_PER_MEAN, 1, MAX_MEANS)))
    at = [float(np.median(distance[group])) for group in groups]
    mean = np.array([z[group].mean() for group in groups])
    error = np.array([z[group].std() / np.sqrt(len(group)) for group in groups])
    ax.fill_between(at, mean - 2 * error, mean + 2 * error, color=FEW[3], alpha=0.25, lw=0)
    ax.plot(at, mean, color=FEW[3], lw=1.6, marker="o", ms=2.5, label="mean of pairs")
