"""How methods look in figures, the same in each."""

from __future__ import annotations

from .all_cells import METHODS, WITHOUT_BATCHES
from .opening import NAMED
from .scores import SCORES
from .verdicts import OURS

LINEAR = "linear"
#: This package: a star that is empty, so that it may be drawn last without hiding others, a grey one, and a dot without its network.
OF_OURS: dict[str, dict[str, object]] = {
    OURS: {"color": "black", "marker": "*", "ms": 15, "mfc": "none", "mec": "black", "mew": 1.6, "zorder": 4},
    WITHOUT_BATCHES: {"color": "0.6", "marker": "*", "ms": 15, "zorder": 3},
    LINEAR: {"color": "black", "marker": "o", "ms": 6, "zorder": 3},
}
#: Ten, of which each method of the same hue has another.
MARKERS = "sDo^v<>Php"


def looks() -> dict[str, dict[str, object]]:
    """Colour, marker and order of every method that is compared; other methods differ by colour and marker.

    Those that the first figure names have the darker colours.
    """
    from matplotlib import colormaps

    palette = colormaps["tab20"].colors
    found: dict[str, dict[str, object]] = {}
    for i, name in enumerate(name for name in dict.fromkeys((*NAMED, *METHODS)) if name not in OF_OURS):
        marker = MARKERS[(i + i // 10 * 5) % len(MARKERS)]
        color = palette[(2 * i + i // 10) % len(palette)]
        found[name] = {"color": color, "marker": marker, "ms": 8, "mec": "white", "mew": 0.7, "zorder": 2}
    return {**{name: {"mec": "white", "mew": 0.7, **look} for name, look in OF_OURS.items()}, **found}


def looks_of_lines() -> dict[str, dict[str, object]]:
    """The same for markers on lines, which are smaller and let no line through."""
    return {
        name: {**look, "ms": 11 if look["marker"] == "*" else 6, "mfc": "white" if name == OURS else look["color"]}
        for name, look in looks().items()
    }


def label_of(score: str) -> str:
    """A score as the label of an axis, with the direction that is better."""
    lower = score in SCORES and SCORES[score].lower_is_better
    return f"{score}\n({'lower' if lower else 'higher'} is better)"
