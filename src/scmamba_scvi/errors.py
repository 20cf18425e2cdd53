"""Errors of this package, and the one way an unknown name is answered."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ScmambaError(ValueError):
    """Something the user passed cannot be used. The message says what, where, and what to do."""


class UnknownNameError(ScmambaError):
    """A name that is not one of a known set; the message lists the known ones."""

    def __init__(self, what: str, name: object, known: Iterable[object]) -> None:
        known = [str(k) for k in known]
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"Unknown {what} {name!r}.{hint} Known: {', '.join(map(repr, known)) or 'none'}.")
