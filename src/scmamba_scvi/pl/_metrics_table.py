"""A table of the scores of several methods: which one is good at what?"""

import re
from functools import partial
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from .._compat import explained
from ..errors import ScmambaError
from ._canvas import FONT_SIZE, figure_or_new, fit_figure
from ._labels import SOFT, plain, shorten
from ._palette import FEW

#: Scores of :func:`scmamba_scvi.metrics.evaluate_integration` where lower is better.
LOWER_IS_BETTER: Final = frozenset({"FOSCTTM", "median rank", "modality gap"})
#: Group whose columns summarise others, drawn as bars.
OVERALL: Final = "overall"
#: Hues of the groups that `evaluate_integration` makes; other groups take the first.
HUES: Final = {"bio": FEW[2], "omics": FEW[0], "single-cell": "#A8508A", "batch": FEW[1], OVERALL: "#5A6472"}
#: Methods must differ by this much for full contrast: a column in which they tie must not show a winner.
LEAST_SPAN: Final = 0.05
#: Characters of a method's name.
NAME_LENGTH: Final = 44

#: Inches: height of a row, width of a column and of one with bars, between groups, and between the names of methods and
#: the first column.
ROW, COLUMN, BAR, GAP, NAME_GAP = 0.44, 0.73, 0.9, 0.2, 0.12
#: Inches: height of a line of a header.
LINE: Final = 0.145
#: Inches: width of a letter, about.
LETTER: Final = 0.08


def metrics_table(
    scores: pd.DataFrame,
    *,
    figure: Figure | None = None,
) -> Axes:
    """Draw a table of scores: methods in rows, scores in groups of columns, summaries as bars.

    Methods are in the order of their score ``"overall"``, if there is one, the best first. Within a column, colour runs from
    the worst method (pale) to the best (full). Where they differ by less than 0.05 it stays near the middle. An arrow marks
    scores where lower is better, a dash what was not scored. Of one method, each score has a row with a bar from 0 to 1.

    Parameters
    ----------
    scores
        One row per method. With two levels of columns, as :func:`scmamba_scvi.metrics.evaluate_integration` makes them,
        the first is the group, and columns of the group ``"overall"`` are bars from 0 to 1. A file that the command
        line wrote is read by ``pd.read_csv(file, header=[0, 1], index_col=0)``.
    figure
        Draw into this empty figure, which is given the size needed; ``None`` makes one with pyplot.

    Returns
    -------
    The ``Axes``.

    Raises
    ------
    ScmambaError
        The table is empty, or holds text, infinite values, or the same column twice.

    Examples
    --------
    >>> first_genes = mdata["rna"].X[:, :9].toarray()  # any matrix will do
    >>> scores = metrics.evaluate_integration(
    ...     mdata,
    ...     {"first genes": first_genes},
    ...     labels_key="cell_type",
    ...     metrics=["MAP", "kNN accuracy"],
    ... )
    >>> ax = pl.metrics_table(scores)
    """
    table = _checked(scores)
    if (OVERALL, OVERALL) in table:
        table = table.sort_values([(OVERALL, OVERALL)], ascending=False, na_position="last", kind="stable")
    if len(table) == 1:
        return _draw_single(figure, table.iloc[0])
    figure = figure_or_new(figure)
    ax = figure.add_axes((0, 0, 1, 1), label="metrics table")
    ax.set_axis_off()
    n = len(table)
    header = n * ROW + max(len(_words(str(name))) for _, name in table) * LINE + 0.08
    right = 0.0
    for i, group in enumerate(dict.fromkeys(group for group, _ in table)):
        left = right = right + GAP * (i > 0)
        for name in table[group]:
            width = BAR if group == OVERALL else COLUMN
            _draw_column(ax, group, str(name), table[group, name].to_numpy(), right, width)
            right += width
        if group:
            _write_group(ax, group, left + 0.06, right - 0.06, header)
    write = partial(ax.text, ha="right", va="center", fontsize=FONT_SIZE)
    methods = [
        write(-NAME_GAP, (n - i - 0.5) * ROW, plain(shorten(str(name), NAME_LENGTH)))
        for i, name in enumerate(table.index)
    ]
    left = -NAME_GAP - max(text.get_window_extent().width for text in methods) / figure.dpi
    for i in range(n + 1):
        ax.plot([left, right], [i * ROW] * 2, color="0.5", alpha=1 if i == n else 0.2, lw=0.8)
    caption = ["Colour: worst (pale) to best method of a column."]
    if any(name in LOWER_IS_BETTER for _, name in table):
        caption.append("↓ lower is better.")
    if table.isna().any(axis=None):
        caption.append("– not scored.")
    text = ("  " if table.shape[1] > 4 else "\n").join(caption)
    lines = ax.text(left, -0.1, text, va="top", fontsize=FONT_SIZE - 2, alpha=SOFT, linespacing=1.5)
    # a table of one narrow column is still as wide as its caption
    right = max(right, left + lines.get_window_extent().width / figure.dpi)
    ax.set(xlim=(left, right), ylim=(0, header + 0.3))  # inches
    fit_figure(figure, ax, right - left, header + 0.3)
    return ax


def _draw_single(figure: Figure | None, scores: pd.Series) -> Axes:
    """The scores of one method below each other, with bars for those between 0 and 1, in the colours of their groups."""
    ax = figure_or_new(figure, 4.6, 0.9 + 0.24 * len(scores)).subplots()
    hues = [HUES.get(group, FEW[0]) for group, _ in scores.index]
    inside = scores.between(0, 1)
    whole = ax.barh(range(len(scores)), 1, color="0.5", alpha=0.12)
    ax.barh(range(len(scores)), scores.where(inside, 0), color=hues)
    ax.bar_label(whole, ["–" if np.isnan(value) else f"{value:.3f}" for value in scores], padding=4, fontsize=FONT_SIZE)
    names = [f"{group}: {name}{' ↓' * (name in LOWER_IS_BETTER)}".removeprefix(": ") for group, name in scores.index]
    ax.set_yticks(range(len(scores)), names, fontsize=FONT_SIZE)
    ax.set(xlim=(0, 1.2), xticks=[], ylim=(len(scores) - 0.4, -0.6))
    ax.set_xlabel("↓ lower is better, – not scored", fontsize=FONT_SIZE - 2, alpha=SOFT, loc="left")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(plain(shorten(str(scores.name), NAME_LENGTH)), fontsize=FONT_SIZE + 2, weight="bold", loc="left")
    return ax


def _checked(scores: pd.DataFrame) -> pd.DataFrame:
    """Floats with columns of two levels, group and name."""
    if not isinstance(scores, pd.DataFrame) or 0 in scores.shape:
        got = f"{type(scores).__name__} of shape {np.shape(scores)}"
        raise ScmambaError(f"scores must be a table with a row per method and a column per score; got {got}.")
    with explained("scores must hold numbers only"):
        table = scores.astype(float)
    if np.isinf(table.to_numpy()).any():
        raise ScmambaError(f"A score is infinite: {', '.join(map(str, table.columns[np.isinf(table).any()]))}.")
    if table.columns.nlevels == 1:
        table.columns = pd.MultiIndex.from_tuples([("", str(name)) for name in table.columns])
    if table.columns.nlevels != 2:
        raise ScmambaError(f"Columns must have one level or two (group, score); they have {table.columns.nlevels}.")
    if not table.columns.is_unique:
        raise ScmambaError(f"Columns are named twice: {table.columns[table.columns.duplicated()].tolist()}.")
    return table


def _draw_column(ax: Axes, group: str, name: str, values: np.ndarray, left: float, width: float) -> None:
    """A header, a word per line, and for each method a disc or, for summaries, a bar; ``left`` and ``width`` in inches."""
    n, middle, bars = len(values), left + width / 2, group == OVERALL
    at, side = (left + 0.06, "left") if bars else (middle, "center")
    header = "\n".join(map(plain, _words(name))) + (" ↓" if name in LOWER_IS_BETTER else "")
    ax.text(at, n * ROW + 0.1, header, ha=side, va="baseline", fontsize=FONT_SIZE - 1, linespacing=1.1)
    decimals = 3 if np.nanmin(np.abs(values), initial=np.inf) < 0.0995 else 2
    for i, (value, good) in enumerate(zip(values, _goodness(values, name in LOWER_IS_BETTER), strict=True)):
        y = (n - i - 0.5) * ROW
        if np.isnan(value):
            ax.text(middle, y, "–", ha="center", va="center", fontsize=FONT_SIZE, color="0.5")
            continue
        shade = _shade(HUES.get(group, FEW[0]), good)
        write = partial(ax.text, y=y, s=f"{value:.{decimals}f}", va="center", fontsize=FONT_SIZE - 1)
        if bars:
            length = (width - 0.12) * float(np.clip(value, 0, 1))
            ax.add_patch(Rectangle((at, y - 0.14), length, 0.28, color=shade, lw=0))
            inside = length > 0.4
            write(at + (0.05 if inside else 0.04 + length), color=_ink(shade) if inside else None)
        else:
            ax.add_patch(Circle((middle, y), 0.198, color=shade, lw=0))
            write(middle, ha="center", color=_ink(shade))


def _write_group(ax: Axes, group: str, left: float, right: float, bottom: float) -> None:
    """The name of a group above its columns, on a line as long as they are wide."""
    ax.plot([left, right], [bottom + 0.04] * 2, color=HUES.get(group, FEW[0]), lw=2, solid_capstyle="butt")
    name = group if len(group) * LETTER <= right - left else "\n".join(group.split())
    ax.text((left + right) / 2, bottom + 0.09, name, ha="center", va="bottom", fontsize=FONT_SIZE, weight="bold")


def _words(name: str) -> list[str]:
    """The lines of a header: its words, and the parts of those that are wider than a column."""
    lines: list[str] = []
    for word in name.split():
        lines += re.sub(r"([_-])", r"\1 ", word).split() if len(word) * LETTER > COLUMN else [word]
    return lines


def _goodness(values: np.ndarray, lower_is_better: bool) -> np.ndarray:
    """0 for the worst to 1 for the best method, all near 0.5 where the values are close together."""
    known = values[~np.isnan(values)]
    if not len(known):
        return values
    low, high = known.min(), known.max()
    # rounding may lead beyond the ends
    good = np.clip(0.5 + (values - (low + high) / 2) / max(high - low, LEAST_SPAN), 0, 1)
    return 1 - good if lower_is_better else good


def _shade(hue: str, good: float) -> str:
    """From nearly white to the hue."""
    red, green, blue = (1 - (0.12 + 0.88 * good) * (1 - part) for part in to_rgb(hue))
    return to_hex((red, green, blue))


def _ink(background: str) -> str:
    """Black or white, whichever stands out: by luminance."""
    return "white" if np.dot([0.2126, 0.7152, 0.0722], np.power(to_rgb(background), 2.2)) < 0.3 else "black"
