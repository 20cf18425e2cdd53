"""Checks that a fault ends in an error that names it, within bounds of time and memory."""

from __future__ import annotations

import contextlib
import signal
import traceback
from collections.abc import Mapping
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest

import scmamba_scvi
from scmamba_scvi.errors import ScmambaError

SRC = Path(scmamba_scvi.__file__).parent
#: Bounds that any refusal keeps with room to spare; memory is beyond what the process had before.
SECONDS = 30
MORE_BYTES = 2 << 30
#: `bounded` reads there how much memory the process has.
STATM = Path("/proc/self/statm")

needs_proc = pytest.mark.skipif(not STATM.exists(), reason=f"needs {STATM}")


class TooSlow(BaseException):
    """The call took longer than it may; not an `Exception`, so that no handler of the code under test catches it."""


@contextlib.contextmanager
def bounded(seconds=SECONDS, more_bytes=MORE_BYTES):
    """Stop the block after ``seconds``, and refuse it memory beyond ``more_bytes`` more than the process has."""
    import resource

    def stop(*_):
        raise TooSlow(f"more than {seconds} s")

    pages = int(STATM.read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def is_named(error):
    """Whether the error has a message and is one of our own, or a ValueError or KeyError that our code raised."""
    if isinstance(error, ScmambaError):
        return bool(str(error))
    last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return isinstance(error, ValueError | KeyError) and SRC in last.parents and bool(str(error))


def content(data):
    """Digest of all that a MuData or an AnnData holds; of anything else, its type."""
    if not hasattr(data, "obs"):
        return str(type(data))
    parts = [data, *getattr(data, "mod", {}).values()]
    names = ("obs", "var", "uns", "obsm", "varm", "obsp", "layers", "X")
    return [{name: joblib.hash(_plain(getattr(part, name, None))) for name in names} for part in parts]


def _plain(value):
    """Tables as lists and sparse matrices as arrays, whose digest does not depend on how they are kept."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, pd.DataFrame):
        return value.index.tolist(), [(str(name), str(column.dtype), column.tolist()) for name, column in value.items()]
    if hasattr(value, "indptr"):  # scipy notes in a matrix what it found out about it
        return value.shape, value.data, value.indices, value.indptr
    return value.filled(-1) if isinstance(value, np.ma.MaskedArray) else value


def assert_named(call, *unchanged):
    """Check that ``call`` raises a named error whose message is short enough to be read, and changes none of the data."""
    before = [content(data) for data in unchanged]
    try:
        with bounded():
            call()
    except Exception as error:  # noqa: BLE001  the kind of the error is what is checked
        assert is_named(error), (
            f"{type(error).__name__}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-4:])}"
        )
        assert len(str(error)) < 2000, "the message is too long to read"
        assert [content(data) for data in unchanged] == before, "the data were changed"
        return
    raise AssertionError("nothing was raised")
