"""Colours for categories: safe for every kind of colour vision while they are few, as different as possible when many."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

#: Okabe & Ito's colours for all kinds of colour vision, strongest contrast first, without black, which is for text.
FEW: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
#: Those for thin lines: yellow is too pale on white.
LINES: Final = FEW[:-1]
#: Grey, for cells without a value.
MISSING: Final = "#D0D0D0"


@lru_cache
def palette(n: int) -> tuple[str, ...]:
    """``n`` colours as hex strings, which begin every longer palette.

    After those of ``FEW``, each colour is the one farthest in CIELAB from all before it, among colours that are neither
    too pale nor too dark for points on white, nor so saturated that they stand out from the others.
    """
    if n <= len(FEW):
        return FEW[:n]
    levels = np.linspace(0, 255, 18).round()
    rgb = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)  # (18^3, 3)
    lab = _lab(rgb)
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    visible = (lightness > 25) & (lightness < 82) & (chroma > 18) & (chroma < 72)
    rgb, lab = rgb[visible], lab[visible]

    chosen = [_rgb(color) for color in FEW]
    avoided = _lab(np.array([*chosen, _rgb(MISSING)]))
    nearest = np.sqrt(((lab[:, None] - avoided) ** 2).sum(axis=-1)).min(axis=1)
    while len(chosen) < n:
        best = int(nearest.argmax())
        chosen.append(rgb[best])
        nearest = np.minimum(nearest, np.sqrt(((lab - lab[best]) ** 2).sum(axis=-1)))
    return tuple("#{:02X}{:02X}{:02X}".format(*color.astype(int)) for color in chosen)


def _rgb(color: str) -> np.ndarray:
    """``"#RRGGBB"`` to three numbers of 0 to 255."""
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], dtype=float)


def _lab(rgb: np.ndarray) -> np.ndarray:
    """From sRGB, 0 to 255, to CIELAB under D65, ``(n, 3)`` to ``(n, 3)`` (IEC 61966-2-1, CIE 15)."""
    linear = rgb / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=-1)
