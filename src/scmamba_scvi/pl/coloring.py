"""Which columns can colour cells."""

from typing import Final

import pandas as pd

#: A column with more categories than this names single cells rather than groups of them.
MAX_CATEGORIES: Final = 100


def can_color(values: pd.Series) -> bool:
    """Whether a column can colour cells: by numbers, or by so few groups that a legend can hold them."""
    return is_continuous(values) or values.nunique() <= MAX_CATEGORIES


def is_continuous(values: pd.Series) -> bool:
    """Whether values get a colour bar and no legend: numbers, but for a few whole ones, which number clusters or donors."""
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return False
    known = values.dropna()
    return known.nunique() > MAX_CATEGORIES or bool((known % 1 != 0).any())
