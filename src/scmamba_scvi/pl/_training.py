"""How training went: the loss, and how well validation cells find their true matches."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..errors import ScmambaError
from ._canvas import FONT_SIZE, figure_or_new, style_axes
from ._labels import SOFT, rim
from ._palette import FEW

LOSS: Final = "loss"
#: Curves of the panel of losses, and their names in the history.
LOSSES: Final = {"train": "train_loss", "validation": "validation_loss"}
#: Names of the stages, where there are two.
STAGES: Final = ("← linear branch", "full network, from its best epoch →")
COLORS: Final = {"train": FEW[0], "validation": FEW[3]}


def training(model: Any, *, figure: Figure | None = None) -> list[Axes]:
    """Draw loss and validation retrieval of every epoch, with the epoch of the weights kept and the chance level.

    Epochs are counted from 1 over both stages of training, as `train` prints them: row 0 of the history is epoch 1. A line
    marks where the second stage begins: with the best weights of the first, so that the loss may step back up.

    Parameters
    ----------
    model
        A trained model: its ``history``, its stages, which epoch's weights it kept, and how many validation
        cells each two modalities share.
    figure
        Draw into this empty figure; ``None`` makes one with pyplot.

    Returns
    -------
    The ``Axes`` of the loss, then of validation FOSCTTM and recall if the history has them.

    Raises
    ------
    ScmambaError
        If there is no history to draw.

    Examples
    --------
    >>> axes = pl.training(model)
    """
    if not hasattr(model, "history"):
        raise ScmambaError(f"pl.training draws a model, an SCMAMBA; got {type(model).__name__}.")
    curves = {name: _curve(table) for name, table in (model.history or {}).items()}
    curves = {name: curve for name, curve in curves.items() if len(curve)}
    losses = {label: curves[name] for label, name in LOSSES.items() if name in curves}
    if not losses:
        raise ScmambaError(
            f"There is no training to draw: train the model first, with scvi-tools' own logger (history has "
            f"{sorted(curves) or 'no entries'})."
        )
    summary = model.training_summary_
    # recall is a mean over the pairs of modalities, which may share different numbers of cells
    matches = summary.get("validation_matches")
    chance_of_recall = float(np.mean([min(10 / n, 1.0) for n in matches])) if matches else None
    panels: list[tuple[str, dict[str, pd.Series], float | None]] = [(LOSS, losses, None)]
    for name, better, chance in (("FOSCTTM", "lower", 0.5), ("recall@10", "higher", chance_of_recall)):
        key = f"{name.lower().replace('@', '_at_')}_validation"
        if key in curves:
            panels.append((f"validation {name} ({better} is better)", {"validation": curves[key]}, chance))
    figure = figure_or_new(figure, 3.6 * len(panels), 3.0)
    # None: the weights kept are those before the first step, or were not chosen
    best = None if summary["best_epoch"] is None or summary["monitor"] not in curves else summary["best_epoch"] + 1
    starts = [row + 1 for row in summary["stage_starts"]]
    axes = list(figure.subplots(1, len(panels), squeeze=False)[0])
    for ax, (title, series, chance) in zip(axes, panels, strict=True):
        _draw(ax, title, series, chance, best, starts)
        if len(starts) == len(STAGES):  # a line before the second, and the names of both above the panel
            ax.axvline(starts[-1] - 0.5, color="0.75", lw=1, zorder=0)
            for name, x, side in zip(STAGES, (0, 1), ("left", "right"), strict=True):
                ax.text(
                    x, 1.015, name, transform=ax.transAxes, ha=side, va="bottom", fontsize=FONT_SIZE - 1.5, alpha=SOFT
                )
    return axes


def _curve(table: pd.DataFrame) -> pd.Series:
    """Epoch, from 1, to value, as floats; epochs without a value are left out."""
    curve = pd.to_numeric(table.iloc[:, 0], errors="coerce").astype(float).dropna()
    return curve.set_axis(curve.index + 1)


def _draw(
    ax: Axes, title: str, series: Mapping[str, pd.Series], chance: float | None, best: int | None, starts: Sequence[int]
) -> None:
    for label, curve in series.items():
        stages = [part for _, part in curve.groupby(np.searchsorted(starts, curve.index, side="right"))]
        for i, part in enumerate(stages):  # not joined: the next stage begins with other weights
            # a single epoch is a point, and a line through one point is invisible
            size = 2.5 if len(part) > 1 else 5
            named = label if len(series) > 1 and not i else None
            ax.plot(part.index, part, color=COLORS[label], lw=1.6, marker="o", ms=size, label=named)
    highest = max(float(curve.max()) for curve in series.values())
    # a chance line far above the curve would press it flat, and is written instead
    far = chance is not None and chance > 2.5 * highest
    if chance is not None and not far:
        ax.axhline(chance, color="0.55", lw=1, ls=(0, (4, 3)), label="chance")
    if best is not None:
        ax.axvline(best, color="0.45", lw=1, ls=":", label=f"best epoch ({best})")
        if "validation" in series and best in series["validation"].index:
            value = series["validation"].loc[best]
            ax.plot([best], [value], marker="o", ms=6, mfc="white", mec=COLORS["validation"], mew=1.6, ls="")
    if far:
        ax.text(0.02, 0.03, f"chance: {chance:.2f}, far above", transform=ax.transAxes, alpha=SOFT,
                fontsize=FONT_SIZE - 1, path_effects=rim(ax))  # fmt: skip
    if title == LOSS:  # room for the legend, which two curves may leave nowhere
        low, high = ax.get_ylim()
        ax.set_ylim(low, low + 1.35 * (high - low))
    else:
        ax.set_ylim(0, max(1.12 * (1.2 * highest if far else max(highest, chance or 0.0)), 1e-3))
    ax.set_title(title, fontsize=FONT_SIZE + 0.5, pad=16 if len(starts) == len(STAGES) else None)
    ax.set_xlabel("epoch", fontsize=FONT_SIZE)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    epochs = {epoch for curve in series.values() for epoch in curve.index}
    if len(epochs) == 1:  # the locator would put ticks at fractions
        ax.set_xticks(list(epochs))
    style_axes(ax)
    if ax.get_legend_handles_labels()[0]:
        # the panel's colour behind it: the line of the best epoch may be where the curves leave room
        ax.legend(fontsize=FONT_SIZE - 1, framealpha=0.9, edgecolor="none", borderpad=0.2)
