"""A measurement in a process of its own, and the memory that it takes there."""

from __future__ import annotations

import multiprocessing
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MB = 2**20


class ProcessEndedError(RuntimeError):
    """The process ended before it had an answer, as when the system kills it for memory."""


def in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)`` in a new process: its peak memory is its own, and its end is not ours."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments))
    process.start()
    sender.close()  # with our copy open, the end of the process would not be noticed
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        raise ProcessEndedError(f"the process ended with code {process.exitcode}") from None
    process.join()
    return answer


def _answer(sender, function: Callable[..., Any], arguments: tuple) -> None:
    sender.send(function(*arguments))


class PeakRSS:
    """Highest resident memory of this process while the block runs, in bytes; on Linux, whose record of it is set back."""

    def __enter__(self) -> PeakRSS:
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten, also by `peak_rss`
        self.before = self.peak = peak_rss()
        return self

    def __exit__(self, *_: object) -> None:
        self.peak = peak_rss()

    @property
    def raised(self) -> int:
        """Bytes at the peak beyond those at the start of the block."""
        return self.peak - self.before


def peak_rss() -> int:
    """Highest resident memory of this process so far, in bytes.

    Linux' own record of this program: `getrusage` also has what the parent held when it started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), flags=re.MULTILINE)[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
