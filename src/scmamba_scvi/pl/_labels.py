"""Names in a figure: in the order people expect, short enough, and not on top of each other."""

from typing import Final

import matplotlib.patheffects as patheffects
import numpy as np
import pandas as pd
from natsort import natsorted, ns

#: A white rim, so that a name can be read on top of points.
OUTLINE: Final = [patheffects.withStroke(linewidth=1.8, foreground="white")]


def as_categorical(values: pd.Series) -> pd.Categorical:
    """Used categories only; in their own order if they have one, else in natural order ("2" before "10")."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        given = pd.Categorical(values).remove_unused_categories()
        if given.ordered or not given.categories.is_monotonic_increasing:
            return given.rename_categories([str(c) for c in given.categories])
    text = values.astype("string")
    return pd.Categorical(text, categories=natsorted(text.dropna().unique(), alg=ns.IGNORECASE))


def shorten(name: str, length: int) -> str:
    """Leave out the middle: names of cell types differ at either end."""
    if len(name) <= length:
        return name
    tail = length // 3
    return f"{name[: length - tail - 1].rstrip()}…{name[-tail:].lstrip()}"


def spread(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Centres ``(n, 2)`` of boxes, the upper ones moved up until none covers another.

    ``boxes`` holds width and height, ``(n, 2)``, or ``(2,)`` for boxes of one size.
    """
    points, boxes = points.copy(), np.broadcast_to(boxes, points.shape)
    placed: list[int] = []
    for i in np.argsort(points[:, 1]):
        for j in sorted(placed, key=lambda other: points[other, 1]):
            reach = (boxes[i] + boxes[j]) / 2
            if (np.abs(points[i] - points[j]) < reach).all():
                points[i, 1] = points[j, 1] + reach[1]
        placed.append(i)
    return points
