"""What a command prints and how it exits: results go to stdout, notes and errors to stderr."""

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console

from .._compat import quiet
from ..errors import WRITER, ScmambaError
from ._arguments import as_option


class _Console(Console):
    """A console that cannot fail: files are written also where nobody reads on, as in ``| head``, or the disk of a log is full."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, or go on without a word."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Print nothing from here on; rich would end the process."""
        self.quiet = True
        # what Python still has to write at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


out = _Console(emoji=False)  # chr1:100:200 is no emoji
err = _Console(stderr=True, emoji=False)

#: Exit codes: an argument or a file cannot be used; stopped by Ctrl-C (128 + SIGINT).
BAD_INPUT, INTERRUPTED = 2, 130
#: Folder of this package; its name is that of our logger.
PACKAGE: Final = Path(__file__).parents[1]


@contextmanager
def reporting() -> Iterator[None]:
    """Print what is wrong with the input as one line and exit with 2; after Ctrl-C exit with 130.

    Errors of other types are bugs and keep their traceback.
    """
    token = WRITER.set(as_option)
    try:
        with _plain_log_and_warnings(), _ending_orderly():
            yield
    except KeyboardInterrupt as error:
        say(str(error), "\n[red]Interrupted.[/red] ", err)
        raise typer.Exit(INTERRUPTED) from None
    except (ValueError, OSError) as error:
        if os.environ.get("SCMAMBA_TRACEBACK"):
            raise
        say(str(error) or type(error).__name__, "[red]Error:[/red] ", err)
        if not isinstance(error, ScmambaError):
            err.print("For the traceback, run the command again with SCMAMBA_TRACEBACK=1.", style="dim")
        raise typer.Exit(BAD_INPUT) from None
    finally:
        WRITER.reset(token)


def say(text: str, label: str = "", console: Console = out) -> None:
    """Print a line after a coloured label.

    A terminal gets whole words. A line is not broken where it is piped, nor where it may hold a command to copy.
    """
    console.print(label, end="")
    console.print(text, markup=False, highlight=False, soft_wrap=bool(label) or not console.is_terminal)


@contextmanager
def _ending_orderly() -> Iterator[None]:
    """Within the block, the signal of a batch system or of a lost connection is an exit, before which temporary files are removed."""

    def end(number: int, frame: object) -> None:
        err.print(f"Ended by {signal.Signals(number).name}. What is not said to be written is not.")
        raise SystemExit(128 + number)

    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has one
    is_main = threading.current_thread() is threading.main_thread()  # no other may set a handler
    taken = [number for number in known if is_main and signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage(), console=err)


@contextmanager
def _plain_log_and_warnings() -> Iterator[None]:
    """Print our own log and warnings as plain lines; silence those that libraries address to programmers."""

    def show(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
        if PACKAGE in Path(filename).parents and issubclass(category, UserWarning):
            say(str(message), "[yellow]Note:[/yellow] ", err)

    # that of training is below scvi-tools' logger
    ours = [logging.getLogger(name) for name in (PACKAGE.name, f"scvi.{PACKAGE.name}")]
    before = [(logger, logger.level, logger.propagate) for logger in ours]
    handler = _Lines()
    for logger in ours:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        # a library may have given the root logger a handler, which would print each line again
        logger.propagate = False
    try:
        # their modules by name, since Lightning sets the level of their parent when it is imported
        with (
            quiet("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.callbacks.early_stopping"),
            warnings.catch_warnings(),
        ):
            warnings.showwarning = show
            yield
    finally:
        for logger, level, propagate in before:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
