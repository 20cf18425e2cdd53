"""Checks of arguments, and words of messages, that several subpackages share."""

import numbers
from collections.abc import Sequence
from typing import Any, Final

from .errors import ScmambaError

#: Seeds of NumPy's global generator have 32 bits.
MAX_SEED: Final = 2**32 - 1


def check_count(name: str, value: Any, least: int = 1, advice: str = "") -> None:
    """A whole number of at least ``least``; ``advice`` says what else would do."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ScmambaError(f"{name} must be a whole number{advice}, got {value!r}.")
    if value < least:
        raise ScmambaError(f"{name} must be at least {least}{advice}, got {value}.")


def listed(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
