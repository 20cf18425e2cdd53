"""Features that the user names."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ...errors import ScmambaError, UnknownNameError


def feature_positions(known: np.ndarray, names: Sequence[str] | str, what: str, argument: str) -> np.ndarray:
    """Positions among the ``known`` features of those that ``names`` lists, in the order of ``names``.

    An empty list, a feature that is not known and one named twice are errors, which call them ``what`` and ``argument``.
    """
    asked, index = pd.Index([names] if isinstance(names, str) else names), pd.Index(known)
    if not len(asked):
        raise ScmambaError(f"{argument} is empty: name some.")
    positions = index.get_indexer(asked)
    if (positions < 0).any():
        unknown = asked[positions < 0]
        raise UnknownNameError(f"{what} ({len(unknown):,} of {len(asked):,})", unknown[0], index)
    if asked.has_duplicates:
        raise ScmambaError(f"{argument} names {asked[asked.duplicated()][0]!r} twice: name each feature once.")
    return positions
