"""Which cell types are mistaken for which?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, PowerNorm

from ..errors import ScmambaError, UnknownNameError
from ._canvas import FONT_SIZE, figure_or_new
from ._labels import as_categorical, shorten
from ._palette import FEW

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: More labels than this cannot be read on a page.
MAX_LABELS: Final = 100
#: Shares below this are coloured, but their number is not written.
WRITTEN_FROM: Final = 0.01
#: What the numbers are, for each way to normalize.
NORMALIZED: Final = {
    "true": "% of the true label",
    "pred": "% of the predicted label",
    "all": "% of all cells",
    None: "number of cells",
}

#: Inches around everything.
MARGIN: Final = 0.15


def confusion(
    y_true: Any,
    y_pred: Any,
    *,
    normalize: Literal["true", "pred", "all"] | None = "true",
    order: Literal["similar", "name"] | Sequence[str] = "similar",
    figure: Figure | None = None,
) -> Axes:
    """Draw a confusion matrix: true labels in rows, predicted ones in columns.

    Parameters
    ----------
    y_true, y_pred
        ``(n,)`` labels of the same cells; a cell that lacks one of them is left out. Clusters can take the place of
        predictions: if the two sides share no name, columns are ordered to follow the rows.
    normalize
        Show per cent of the true label (each row sums to 100: recall on the diagonal), of the predicted one (columns:
        precision), of all cells, or counts (``None``).
    order
        ``"similar"`` puts labels that are mistaken for one another beside each other, so that families of types become
        blocks on the diagonal; ``"name"`` is natural order, or that of an ordered ``Categorical``; or the labels
        themselves in order.
    figure
        Draw into this empty figure, which is given the size needed; ``None`` makes one with pyplot.

    Returns
    -------
    The ``Axes``. Values below 1 % are drawn but not written, and zeros are left white.

    Raises
    ------
    ScmambaError
        If lengths differ, no cell has both labels, there are more than 100 labels, or ``order`` lacks one.

    Examples
    --------
    >>> ax = pl.confusion(["T", "T", "B"], ["T", "B", "B"])
    >>> ax.figure.savefig("confusion.png")
    """
    if normalize not in NORMALIZED:
        raise UnknownNameError("normalize", normalize, NORMALIZED)
    counts = _ordered(_counts(y_true, y_pred), order)
    shares = _normalized(counts, normalize)
    figure = figure_or_new(figure)
    ax = figure.add_axes((0, 0, 1, 1), label="confusion")
    n_rows, n_columns = counts.shape
    cell = float(np.clip(11 / max(n_rows, n_columns), 0.22, 0.62))  # inches
    full = shares.to_numpy().max() if normalize in ("all", None) else 1.0
    colors = LinearSegmentedColormap.from_list("confusion", ["white", "#C6DEEE", FEW[0], "#00344F"])
    # the square root, so that mistakes of a few per cent are seen beside a hundred
    ax.imshow(shares, cmap=colors, norm=PowerNorm(0.5, 0, full), interpolation="nearest", aspect="equal")
    font_size = float(np.clip(cell * 24 - 0.3 * (normalize is None), 4.6, FONT_SIZE))
    _write_values(ax, counts, shares, normalize, full, font_size)
    _write_labels(ax, counts, cell)
    _draw_grid(ax, counts)
    ax.set_title(NORMALIZED[normalize] + _agreement(counts), fontsize=FONT_SIZE, loc="left", pad=18)
    _fit_figure(figure, ax, n_columns * cell, n_rows * cell)
    return ax


def _counts(y_true: Any, y_pred: Any) -> pd.DataFrame:
    """Number of cells with each true (rows) and predicted label; labels of one side only are last on its axis."""
    true, predicted = (_as_labels(y, name) for y, name in ((y_true, "y_true"), (y_pred, "y_pred")))
    if len(true) != len(predicted):
        raise ScmambaError(
            f"y_true and y_pred must hold labels of the same cells; got {len(true):,} and {len(predicted):,}."
        )
    both = (true.codes >= 0) & (predicted.codes >= 0)
    if not both.any():
        raise ScmambaError("No cell has both a true and a predicted label.")
    for name, labels in (("y_true", true), ("y_pred", predicted)):
        if len(labels.categories) > MAX_LABELS:
            raise ScmambaError(
                f"{name} has {len(labels.categories):,} different labels, more than the {MAX_LABELS} that can be read."
            )
    counts = np.zeros((len(true.categories), len(predicted.categories)), dtype=np.int64)
    np.add.at(counts, (true.codes[both], predicted.codes[both]), 1)
    table = pd.DataFrame(counts, index=true.categories, columns=predicted.categories)
    shared = set(table.index) & set(table.columns)
    if not shared:
        return table
    # one order for both axes, so that right answers are on the diagonal
    only_predicted = [name for name in table.columns if name not in shared]
    return table[[name for name in table.index if name in shared] + only_predicted]


def _as_labels(values: Any, name: str) -> pd.Categorical:
    # not through a NumPy array, which turns a NaN next to text into the text "nan"
    labels = pd.Series(values if hasattr(values, "dtype") else list(values))
    if not len(labels):
        raise ScmambaError(f"{name} must hold one label per cell, and at least one.")
    return as_categorical(labels)


def _ordered(counts: pd.DataFrame, order: str | Sequence[str]) -> pd.DataFrame:
    shared = [name for name in counts.index if name in counts.columns]
    if isinstance(order, str):
        if order not in ("similar", "name"):
            raise UnknownNameError("order", order, ("similar", "name"))
        rows = list(counts.index) if order == "name" else _by_similarity(counts, shared)
    else:
        rows = [str(name) for name in order]
        lacking = [name for name in counts.index if name not in rows]
        if lacking:
            raise ScmambaError(f"order lacks {len(lacking)} of the true labels: {', '.join(map(repr, lacking[:5]))}.")
        rows = list(dict.fromkeys(name for name in rows if name in counts.index))
    if shared:
        columns = [name for name in rows if name in counts.columns]
        columns += [name for name in counts.columns if name not in columns]
    elif order == "name":
        columns = list(counts.columns)
    else:  # clusters: each below the type that most of its cells have
        share = counts.loc[rows].to_numpy() / np.maximum(counts.sum(axis=0).to_numpy(), 1)
        columns = [counts.columns[j] for j in np.lexsort((np.arange(len(rows)) @ share, share.argmax(axis=0)))]
    return counts.loc[rows, columns]


def _by_similarity(counts: pd.DataFrame, shared: Sequence[str]) -> list[str]:
    """Rows in the order of the leaves of a tree that joins labels that are confused with, or predicted like, each other."""
    if len(counts) < 3:
        return list(counts.index)
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    share = counts.to_numpy() / np.maximum(counts.sum(axis=1).to_numpy(), 1)[:, None]
    if shared:
        square = (
            pd.DataFrame(share, counts.index, counts.columns).reindex(columns=counts.index, fill_value=0).to_numpy()
        )
        near = square + square.T
    else:
        near = share @ share.T
    distance = 1 - near / max(near[~np.eye(len(near), dtype=bool)].max(), 1e-12)
    distance = np.clip(distance, 0, None)
    np.fill_diagonal(distance, 0)
    if np.ptp(squareform(distance, checks=False)) < 1e-9:
        return list(counts.index)  # nothing is confused with anything
    tree = linkage(squareform(distance, checks=False), method="average", optimal_ordering=True)
    leaves = leaves_list(tree)
    # the leaves can be read from either end: start at the one nearer to the first name
    leaves = leaves if leaves[: len(leaves) // 2].sum() <= leaves[-(len(leaves) // 2) :].sum() else leaves[::-1]
    return [counts.index[i] for i in leaves]


def _normalized(counts: pd.DataFrame, normalize: str | None) -> pd.DataFrame:
    if normalize is None:
        return counts.astype(float)
    if normalize == "all":
        return counts / counts.to_numpy().sum()
    axis = 1 if normalize == "true" else 0
    sums = counts.sum(axis=axis).clip(lower=1)
    return counts.div(sums, axis=1 - axis)


def _write_values(
    ax: Axes, counts: pd.DataFrame, shares: pd.DataFrame, normalize: str | None, full: float, font_size: float
) -> None:
    """The value of every entry that is not nearly zero, black or white depending on its background."""
    for (i, j), value in np.ndenumerate(shares.to_numpy()):
        if not counts.iat[i, j] or (normalize is not None and value < WRITTEN_FROM):
            continue
        text = f"{value:,.0f}" if normalize is None else f"{100 * value:.0f}"
        color = "white" if value > 0.3 * full else "black"
        ax.text(j, i, text, ha="center", va="center", fontsize=font_size, color=color)


def _write_labels(ax: Axes, counts: pd.DataFrame, cell: float) -> None:
    """Names of rows and columns, and at the right the number of cells of each row; ``cell`` is in inches."""
    n_rows, n_columns = counts.shape
    font_size = float(np.clip(cell * 26, 6.2, FONT_SIZE))
    ax.set_xticks(range(n_columns), [shorten(name, 30) for name in counts.columns], fontsize=font_size)
    ax.set_yticks(range(n_rows), [shorten(name, 30) for name in counts.index], fontsize=font_size)
    widest = max(len(str(name)) for name in counts.columns) * font_size * 0.0085  # inches, about
    ax.tick_params(axis="x", rotation=0 if widest < cell else 90)
    ax.tick_params(length=0, pad=3)
    ax.set_xlabel("predicted", fontsize=FONT_SIZE, labelpad=5)
    ax.set_ylabel("true", fontsize=FONT_SIZE, labelpad=5)
    right, above = n_columns - 0.5 + 0.1 / cell, -0.5 - 0.06 / cell
    write = partial(ax.text, fontsize=font_size - 0.7, color="0.45")
    write(right, above, "cells", va="bottom")
    for i, n in enumerate(counts.sum(axis=1)):
        write(right, i, f"{n:,}", va="center")


def _draw_grid(ax: Axes, counts: pd.DataFrame) -> None:
    """Thin lines between the entries."""
    n_rows, n_columns = counts.shape
    ax.set_xticks(np.arange(n_columns + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(n_rows + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="0.9", lw=0.5)
    ax.tick_params(which="minor", length=0)
    for spine in ax.spines.values():
        spine.set(color="0.6", linewidth=0.6)


def _agreement(counts: pd.DataFrame) -> str:
    """Share of right answers, where true and predicted labels are the same names."""
    shared = [name for name in counts.index if name in counts.columns]
    if not shared:
        return ""
    right = sum(counts.at[name, name] for name in shared)
    return f", {right / counts.to_numpy().sum():.1%} right"


def _fit_figure(figure: Figure, ax: Axes, width: float, height: float) -> None:
    """Size the figure so that the matrix is ``width`` by ``height`` inches, with room for everything around it."""
    figure.set_size_inches(width + 1, height + 1)
    ax.set_position((0, 0, width / (width + 1), height / (height + 1)))
    own = ax.get_window_extent()
    box = ax.get_tightbbox() or own
    dpi = figure.dpi
    left, right = (own.x0 - box.x0) / dpi + MARGIN, (box.x1 - own.x1) / dpi + MARGIN
    low, high = (own.y0 - box.y0) / dpi + MARGIN, (box.y1 - own.y1) / dpi + MARGIN
    total = (left + width + right, low + height + high)
    figure.set_size_inches(*total)
    ax.set_position((left / total[0], low / total[1], width / total[0], height / total[1]))
