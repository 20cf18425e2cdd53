"""The command ``scmamba-scvi``: parse, call the library, print. Heavy imports are inside the commands."""

import io
import sys
from typing import Annotated, Final

import typer

from ._console import out
from ._convert import convert
from ._doctor import doctor
from ._evaluate import evaluate
from ._integrate import demo, integrate

app = typer.Typer(
    name="scmamba-scvi",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # its table of options leaves 18 columns for their help, and cuts off long names
    context_settings={"help_option_names": ["-h", "--help"]},
    # an unexpected error keeps Python's own traceback, which can be searched for and pasted
    pretty_exceptions_enable=False,
)

COMMANDS: Final = {command.__name__: command for command in (demo, integrate, evaluate, convert, doctor)}
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        out.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """One embedding for cells measured in several modalities, from all features."""


def main() -> None:
    """Entry point of the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no result is lost for an arrow that the encoding lacks
            stream.reconfigure(errors="replace")
    app()
