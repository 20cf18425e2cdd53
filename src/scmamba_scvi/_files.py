"""Files that are whole or as they were before, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write into, which takes its place once all of it is on the disk."""
    # the same folder is the same file system, where os.replace is one step
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        _sync(unfinished)
        os.replace(unfinished, path)
        sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Delete what processes that were killed left beside ``path``."""
    for left in path.parent.glob(f".{path.stem}.*{path.suffix}"):
        if left.name.split(".")[-2].isdigit():
            left.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk, where the system can tell."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(file: Path) -> None:
    with file.open("r+b") as opened:
        os.fsync(opened.fileno())
