"""Which cell types are taken for which?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, PowerNorm

from ..errors import ScmambaError, UnknownNameError
from ._integration import _as_categorical, _shorten
from ._palette import FEW

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: More labels than this cannot be read on a page.
MAX_LABELS: Final = 100
#: Shares below this are drawn, not written.
WRITTEN_FROM: Final = 0.01
NORMALIZE: Final = ("true", "pred", "all", None)

FONT_SIZE: Final = 9.0
MARGIN: Final = 0.15  # inches


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
        ``(n,)`` labels of the same cells; pairs of which one is missing are left out. Clusters will do for predictions:
        where no name is in both, columns are ordered to follow the rows.
    normalize
        Show per cent of the true label (each row sums to 100: recall on the diagonal), of the predicted one (columns:
        precision), of all cells, or counts (``None``).
    order
        ``"similar"`` puts labels that are taken for one another beside each other, so that families of types become
        blocks on the diagonal; ``"name"`` sorts as people count, or by an ordered ``Categorical``; or the labels
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
    if normalize not in NORMALIZE:
        raise UnknownNameError("normalize", normalize, NORMALIZE)
    counts = _ordered(_counts(y_true, y_pred), order)
    shares = _normalized(counts, normalize)
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure()
    n_rows, n_columns = counts.shape
    cell = float(np.clip(11 / max(n_rows, n_columns), 0.22, 0.62))  # inches
    font = float(np.clip(cell * 24 - 0.3 * (normalize is None), 4.6, FONT_SIZE))
    label_font = float(np.clip(cell * 26, 6.2, FONT_SIZE))

    ax = figure.add_axes((0, 0, 1, 1), label="confusion")
    full = shares.to_numpy().max() if normalize in ("all", None) else 1.0
    colors = LinearSegmentedColormap.from_list("confusion", ["white", "#C6DEEE", FEW[0], "#00344F"])
    # a few per cent, which is what mistakes are, must be seen beside a hundred
    ax.imshow(shares, cmap=colors, norm=PowerNorm(0.5, 0, full), interpolation="nearest", aspect="equal")
    _write(ax, counts, shares, normalize, full, font)
    ax.set_xticks(range(n_columns), [_shorten(name, 30) for name in counts.columns], fontsize=label_font)
    short = max(len(str(name)) for name in counts.columns) * label_font * 0.0085 < cell
    ax.tick_params(axis="x", rotation=0 if short else 90, length=0, pad=3)
    ax.set_yticks(range(n_rows), [_shorten(name, 30) for name in counts.index], fontsize=label_font)
    ax.tick_params(axis="y", length=0, pad=3)
    _frame(ax, counts)
    for i, n in enumerate(counts.sum(axis=1)):
        ax.text(n_columns - 0.5 + 0.1 / cell, i, f"{n:,}", va="center", fontsize=label_font - 0.7, color="0.45")
    ax.text(
        n_columns - 0.5 + 0.1 / cell, -0.5 - 0.06 / cell, "cells", va="bottom", fontsize=label_font - 0.7, color="0.45"
    )
    what = {
        "true": "% of the true label",
        "pred": "% of the predicted label",
        "all": "% of all cells",
        None: "number of cells",
    }
    agreement = _agreement(counts)
    ax.set_title(what[normalize] + agreement, fontsize=FONT_SIZE, loc="left", pad=18)
    ax.set_xlabel("predicted", fontsize=FONT_SIZE, labelpad=5)
    ax.set_ylabel("true", fontsize=FONT_SIZE, labelpad=5)
    _arrange(figure, ax, n_columns * cell, n_rows * cell)
    return ax


def _counts(y_true: Any, y_pred: Any) -> pd.DataFrame:
    """Cells of each true (rows) and predicted label; labels that only one side has, last on its axis."""
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
    # one order for both axes, so that right answers are the diagonal
    names = [*table.index, *(name for name in table.columns if name not in table.index)]
    return table.reindex(columns=[name for name in names if name in shared or name in table.columns])


def _as_labels(values: Any, name: str) -> pd.Categorical:
    # not by way of an array: next to text, NaN would become the text "nan"
    labels = pd.Series(values if hasattr(values, "dtype") else list(values))
    if not len(labels):
        raise ScmambaError(f"{name} must hold one label per cell, and at least one.")
    return _as_categorical(labels)


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
    else:  # clusters: each where most of it belongs
        share = counts.loc[rows].to_numpy() / np.maximum(counts.sum(axis=0).to_numpy(), 1)
        columns = [counts.columns[j] for j in np.lexsort((np.arange(len(rows)) @ share, share.argmax(axis=0)))]
    return counts.loc[rows, columns]


def _by_similarity(counts: pd.DataFrame, shared: Sequence[str]) -> list[str]:
    """Rows in the order of the leaves of a tree in which labels that are confused, or predicted alike, are near."""
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
    # a tree may be read from either end: from the one nearer to the first name
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


def _write(
    ax: Axes, counts: pd.DataFrame, shares: pd.DataFrame, normalize: str | None, full: float, font: float
) -> None:
    """The value of every entry worth a number, black or white as its background asks for."""
    values = shares.to_numpy()
    for (i, j), value in np.ndenumerate(values):
        if not counts.iat[i, j] or (normalize is not None and value < WRITTEN_FROM):
            continue
        text = f"{value:,.0f}" if normalize is None else f"{100 * value:.0f}"
        ax.text(j, i, text, ha="center", va="center", fontsize=font, color="white" if value > 0.3 * full else "black")


def _frame(ax: Axes, counts: pd.DataFrame) -> None:
    """Thin lines between entries."""
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


def _arrange(figure: Figure, ax: Axes, width: float, height: float) -> None:
    """Size the figure so that an entry is a square of the size chosen, with room for the names around."""
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
