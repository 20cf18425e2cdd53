"""Labels of cells as integer codes."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from ..errors import ScmambaError

#: One label per cell: an array, a list, a pandas Series or Categorical.
Labels: TypeAlias = np.ndarray | pd.Series | pd.Categorical | Sequence[Any]


def label_codes(labels: Labels, n: int, name: str, *, at_least: int = 2) -> np.ndarray:
    """Labels as int64 codes ``(n,)``, counted from 0 without gaps; ``name`` is what errors call them.

    Refused are labels that are missing, of another number than ``n``, or fewer than ``at_least`` different ones.
    """
    # numpy alone would turn a NaN in a list of names into "nan"
    values = np.asarray(labels, dtype=object if isinstance(labels, (list, tuple)) else None)
    if values.shape != (n,):
        raise ScmambaError(f"{name} must hold one label for each of {n:,} rows of x; got shape {values.shape}.")
    codes, names = pd.factorize(values)
    missing = int((codes < 0).sum())
    if missing:
        raise ScmambaError(f"{name} is missing (NaN or None) for {missing:,} of {n:,} cells: leave those cells out.")
    if len(names) < at_least:
        raise ScmambaError(
            f"{name} needs at least {at_least} different labels; all {n:,} cells are {str(names[0])!r}, "
            f"and a score of one label would be the same whatever the embedding."
        )
    return codes.astype(np.int64)
