"""Checks of arguments, before anything is computed or written."""

import numbers
from typing import Any

from ...errors import ScmambaError


def check_count(name: str, value: Any, least: int = 1) -> None:
    """A whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ScmambaError(f"{name} must be a whole number, got {value!r}.")
    if value < least:
        raise ScmambaError(f"{name} must be at least {least}, got {value}.")


def check_fraction(name: str, value: Any, *, zero: bool) -> None:
    """A fraction of the cells: above 0 and at most 1; with ``zero``, 0 is allowed too."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not (0 <= value <= 1 if zero else 0 < value <= 1):
        raise ScmambaError(f"{name} is a fraction of the cells, between 0 and 1; got {value!r}.")
