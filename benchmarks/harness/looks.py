"""How methods look in figures."""

from __future__ import annotations

from collections.abc import Sequence

from .all_cells import WITHOUT_BATCHES
from .verdicts import OURS


def looks_of(names: Sequence[str]) -> dict[str, dict[str, object]]:
    """This package as a large black star, behind those that it would hide, or a grey one; others differ by colour and marker.

    Colours come back lighter after ten, with other markers.
    """
    from matplotlib import colormaps

    palette, markers = colormaps["tab20"].colors, "sDo^v<>Php"
    looks = {}
    for i, name in enumerate(names):
        color = palette[(2 * i) % 20 + (i >= 10)]
        looks[name] = {"color": color, "marker": markers[(i + i // 10 * 5) % len(markers)], "ms": 8, "zorder": 2}
    for name, color, order in ((WITHOUT_BATCHES, "0.6", 1.4), (OURS, "black", 1.5)):
        if name in looks:
            looks[name] = {"color": color, "marker": "*", "ms": 19, "zorder": order}
    return looks
