"""Colours for categories: fit for every kind of colour vision while they are few, as far apart as can be when many."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

#: Okabe & Ito's colours for all kinds of colour vision, strongest contrast first, without the black of text.
FEW: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
#: Cells without a value.
MISSING: Final = "#D0D0D0"


@lru_cache
def palette(n: int) -> tuple[str, ...]:
    """``n`` colours as hex strings; the first ``m`` of a longer palette are the palette of ``m``.

    After those of ``FEW``, each colour is the one farthest in CIELAB from all before it, among colours neither too pale
    nor too dark to be seen as points on white, nor so bright that they shout down the others.
    """
    if n <= len(FEW):
        return FEW[:n]
    levels = np.linspace(0, 255, 18).round()
    rgb = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)  # (18^3, 3)
    lab = _lab(rgb)
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    visible = (lightness > 25) & (lightness < 82) & (chroma > 18) & (chroma < 72)
    rgb, lab = rgb[visible], lab[visible]

    chosen = [np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], dtype=float) for color in FEW]
    avoided = _lab(np.array([*chosen, [208.0, 208.0, 208.0]]))  # grey means missing
    nearest = np.sqrt(((lab[:, None] - avoided) ** 2).sum(axis=-1)).min(axis=1)
    while len(chosen) < n:
        best = int(nearest.argmax())
        chosen.append(rgb[best])
        nearest = np.minimum(nearest, np.sqrt(((lab - lab[best]) ** 2).sum(axis=-1)))
    return tuple("#{:02X}{:02X}{:02X}".format(*color.astype(int)) for color in chosen)


def _lab(rgb: np.ndarray) -> np.ndarray:
    """SRGB of 0 to 255 to CIELAB under D65, ``(n, 3)`` to ``(n, 3)`` (IEC 61966-2-1, CIE 15)."""
    linear = rgb / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=-1)
