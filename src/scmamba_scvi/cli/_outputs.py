"""Files that a command writes: checked before the work starts, and written whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from .._files import atomic_write
from ..errors import ScmambaError
from ._console import print_written


def check_outputs(sources: Sequence[Path], files: Sequence[Path], overwrite: bool, folder: Path | None = None) -> None:
    """Raise for everything that would make writing fail at the end, before the work starts.

    ``folder`` is one that the model fills itself.
    """
    for file in files:
        if file.exists() and any(source.exists() and file.samefile(source) for source in sources):
            raise ScmambaError(f"--out is the input file, {file}: give the result another name.")
        if file.is_dir():
            raise ScmambaError(f"{file} is a folder; a file is to be written there.")
    existing = [str(file) for file in files if file.exists()]
    if folder is not None:
        if folder.exists() and not folder.is_dir():
            raise ScmambaError(f"{folder} is a file; a folder is to be written there.")
        if folder.is_dir() and any(folder.iterdir()):
            existing.append(str(folder))
    if existing and not overwrite:
        raise ScmambaError(f"These exist: {', '.join(existing)}. Choose other names, or replace them with --overwrite.")
    for parent in {path.parent for path in (*files, *([folder] if folder is not None else []))}:
        check_writable(parent)


def check_writable(folder: Path) -> None:
    """Raise unless files can be made in ``folder``, or in the nearest folder above it that exists."""
    while not folder.exists():
        folder = folder.parent
    # by trying: permissions alone say too little about network drives and full or read-only disks
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ScmambaError(f"Nothing can be written into {folder}: {error.strerror or error}.") from error


def save_figure(draw: Callable[..., object], path: Path) -> None:
    """Write what ``draw(figure=...)`` draws, and say so."""
    from matplotlib.figure import Figure

    figure = Figure()  # not pyplot's: no display is looked for, no figure stays open
    draw(figure=figure)
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished, dpi=150)
    print_written(path)
