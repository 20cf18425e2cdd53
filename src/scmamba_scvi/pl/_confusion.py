"""Which cell types are mistaken for which?"""

from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from .._columns import in_order_of
from ..errors import ScmambaError
from ._canvas import FONT_SIZE, figure_or_new, fit_figure
from ._labels import SOFT, as_categorical, plain, shortened
from ._palette import FEW

#: More labels than this cannot be read on a page.
MAX_LABELS: Final = 100
#: Fractions below this are coloured, but their number is not written.
WRITTEN_FROM: Final = 0.01


def confusion(y_true: Any, y_pred: Any, *, figure: Figure | None = None) -> Axes:
    """Draw a confusion matrix: true labels in rows, predicted ones in columns, in per cent of the true label.

    Each row sums to 100, and the diagonal is the recall. Labels that are predicted alike stand beside each other, so that
    families of types become blocks on the diagonal; where nothing is confused, names are in natural order.

    Parameters
    ----------
    y_true, y_pred
        ``(n,)`` labels of the same cells, in the same order unless both name their cells (``Series`` with names of cells as
        index); a cell that lacks one of them is left out. Clusters can take the place of
        predictions: if the two sides share no name, columns are ordered to follow the rows.
    figure
        Draw into this empty figure, which is given the size needed; ``None`` makes one with pyplot.

    Returns
    -------
    The ``Axes``. Values below 1 % are drawn but not written, and zeros are left white.

    Raises
    ------
    ScmambaError
        The two differ in length, no cell has both labels, or there are too many labels to read.

    Examples
    --------
    >>> ax = pl.confusion(["T", "T", "B"], ["T", "B", "B"])
    >>> ax.figure.savefig("confusion.png")
    """
    counts = _ordered(_counts(y_true, y_pred))
    n = counts.to_numpy()
    values = n / n.sum(axis=1, keepdims=True)
    figure = figure_or_new(figure)
    ax = figure.add_axes((0, 0, 1, 1), label="confusion")
    cell = float(np.clip(11 / max(n.shape), 0.22, 0.62))  # inches
    colors = LinearSegmentedColormap.from_list("confusion", ["white", "#C6DEEE", FEW[0], "#00344F"])
    # the square root, so that mistakes of a few per cent are seen beside a hundred
    ax.imshow(values, cmap=colors, norm=PowerNorm(0.5, 0, 1), interpolation="nearest", aspect="equal")
    font_size = float(np.clip(cell * 24, 4.6, FONT_SIZE))
    for (i, j), value in np.ndenumerate(values):
        if value >= WRITTEN_FROM:
            color = "white" if value > 0.3 else "black"
            ax.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=font_size, color=color)
    _write_labels(ax, counts, cell)
    title = "% of the true label"
    if found := [name for name in counts.index if name in counts.columns]:
        title += f", {sum(counts.at[name, name] for name in found) / n.sum():.1%} right"
    ax.set_title(title, fontsize=FONT_SIZE, loc="left", pad=18)
    fit_figure(figure, ax, n.shape[1] * cell, n.shape[0] * cell)
    return ax


def _counts(y_true: Any, y_pred: Any) -> pd.DataFrame:
    """Number of cells with each true (rows) and predicted label."""
    y_pred = in_order_of(y_true, y_pred, "y_pred")
    labels = []
    for values, name in ((y_true, "y_true"), (y_pred, "y_pred")):
        # not through a NumPy array, which turns a NaN next to text into the text "nan"
        given = as_categorical(pd.Series(values))
        if not len(given):
            raise ScmambaError(f"{name} must hold one label per cell, and at least one.")
        if len(given.categories) > MAX_LABELS:
            raise ScmambaError(
                f"{name} has {len(given.categories):,} different labels, more than the {MAX_LABELS} that can be read."
            )
        labels.append(given)
    true, predicted = labels
    if len(true) != len(predicted):
        raise ScmambaError(
            f"y_true and y_pred must hold labels of the same cells; got {len(true):,} and {len(predicted):,}."
        )
    counts = pd.crosstab(true, predicted)
    if not counts.size:
        raise ScmambaError("No cell has both a true and a predicted label.")
    return counts.set_axis(list(counts.index), axis=0).set_axis(list(counts.columns), axis=1)


def _ordered(counts: pd.DataFrame) -> pd.DataFrame:
    """Rows by similarity; columns in the same order, so that right answers are on the diagonal, then the others."""
    rows = _by_similarity(counts)
    columns = [name for name in rows if name in counts.columns]
    others = [name for name in counts.columns if name not in columns]
    if not columns:  # clusters: each below the type that most of its cells have
        others = list(counts.loc[rows].reset_index(drop=True).idxmax().sort_values(kind="stable").index)
    return counts.loc[rows, columns + others]


def _by_similarity(counts: pd.DataFrame) -> list[str]:
    """Rows in the order of the leaves of a tree that joins labels whose cells are predicted alike."""
    profiles = counts.to_numpy() / counts.to_numpy().sum(axis=1, keepdims=True)
    near = squareform(profiles @ profiles.T, checks=False)
    if len(counts) < 3 or np.ptp(near) < 1e-9:
        return list(counts.index)  # nothing is confused with anything
    leaves = leaves_list(linkage(1 - near / near.max(), method="average", optimal_ordering=True))
    # the leaves can be read from either end: begin with the one nearer to the first name
    return [counts.index[i] for i in (leaves if leaves[0] <= leaves[-1] else leaves[::-1])]


def _write_labels(ax: Axes, counts: pd.DataFrame, cell: float) -> None:
    """Names of rows and columns, the number of cells of each row at the right, and lines between all entries."""
    n_rows, n_columns = counts.shape
    font_size = float(np.clip(cell * 26, 6.2, FONT_SIZE))
    ax.set_xticks(range(n_columns), [plain(name) for name in shortened(list(counts.columns), 30)], fontsize=font_size)
    ax.set_yticks(range(n_rows), [plain(name) for name in shortened(list(counts.index), 30)], fontsize=font_size)
    widest = max(len(str(name)) for name in counts.columns) * font_size * 0.0085  # inches, about
    ax.tick_params(axis="x", rotation=0 if widest < 0.85 * cell else 90)
    ax.tick_params(length=0, pad=3)
    ax.set_xlabel("predicted", fontsize=FONT_SIZE, labelpad=5)
    ax.set_ylabel("true", fontsize=FONT_SIZE, labelpad=5)
    right, above = n_columns - 0.5 + 0.1 / cell, -0.5 - 0.06 / cell
    write = partial(ax.text, fontsize=font_size - 0.7, alpha=SOFT)
    write(right, above, "cells", va="bottom")
    for i, n in enumerate(counts.sum(axis=1)):
        write(right, i, f"{n:,}", va="center")
    ax.set_xticks(np.arange(n_columns + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(n_rows + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="0.9", lw=0.5)
    ax.tick_params(which="minor", length=0)
    ax.spines[:].set(color="0.6", linewidth=0.6)
