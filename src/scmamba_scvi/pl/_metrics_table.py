"""A table of the scores of several methods: which one is good at what?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Circle, Rectangle
from matplotlib.text import Text

from ..errors import ScmambaError, UnknownNameError
from ._canvas import FONT_SIZE, figure_or_new
from ._labels import shorten
from ._palette import FEW

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Scores of :func:`scmamba_scvi.metrics.evaluate_integration` where lower is better.
LOWER_IS_BETTER: Final = frozenset({"FOSCTTM", "median rank", "modality gap"})
#: Group whose columns summarise others, drawn as bars.
OVERALL: Final = "overall"
#: Hues of the groups that `evaluate_integration` makes; other groups take one of the remaining colours.
HUES: Final = {"bio": FEW[2], "omics": FEW[0], "single-cell": "#A8508A", "batch": FEW[1], OVERALL: "#5A6472"}
#: Methods must differ by this much for full contrast: a column in which they tie must not show a winner.
LEAST_SPAN: Final = 0.05
#: Characters of a method's name.
NAME_LENGTH: Final = 44

#: Inches: height of a row, width of a column and of one with bars, between groups, around the table, and between the
#: names of methods and the first column.
ROW, COLUMN, BAR, GAP, MARGIN, NAME_GAP = 0.44, 0.73, 0.9, 0.2, 0.18, 0.12
#: Inches: height of the names of groups, and of a line of a header.
GROUP_HEIGHT, LINE = 0.3, 0.145


@dataclass(frozen=True)
class _Column:
    """A score, ``(methods,)``, and where it stands: its left edge and width in inches."""

    group: str
    name: str
    values: np.ndarray
    lower_is_better: bool
    left: float
    width: float


def metrics_table(
    scores: pd.DataFrame,
    *,
    sort_by: str | None = "overall",
    lower_is_better: Collection[str] | None = None,
    title: str | None = None,
    figure: Figure | None = None,
) -> Axes:
    """Draw a table of scores: methods in rows, scores in groups of columns, summaries as bars.

    Within a column, colour runs from the worst method (pale) to the best (full); where they differ by less than 0.05 it
    stays near the middle. An arrow marks scores where lower is better, a dash what was not scored.

    Parameters
    ----------
    scores
        One row per method. With two levels of columns, as :func:`scmamba_scvi.metrics.evaluate_integration` makes them,
        the first is the group, and columns of the group ``"overall"`` are bars from 0 to 1. A file that the command
        line wrote is read by ``pd.read_csv(file, header=[0, 1], index_col=0)``.
    sort_by
        Score by which methods are sorted, best first, those without it last. ``None`` keeps their order, as does
        ``"overall"`` where there is none.
    lower_is_better
        Scores where lower is better; ``None``: FOSCTTM, median rank and modality gap.
    title
        Above the table.
    figure
        Draw into this empty figure, which is given the size needed; ``None`` makes one with pyplot.

    Returns
    -------
    The ``Axes``, in inches.

    Raises
    ------
    ScmambaError
        If there is nothing to draw, or if a score is not a number or infinite.
    UnknownNameError
        If there is no column ``sort_by``.

    Examples
    --------
    >>> scores = metrics.evaluate_integration(model, metrics=["FOSCTTM", "recall@10"])
    >>> ax = pl.metrics_table(scores)
    """
    lower = LOWER_IS_BETTER if lower_is_better is None else set(lower_is_better)
    table = _sorted(_checked(scores), sort_by, lower)
    columns, right = _placed(table, lower)
    figure = figure_or_new(figure)
    ax = figure.add_axes((0, 0, 1, 1), label="metrics table")
    n = len(table)
    header = max(_header(column).count("\n") + 1 for column in columns) * LINE + 0.08
    left = _write_methods(ax, [str(name) for name in table.index])
    for i in range(n + 1):
        ax.plot([left, right], [i * ROW] * 2, color="0.4" if i == n else "0.9", lw=0.8 if i == n else 0.6)
    for column in columns:
        _draw_column(ax, column, n)
    _write_groups(ax, columns, n * ROW + header)
    _fit_figure(figure, ax, left, right, n * ROW + header + GROUP_HEIGHT, title, _caption(columns, n))
    return ax


# -- what is drawn ------------------------------------------------------------------------------------------------


def _checked(scores: pd.DataFrame) -> pd.DataFrame:
    """Floats with columns of two levels, group and name."""
    if not isinstance(scores, pd.DataFrame) or 0 in scores.shape:
        size = getattr(scores, "shape", None)
        raise ScmambaError(
            f"scores must be a table with a row per method and a column per score; got {type(scores).__name__}"
            f"{'' if size is None else f' of shape {size}'}."
        )
    try:
        table = scores.astype(float)
    except (TypeError, ValueError) as error:
        raise ScmambaError(f"scores must hold numbers only: {error}") from error
    if np.isinf(table.to_numpy()).any():
        raise ScmambaError(f"A score is infinite: {', '.join(map(str, table.columns[np.isinf(table).any()]))}.")
    if table.columns.nlevels == 1:
        table.columns = pd.MultiIndex.from_tuples([("", str(name)) for name in table.columns])
    if table.columns.nlevels != 2:
        raise ScmambaError(f"Columns must have one level or two (group, score); they have {table.columns.nlevels}.")
    if not table.columns.is_unique:
        raise ScmambaError(f"Columns are named twice: {table.columns[table.columns.duplicated()].tolist()}.")
    return table


def _sorted(table: pd.DataFrame, by: str | None, lower: Collection[str]) -> pd.DataFrame:
    if by is None:
        return table
    # a summary may have the name of a score, and comes after it
    found = [column for column in table if column[1] == by]
    if not found:
        if by == "overall":
            return table
        raise UnknownNameError("score to sort by", by, dict.fromkeys(name for _, name in table))
    return table.sort_values([found[-1]], ascending=by in lower, na_position="last", kind="stable")


def _placed(table: pd.DataFrame, lower: Collection[str]) -> tuple[list[_Column], float]:
    """Columns from left to right, groups together in the order of their first column, and the right edge."""
    columns, at = [], 0.0
    for i, group in enumerate(dict.fromkeys(group for group, _ in table)):
        at += GAP if i else 0.0
        for name in table[group]:
            width = BAR if group == OVERALL else COLUMN
            values = table[group, name].to_numpy()
            columns.append(_Column(str(group), str(name), values, name in lower, at, width))
            at += width
    return columns, at


def _header(column: _Column) -> str:
    """The name, a word per line, and an arrow if lower is better."""
    return "\n".join(column.name.split()) + (" ↓" if column.lower_is_better else "")


def _write_methods(ax: Axes, names: Sequence[str]) -> float:
    """Names of methods left of the columns, from the top down; returns the left edge of the widest."""
    write = partial(ax.text, ha="right", va="center", fontsize=FONT_SIZE)
    texts = [write(-NAME_GAP, (len(names) - i - 0.5) * ROW, shorten(name, NAME_LENGTH)) for i, name in enumerate(names)]
    return -NAME_GAP - max(_width(text) for text in texts)


def _width(text: Text) -> float:
    """In inches."""
    return text.get_window_extent().width / text.figure.dpi


def _draw_column(ax: Axes, column: _Column, n: int) -> None:
    middle = column.left + column.width / 2
    bars = column.group == OVERALL
    at, side = (column.left + 0.06, "left") if bars else (middle, "center")
    ax.text(at, n * ROW + 0.1, _header(column), ha=side, va="baseline", fontsize=FONT_SIZE - 1, linespacing=1.1)
    hue = _hue(column.group)
    decimals = 3 if np.nanmin(np.abs(column.values), initial=np.inf) < 0.0995 else 2
    for i, (value, good) in enumerate(zip(column.values, _goodness(column), strict=True)):
        y = (n - i - 0.5) * ROW
        if np.isnan(value):
            ax.text(middle, y, "–", ha="center", va="center", fontsize=FONT_SIZE, color="0.5")
            continue
        shade = _shade(hue, good)
        number = f"{value:.{decimals}f}"
        text = partial(ax.text, va="center", fontsize=FONT_SIZE - 1)
        if bars:
            length = (column.width - 0.12) * float(np.clip(value, 0, 1))
            ax.add_patch(Rectangle((column.left + 0.06, y - 0.14), length, 0.28, color=shade, lw=0))
            inside = length > 0.4
            color = _ink(shade) if inside else "black"
            text(column.left + (0.11 if inside else 0.1 + length), y, number, ha="left", color=color)
        else:
            ax.add_patch(Circle((middle, y), 0.198, color=shade, lw=0))
            text(middle, y, number, ha="center", color=_ink(shade))


def _write_groups(ax: Axes, columns: Sequence[_Column], y: float) -> None:
    """The name of each group above its columns, on a line as long as they are wide."""
    for group in dict.fromkeys(column.group for column in columns):
        if not group:
            continue
        own = [column for column in columns if column.group == group]
        left, right = own[0].left + 0.06, own[-1].left + own[-1].width - 0.06
        ax.plot([left, right], [y + 0.04] * 2, color=_hue(group), lw=2, solid_capstyle="butt")
        ax.text((left + right) / 2, y + 0.09, group, ha="center", va="bottom", fontsize=FONT_SIZE, weight="bold")


def _caption(columns: Sequence[_Column], n: int) -> str:
    parts = ["Colour: worst (pale) to best method of a column."] if n > 1 else []
    parts += ["↓ lower is better."] if any(column.lower_is_better for column in columns) else []
    parts += ["– not scored."] if any(np.isnan(column.values).any() for column in columns) else []
    return ("  " if len(columns) > 4 else "\n").join(parts)


def _fit_figure(
    figure: Figure, ax: Axes, left: float, right: float, top: float, title: str | None, caption: str
) -> None:
    """Write title and caption, and size the figure to hold everything; all in inches."""
    lines = [ax.text(left, -0.1, caption, ha="left", va="top", fontsize=FONT_SIZE - 2, color="0.45", linespacing=1.5)]
    if title:
        lines.append(ax.text(left, top + 0.1, title, ha="left", va="bottom", fontsize=FONT_SIZE + 2, weight="bold"))
    # a table of one narrow column is still as wide as its title and its caption
    right = max(right, *(left + _width(line) for line in lines))
    low = -0.12 - 0.16 * (caption.count("\n") + 1 if caption else 0) - MARGIN / 2
    x, y = (left - MARGIN, right + MARGIN), (low, top + (0.4 if title else 0.0) + MARGIN / 2)
    figure.set_size_inches(x[1] - x[0], y[1] - y[0])
    ax.set(xlim=x, ylim=y)
    ax.set_axis_off()


# -- colours ------------------------------------------------------------------------------------------------------


def _hue(group: str) -> str:
    if group in HUES or not group:
        return HUES.get(group, FEW[0])
    free = [color for color in FEW if color not in HUES.values()]
    return free[sum(map(ord, group)) % len(free)]


def _goodness(column: _Column) -> np.ndarray:
    """0 for the worst to 1 for the best method, all near 0.5 where the values are close together."""
    known = column.values[~np.isnan(column.values)]
    if not len(known):
        return column.values
    low, high = known.min(), known.max()
    good = 0.5 + (column.values - (low + high) / 2) / max(high - low, LEAST_SPAN)
    return 1 - good if column.lower_is_better else good


def _shade(hue: str, good: float) -> str:
    """From nearly white to the hue."""
    share = 0.12 + 0.88 * good
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(hue))
    return to_hex((red, green, blue))


def _ink(background: str) -> str:
    """Black or white, whichever stands out (relative luminance of WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(background)]
    luminance = float(np.dot([0.2126, 0.7152, 0.0722], linear))
    return "white" if luminance < 0.30 else "black"
