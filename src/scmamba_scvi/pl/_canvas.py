"""What all figures share: the figure to draw into, and how axes and planes look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

FONT_SIZE: Final = 9.0


def figure_or_new(figure: Figure | None) -> Figure:
    """``figure``, or a new one of pyplot, which is imported only then: it looks for a display."""
    if figure is not None:
        return figure
    import matplotlib.pyplot as plt

    return plt.figure()


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


def style_color_bar(bar: Colorbar, label: str) -> None:
    bar.set_label(label, fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE - 1, color="0.6", length=2)
    bar.outline.set_visible(False)
