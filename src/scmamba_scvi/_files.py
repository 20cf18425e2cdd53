"""Atomic writing: after a crash a file has either its old content or all of the new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Path of a temporary file to write, which replaces ``path`` at the end of the block if that raises nothing."""
    # in the same folder and so on the same file system, where os.replace is atomic
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        _sync(unfinished)
        os.replace(unfinished, path)
        sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Delete the temporary files of `atomic_write` that killed processes left beside ``path``."""
    for temporary in path.parent.glob(f".{path.stem}.*{path.suffix}"):
        if temporary.name.split(".")[-2].isdigit():  # the id of the process
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names of the files in ``folder`` are on the disk; does nothing on Windows."""
    if os.name == "nt":  # which cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(file: Path) -> None:
    with file.open("r+b") as opened:
        os.fsync(opened.fileno())
