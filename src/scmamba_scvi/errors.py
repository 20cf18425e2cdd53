"""Errors that this package raises, and how messages write arguments."""

import copyreg
import difflib
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any

#: Names that an error lists; of more, at most five.
MOST_NAMES = 40


def _in_python(name: str, value: Any = None) -> str:
    """``batch_key``, ``batch_key='donor'`` or, for an ellipsis, ``batch_key=...``."""

    def text(value: Any) -> str:
        if isinstance(value, Mapping):
            return f"{{{', '.join(f'{key!r}: {text(part)}' for key, part in value.items())}}}"
        return "..." if value is ... else repr(value)

    return name if value is None else f"{name}={text(value)}"


#: Writes an argument of the library, by name and value, into a message; the command line has options instead.
WRITER: ContextVar[Callable[[str, Any], str]] = ContextVar("WRITER", default=_in_python)


def written(name: str, value: Any = None) -> str:
    """An argument as a message names it where it is raised; of a value that is the user's to choose, ``...`` is passed."""
    return WRITER.get()(name, value)


class ScmambaError(ValueError):
    """Something the user passed cannot be used. The message says what, where, and what to do."""


class UnknownNameError(ScmambaError):
    """A name that is not one of a known set; the message lists the known ones, of many those like it or the first.

    Parameters
    ----------
    what
        What the name is of, such as ``"preset"``.
    name
        The unknown name.
    known
        Those that would do.
    advice
        What else would do, a sentence.
    """

    def __init__(self, what: str, name: object, known: Iterable[object], advice: str = "") -> None:
        names = list(dict.fromkeys(map(str, known)))
        lower = {known: known.lower() for known in names}
        alike = dict.fromkeys(difflib.get_close_matches(str(name).lower(), set(lower.values()), n=5))
        close = [known for word in alike for known in names if lower[known] == word][:5]
        hint = f" Did you mean {close[0]!r}?" if close else ""
        shown = names if len(names) <= MOST_NAMES else close or names[:5]
        more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
        listed = ", ".join(map(repr, shown)) or "none"
        super().__init__(f"Unknown {what} {name!r}.{hint} Known: {listed}{more}.{advice and ' '}{advice}")

    def __reduce__(self) -> tuple:
        # pickle would pass the message to __init__, which takes other arguments; worker processes pickle their errors
        return copyreg.__newobj__, (type(self), str(self))  # type: ignore[attr-defined]  # typeshed lacks it


class NonFiniteError(ScmambaError):
    """Training met a value that is NaN or infinite; the model keeps the last good weights.

    Parameters
    ----------
    message
        What was met, where, and what to do.
    epoch
        Epoch of training in which it was met, counted from 0 within the stage; messages and progress bars count from 1.
    modality
        Kind of the modality it came from; `None` if it came from no single one.
    cells
        Names of the cells involved: those whose embeddings are not finite, or the whole minibatch.
    """

    def __init__(
        self, message: str, epoch: int | None = None, modality: str | None = None, cells: Iterable[str] = ()
    ) -> None:
        super().__init__(message)
        self.epoch, self.modality, self.cells = epoch, modality, tuple(cells)


class ResumeError(ScmambaError):
    """Training cannot be resumed: its checkpoint is damaged, or the model or the data differ from those it began with."""
