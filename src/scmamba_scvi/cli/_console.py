"""What the command says and how it leaves: results to one stream, what is wrong to the other."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

import typer
from rich.console import Console

from ..errors import ScmambaError

out = Console()
err = Console(stderr=True)

#: Exit codes: what the user passed cannot be used; stopped from the keyboard (128 + SIGINT).
BAD_INPUT, INTERRUPTED = 2, 130
#: Folder of this package, which is also the name of its logger.
PACKAGE: Final = Path(__file__).parents[1]


@contextmanager
def reporting() -> Iterator[None]:
    """Say what is wrong with the input in one line and leave with 2; after Ctrl-C leave with 130.

    Errors of other kinds are faults of this package and keep their traceback.
    """
    try:
        with _only_what_concerns_the_user():
            yield
    except KeyboardInterrupt as error:
        err.print("\n[red]Interrupted.[/red]", end=" ")
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    except (ValueError, OSError) as error:
        if os.environ.get("SCMAMBA_TRACEBACK"):
            raise
        err.print("[red]Error:[/red]", end=" ")
        err.print(str(error) or type(error).__name__, markup=False, highlight=False, soft_wrap=True)
        if not isinstance(error, ScmambaError):
            err.print("For the place in the code, run it again with SCMAMBA_TRACEBACK=1.", style="dim")
        raise typer.Exit(BAD_INPUT) from None


@contextmanager
def _only_what_concerns_the_user() -> Iterator[None]:
    """Print our own log and warnings as plain lines, and not what libraries say to programmers."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if PACKAGE in Path(filename).parents and issubclass(category, UserWarning):
            err.print("[yellow]Note:[/yellow]", end=" ")
            err.print(str(message), markup=False, highlight=False, soft_wrap=True)

    ours = logging.getLogger(PACKAGE.name)
    # by the names of its modules: Lightning sets the level of the logger above them when it is imported
    theirs = [
        logging.getLogger(f"lightning.pytorch.{name}") for name in ("utilities.rank_zero", "callbacks.early_stopping")
    ]
    before = [(logger, logger.level) for logger in (ours, *theirs)]
    propagate = ours.propagate
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False  # a handler that some library gave the root would print each line again
    for logger in theirs:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        ours.removeHandler(handler)
        ours.propagate = propagate
        for logger, level in before:
            logger.setLevel(level)
