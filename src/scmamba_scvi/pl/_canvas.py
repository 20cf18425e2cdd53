"""What all figures have in common: the figure to draw into, its size, and how axes and planes look."""

from collections.abc import Iterable
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FONT_SIZE: Final = 9.0
#: Inches around everything.
MARGIN: Final = 0.15


def figure_or_new(figure: Figure | None, width: float | None = None, height: float | None = None) -> Figure:
    """``figure``, or a new one of pyplot, which is imported only then: it looks for a display.

    With a size in inches, it is given that and room for the labels of its axes.
    """
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure()
    if width is not None and height is not None:
        figure.set_layout_engine("constrained")
        figure.set_size_inches(width, height)
    return figure


def fit_figure(figure: Figure, ax: Axes, width: float, height: float) -> None:
    """Size the figure so that ``ax`` is ``width`` by ``height`` inches, with room for everything around it."""
    figure.set_size_inches(width, height)
    ax.set_position((0, 0, 1, 1))
    box = ax.get_tightbbox()
    assert box is not None  # it holds text
    box = box.transformed(figure.dpi_scale_trans.inverted())  # inches
    total = (box.width + 2 * MARGIN, box.height + 2 * MARGIN)
    figure.set_size_inches(*total)
    left, low = MARGIN - box.x0, MARGIN - box.y0
    ax.set_position((left / total[0], low / total[1], width / total[0], height / total[1]))


def style_axes(ax: Axes, font_size: float = FONT_SIZE - 1, tick_length: float = 3) -> None:
    """Axes with two grey spines, left and bottom, and small ticks."""
    ax.tick_params(labelsize=font_size, color="0.6", length=tick_length)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("0.6")


def style_plane(ax: Axes) -> None:
    """A plane of an embedding: a thin frame and no ticks, as its units mean nothing."""
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(color="0.75", linewidth=0.6)


def write_above(ax: Axes, points: Iterable[tuple[str, float, float]], most: int, box: tuple[float, float]) -> None:
    """Small names just above the first ``most`` points that have room, for axes whose limits are set.

    ``points`` are name, x and y; ``box`` is what a name takes, as fractions of the width and height of the axes.
    """
    taken: list[np.ndarray] = []
    for name, x, y in points:
        if len(taken) == most:
            return
        at = ax.transAxes.inverted().transform(ax.transData.transform((x, y)))
        side = "left" if at[0] < box[0] / 2 else "right" if at[0] > 1 - box[0] / 2 else "center"
        at[0] += {"left": 0.5, "right": -0.5, "center": 0}[side] * box[0]  # the middle of the name
        if all((np.abs(at - other) >= box).any() for other in taken):
            taken.append(at)
            ax.annotate(name, (x, y), xytext=(0, 3), textcoords="offset points", fontsize=FONT_SIZE - 2, ha=side)
