"""Names in a figure: in the order people expect, short enough, and not on top of each other."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import matplotlib.patheffects as patheffects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from natsort import natsorted, ns

#: Opacity of text that comes second: grey on a light and on a dark background.
SOFT: Final = 0.65


def as_categorical(values: pd.Series) -> pd.Categorical:
    """Used categories only; in their own order if they have one, else in natural order ("2" before "10")."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        given = pd.Categorical(values).remove_unused_categories()
        names = [str(c) for c in given.categories]
        if len(set(names)) == len(names) and (given.ordered or not given.categories.is_monotonic_increasing):
            return given.rename_categories(names)
    if pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")  # numbers of clusters, of which some are missing
    text = values.astype("string")
    return pd.Categorical(text, categories=natsorted(text.dropna().unique(), alg=ns.IGNORECASE))


def shorten(name: str, length: int) -> str:
    """Leave out the middle: names of cell types differ at either end."""
    if len(name) <= length:
        return name
    tail = length // 3
    return f"{name[: length - tail - 1].rstrip()}…{name[-tail:].lstrip()}"


def shortened(names: Sequence[str], length: int) -> list[str]:
    """Each name as short as `shorten` makes it, or longer, so that different names stay different."""
    short = {name: shorten(name, length) for name in names}
    while len(set(short.values())) < len(short):
        length += 4
        often = Counter(short.values())
        short |= {name: shorten(name, length) for name, as_written in short.items() if often[as_written] > 1}
    return [short[name] for name in names]


def plain(name: str) -> str:
    """A name that matplotlib writes as it is: between two dollars it would look for a formula."""
    return name.replace("$", r"\$")


def rim(ax: Axes) -> list[patheffects.AbstractPathEffect]:
    """A rim in the colour of the background, so that a name can be read on top of points."""
    return [patheffects.withStroke(linewidth=1.8, foreground=ax.get_facecolor())]


def spread(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Centres ``(n, 2)`` of boxes, moved up and down until none covers another.

    ``boxes`` holds width and height, ``(n, 2)``, or ``(2,)`` for boxes of one size.
    """
    flipped = np.array([1, -1])
    between = (_moved_up(points, boxes) + flipped * _moved_up(flipped * points, boxes)) / 2
    return _moved_up(between, boxes)


def _moved_up(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The upper boxes moved up until none covers another."""
    points, boxes = points.copy(), np.broadcast_to(boxes, points.shape)
    placed: list[int] = []
    for i in np.argsort(points[:, 1]):
        for j in sorted(placed, key=lambda other: points[other, 1]):
            reach = (boxes[i] + boxes[j]) / 2
            if (np.abs(points[i] - points[j]) < reach).all():
                points[i, 1] = points[j, 1] + reach[1]
        placed.append(i)
    return points
