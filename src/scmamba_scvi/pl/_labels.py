"""Names in a figure: in the order people expect, short enough, and not on top of each other."""

from __future__ import annotations

import re
from typing import Final

import matplotlib.patheffects as patheffects
import numpy as np
import pandas as pd

#: A white rim, so that a name can be read on top of points.
OUTLINE: Final = [patheffects.withStroke(linewidth=1.8, foreground="white")]


def as_categorical(values: pd.Series) -> pd.Categorical:
    """Used categories only; in their own order if they have one, else in natural order ("2" before "10")."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        given = pd.Categorical(values).remove_unused_categories()
        categories = list(given.categories)
        if given.ordered or categories != sorted(categories):
            return given.rename_categories([str(c) for c in categories])
    text = values.astype("string")
    return pd.Categorical(text, categories=sorted(text.dropna().unique(), key=_natural))


def shorten(name: str, length: int) -> str:
    """Leave out the middle: names of cell types differ at either end."""
    if len(name) <= length:
        return name
    tail = length // 3
    return f"{name[: length - tail - 1].rstrip()}…{name[-tail:].lstrip()}"


def spread(points: np.ndarray, boxes: np.ndarray, *, vertically: bool = False, n_rounds: int = 100) -> np.ndarray:
    """Push boxes centred at ``points`` apart, each pair along the axis on which it overlaps least.

    Parameters
    ----------
    points
        ``(n, 2)``.
    boxes
        Width and height, ``(n, 2)`` or ``(2,)`` for boxes of one size.
    vertically
        Move them up and down only, as suits wide names.
    n_rounds
        Most rounds; boxes that have no room may still overlap after them.

    Returns
    -------
    The new centres, ``(n, 2)``.
    """
    points = points.copy()
    n = len(points)
    boxes = np.broadcast_to(boxes, points.shape)
    reach = (boxes[:, None] + boxes) / 2  # (n, n, 2): boxes whose centres are nearer than this overlap
    order = np.sign(np.subtract.outer(np.arange(n), np.arange(n)))
    for _ in range(n_rounds):
        between = points[:, None] - points  # (n, n, 2)
        overlap = reach - np.abs(between)
        overlapping = (overlap > 0).all(axis=-1) & ~np.eye(n, dtype=bool)
        if not overlapping.any():
            break
        least = np.ones((n, n)) if vertically else (overlap / reach).argmin(axis=-1)
        for axis in (0, 1):
            # two boxes at the same place part in the order of their rows
            sign = np.where(between[..., axis] == 0, order, np.sign(between[..., axis]))
            push = np.where(overlapping & (least == axis), sign * overlap[..., axis], 0.0)
            points[:, axis] += 0.3 * push.sum(axis=1)
    return points


def _natural(text: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part.lower()) for part in re.split(r"(\d+)", text) if part]
