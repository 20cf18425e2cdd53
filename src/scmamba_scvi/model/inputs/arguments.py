"""Checks of arguments, before anything is computed or written."""

import numbers
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...errors import ScmambaError, UnknownNameError


def check_fraction(name: str, value: Any, what: str = "a fraction of the cells", *, zero: bool = True) -> None:
    """A number from 0 to 1, which errors call ``what``; without ``zero``, 0 is refused."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not (0 <= value <= 1 if zero else 0 < value <= 1):
        raise ScmambaError(f"{name} is {what}, between 0 and 1; got {value!r}.")


def check_layers(layers: Mapping[str, str | None] | None, kinds: Collection[str]) -> dict[str, str | None]:
    """From some of the ``kinds`` of modalities to the layer of each; no layers for `None`."""
    if layers is not None and not isinstance(layers, Mapping):
        raise ScmambaError(f"layers must be a dict from kind to layer, got {layers!r}.")
    for kind in layers or ():
        if kind not in kinds:
            raise UnknownNameError("kind of modality in layers", kind, kinds)
    return dict(layers or {})


def feature_positions(known: np.ndarray, names: Sequence[str] | str, what: str, argument: str) -> np.ndarray:
    """Positions among the ``known`` features of those that ``names`` lists; errors call one ``what``, the list ``argument``."""
    asked, index = pd.Index([names] if isinstance(names, str) else names), pd.Index(known)
    if not len(asked):
        raise ScmambaError(f"{argument} is empty: name some.")
    if asked.inferred_type in ("boolean", "integer"):
        raise ScmambaError(f"{argument} must be names, as in var_names; of a mask or of positions take var_names[...].")
    positions = index.get_indexer(asked)
    if (positions < 0).any():
        unknown = asked[positions < 0]
        raise UnknownNameError(f"{what} ({len(unknown):,} of {len(asked):,})", unknown[0], index)
    if asked.has_duplicates:
        raise ScmambaError(f"{argument} names {asked[asked.duplicated()][0]!r} twice: name each feature once.")
    return positions
