"""Importance along the whole genome, chromosomes side by side on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from ..errors import ScmambaError, UnknownNameError
from ._palette import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FONT_SIZE: Final = 9.0
#: Inches of the figure's width, and of a group's height.
WIDTH, HEIGHT = 11.0, 1.25
#: Share of the width that the name of a peak takes.
NAME: Final = 0.145
COLUMNS: Final = ("group", "name", "chrom", "start", "end")


def region_importance(
    table: pd.DataFrame,
    groups: Sequence[str] | None = None,
    *,
    value: str = "importance",
    n_labels: int = 3,
    figure: Figure | None = None,
) -> list[Axes]:
    """Draw what makes groups of cells lie where they lie, one row per group, chromosomes from left to right.

    Parameters
    ----------
    table
        What :meth:`scmamba_scvi.SCMAMBA.get_region_importance` gives.
    groups
        Rows to draw, in this order. `None`: all.
    value
        Column that is drawn, ``"importance"`` or ``"score"``.
    n_labels
        Features named per row, those with the highest values.
    figure
        Draw into this empty figure, which is given the size needed; `None` makes one with pyplot.

    Returns
    -------
    One ``Axes`` per group.

    Raises
    ------
    ScmambaError
        Columns missing, groups unknown, or no feature with coordinates.

    Examples
    --------
    >>> table = model.get_region_importance("cell_type", "atac", groups=["type_1"])
    >>> axes = pl.region_importance(table)
    """
    lacking = [name for name in (*COLUMNS, value) if name not in table]
    if lacking:
        raise ScmambaError(f"The table lacks {lacking}; pass what model.get_region_importance() gives.")
    known = list(dict.fromkeys(table["group"].astype(str)))
    groups = known if groups is None else [groups] if isinstance(groups, str) else list(groups)
    for group in groups:
        if group not in known:
            raise UnknownNameError("group", group, known)
    placed = table[(table["chrom"] != "") & table["group"].isin(groups)]
    if placed.empty:
        raise ScmambaError("No feature of the table has coordinates: annotate_genome() gives them to genes.")
    offsets, lengths = _chromosomes(placed)
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure()
    figure.set_layout_engine("constrained")
    figure.set_size_inches(WIDTH, 0.7 + HEIGHT * len(groups))
    axes = figure.subplots(len(groups), 1, squeeze=False, sharex=True)[:, 0]
    colors = palette(len(groups))
    for ax, group, color in zip(axes, groups, colors, strict=True):
        of_group = placed[placed["group"] == group]
        middle = (of_group["start"].to_numpy() + of_group["end"].to_numpy()) / 2
        x = of_group["chrom"].map(offsets).to_numpy(dtype=float) + middle
        _row(ax, x, of_group[value].to_numpy(dtype=float), of_group["name"].to_numpy(), color, n_labels)
        ax.set_ylabel(group, fontsize=FONT_SIZE, rotation=0, ha="right", va="center")
        _bands(ax, offsets, lengths)
    centre = [offsets[c] + lengths[c] / 2 for c in offsets]
    axes[-1].set_xticks(centre, [_short(c) for c in offsets], fontsize=FONT_SIZE - 1)
    axes[-1].set_xlim(0, sum(lengths.values()))
    axes[-1].set_xlabel("chromosome", fontsize=FONT_SIZE)
    axes[0].set_title(value, fontsize=FONT_SIZE, loc="left")
    return list(axes)


def _chromosomes(placed: pd.DataFrame) -> tuple[dict[str, float], dict[str, float]]:
    """Where each chromosome begins on the axis, and how long it is; as they come in the table, which is in genome order."""
    ends = placed.groupby("chrom", sort=False, observed=True)["end"].max()
    lengths = {str(c): float(e) for c, e in ends.items()}
    starts = np.r_[0, np.cumsum([*lengths.values()])[:-1]]
    return dict(zip(lengths, map(float, starts), strict=True)), lengths


def _row(ax: Axes, x: np.ndarray, y: np.ndarray, names: np.ndarray, color: str, n_labels: int) -> None:
    ax.vlines(x, 0, y, color=color, lw=0.7, rasterized=True)
    ax.axhline(0, color="0.6", lw=0.5)
    low, high = min(0.0, float(y.min())), max(0.0, float(y.max()))
    room = (high - low) or 1.0
    ax.set_ylim(low - 0.05 * room, high + 0.35 * room)
    taken: list[float] = []
    width = float(x.max()) or 1.0
    for i in np.argsort(-y, kind="stable"):
        if len(taken) == n_labels or y[i] <= 0:
            break
        at = x[i] / width
        side, left = ("left", at) if at < 0.08 else ("right", at - NAME) if at > 0.92 else ("center", at - NAME / 2)
        if any(abs(left - other) < NAME for other in taken):
            continue  # names of neighbours would lie on each other
        taken.append(left)
        ax.annotate(str(names[i]), (x[i], y[i]), xytext=(0, 2), textcoords="offset points", fontsize=FONT_SIZE - 2, color="0.2", ha=side)  # fmt: skip
    ax.tick_params(labelsize=FONT_SIZE - 2, color="0.6", length=2)
    ax.locator_params(axis="y", nbins=3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("0.6")


def _bands(ax: Axes, offsets: dict[str, float], lengths: dict[str, float]) -> None:
    for i, chrom in enumerate(offsets):
        if i % 2:
            ax.axvspan(offsets[chrom], offsets[chrom] + lengths[chrom], color="0.95", lw=0, zorder=-1)


def _short(chrom: str) -> str:
    return chrom.removeprefix("chr")
