"""How training went: the loss, and whether cells that it never saw find themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.ticker import MaxNLocator

from ..config import TrainConfig
from ..errors import ScmambaError
from ._palette import FEW

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FONT_SIZE = 9


def training(
    model_or_history: Any,
    *,
    n_validation: int | None = None,
    figure: Figure | None = None,
) -> list[Axes]:
    """Draw the loss and the held-out retrieval of every epoch, with the best epoch and what chance would give.

    Parameters
    ----------
    model_or_history
        A trained model or its ``history``: a dict from name to a DataFrame with one row per epoch.
    n_validation
        Held-out cells, for the chance line of recall; known from a model, where ``None`` takes it.
    figure
        Draw into this empty figure; ``None`` makes one with pyplot.

    Returns
    -------
    The ``Axes`` of the loss, then of held-out FOSCTTM and recall if the history has them.

    Raises
    ------
    ScmambaError
        If there is no history to draw.

    Examples
    --------
    >>> axes = pl.training(model)
    """
    history = getattr(model_or_history, "history", model_or_history)
    curves = {name: _curve(table) for name, table in history.items()} if isinstance(history, Mapping) else {}
    curves = {name: curve for name, curve in curves.items() if len(curve)}
    losses = {label: curves[name] for label, name in (("train", "train_loss"), ("held out", "validation_loss"))
              if name in curves}  # fmt: skip
    if not losses:
        raise ScmambaError(
            f"There is no training to draw: train the model first (history has {sorted(curves) or 'no entries'})."
        )
    if n_validation is None and (indices := getattr(model_or_history, "validation_indices", None)) is not None:
        n_validation = min(len(indices), TrainConfig.max_validation_cells)

    panels: list[tuple[str, dict[str, pd.Series], float | None]] = [("loss", losses, None)]
    if (name := "foscttm_validation") in curves:
        panels.append(("held-out FOSCTTM (lower is better)", {"held out": curves[name]}, 0.5))
    if (name := "recall_at_10_validation") in curves:
        chance = min(10 / n_validation, 1.0) if n_validation else None
        panels.append(("held-out recall@10 (higher is better)", {"held out": curves[name]}, chance))

    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure()
    figure.set_size_inches(3.6 * len(panels), 3.0)
    figure.set_layout_engine("constrained")
    best = curves["foscttm_validation"].idxmin() if "foscttm_validation" in curves else None
    axes = list(figure.subplots(1, len(panels), squeeze=False)[0])
    for ax, (title, series, chance) in zip(axes, panels, strict=True):
        _draw(ax, title, series, chance, best)
    return axes


def _curve(table: pd.DataFrame | pd.Series) -> pd.Series:
    """Epoch to value, as floats; epochs without a value are left out."""
    column = table.iloc[:, 0] if isinstance(table, pd.DataFrame) else table
    return pd.to_numeric(column, errors="coerce").astype(float).dropna()


def _draw(ax: Axes, title: str, series: Mapping[str, pd.Series], chance: float | None, best: int | None) -> None:
    colors = {"train": FEW[0], "held out": FEW[3]}
    for label, curve in series.items():
        # a single epoch is a point, and a line through one point is invisible
        ax.plot(curve.index, curve, color=colors[label], lw=1.6, marker="o", ms=2.5 if len(curve) > 1 else 5,
                label=label if len(series) > 1 else None)  # fmt: skip
    highest = max(float(curve.max()) for curve in series.values())
    # drawn in when it is near; a line far above would press the curve flat
    far = chance is not None and chance > 2.5 * highest
    if chance is not None and far:
        ax.text(0.02, 0.97, f"chance: {chance:.2f}, far above", transform=ax.transAxes, va="top", color="0.4",
                fontsize=FONT_SIZE - 1)  # fmt: skip
    elif chance is not None:
        ax.axhline(chance, color="0.55", lw=1, ls=(0, (4, 3)), label="chance")
    if best is not None:
        ax.axvline(best, color="0.3", lw=1, ls=":", label=f"best epoch ({best})")
        for label, curve in series.items():
            if label == "held out" and best in curve.index:
                ax.plot([best], [curve.loc[best]], marker="o", ms=6, mfc="white", mec=colors[label], mew=1.6, ls="")
    if not title.startswith("loss"):
        ax.set_ylim(0, max(1.12 * (1.2 * highest if far else max(highest, chance or 0.0)), 1e-3))
    ax.set_title(title, fontsize=FONT_SIZE + 0.5)
    ax.set_xlabel("epoch", fontsize=FONT_SIZE)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.tick_params(labelsize=FONT_SIZE - 1, color="0.6", length=3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("0.6")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=FONT_SIZE - 1, frameon=False)
