"""Checks of arguments that several subpackages share."""

import numbers
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
