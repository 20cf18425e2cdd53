"""Files that a command writes: checked before the work starts, and written whole or not at all."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from .._files import atomic_write, check_folder, check_writable, unfinished_path
from ..errors import ScmambaError
from ._console import say

#: Bytes of a name that file systems allow.
LONGEST_NAME = 255


def check_outputs(sources: Sequence[Path], files: Sequence[Path], overwrite: bool, folder: Path | None = None) -> None:
    """Raise for everything that would make writing fail at the end, before the work starts.

    ``folder`` is one that the model fills itself.
    """
    outputs = [*files, *([folder] if folder is not None else [])]
    for output in outputs:
        if output.exists() and any(source.exists() and output.samefile(source) for source in sources):
            raise ScmambaError(f"--out is the input file, {output}: give the result another name.")
    for file in files:
        if file.is_dir():
            raise ScmambaError(f"{file} is a folder; a file is to be written there.")
        if len(os.fsencode(unfinished_path(file).name)) > LONGEST_NAME:
            raise ScmambaError(f"The name {file.name} is too long for a file.")
    existing = [str(file) for file in files if file.exists()]
    if existing and not overwrite:
        raise ScmambaError(f"These exist: {', '.join(existing)}. Choose other names, or replace them with --overwrite.")
    if folder is not None:
        check_folder(folder, overwrite)
    for parent in {output.parent for output in outputs}:
        check_writable(parent)


def save_figure(draw: Callable[..., object], path: Path) -> None:
    """Write what ``draw(figure=...)`` draws, and say so."""
    from matplotlib.figure import Figure

    figure = Figure()  # not pyplot's: no display is looked for, no figure stays open
    draw(figure=figure)
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished, dpi=150)
    say(f"Wrote {path}.")
