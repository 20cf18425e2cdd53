"""Files that a command writes: checked before the work starts, and written whole or not at all."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from .._files import atomic_write, check_folder, check_writable, is_zarr, place_of, unfinished_path
from ..errors import ScmambaError
from ._console import say

#: Bytes of a name that file systems allow.
LONGEST_NAME = 255
#: Endings that say the format of an input; any other dot belongs to its name.
FORMATS: Final = (".h5mu", ".h5ad", ".zarr", ".h5", ".hdf5")
#: An option of all commands that write.
OVERWRITE = Annotated[
    bool, typer.Option("--overwrite", help="Replace everything that an earlier run wrote under these names.")
]
#: An option and the path that it names, or by default would name.
Output: TypeAlias = tuple[str, Path]


def named_after(source: Path, ending: str) -> Path:
    """Path of an output beside ``source``, by default: its name without the format, and ``ending``."""
    if source.name in ("", ".."):
        raise ScmambaError(f"{source} has no name that the output could have: name it with --out.")
    return source.with_name(f"{source.stem if source.suffix in FORMATS else source.name}{ending}")


def check_outputs(
    sources: Sequence[Path], files: Sequence[Output], overwrite: bool, folders: Sequence[Output] = ()
) -> None:
    """Raise for everything that would make writing fail at the end, before the work starts.

    ``files`` are all that stands beside a result, also what only a later command writes; ``folders`` those that the model
    fills itself.
    """
    for _, file in files:
        if len(os.fsencode(unfinished_path(file).name)) > LONGEST_NAME:
            raise ScmambaError(f"The name {file.name} is too long for a file.")
    _check_apart(sources, files, folders)
    for file in (file for _, file in files if file.is_dir()):
        raise ScmambaError(f"{file} is a folder; a file is to be written there.")
    existing = [str(file) for _, file in files if file.exists()]
    if existing and not overwrite:
        raise ScmambaError(f"These exist: {', '.join(existing)}. Choose other names, or replace them with --overwrite.")
    for option, path in (*files, *folders):
        if path.parts[:1] == ("~",):
            raise ScmambaError(f"{option}={path}: the shell replaces ~ only after a space, {option} {path}.")
        try:
            check_writable(place_of(path).parent)
        except ScmambaError as error:
            raise ScmambaError(f"{error} Choose another folder with {option}.") from error
    for _, folder in folders:
        check_folder(folder, overwrite)


def _check_apart(sources: Sequence[Path], files: Sequence[Output], folders: Sequence[Output]) -> None:
    """No output has the place of an input or of another output, nor lies in a file that is written or in a zarr."""
    outputs = [*files, *folders]
    for i, (option, output) in enumerate(outputs):
        where = output.resolve()
        for source in sources:
            if output.exists() and source.exists() and output.samefile(source):
                raise ScmambaError(f"{option} is the input file, {output}: give the result another name.")
        for other, path in outputs[:i]:
            if where == path.resolve():
                raise ScmambaError(f"{other} and {option} both name {path}: give each another name.")
        for other, file in files:
            if file.resolve() in where.parents:
                raise ScmambaError(f"{option} is to lie in {file}, which {other} makes a file: give each another name.")
        for folder in filter(is_zarr, where.parents):
            raise ScmambaError(f"{option}, {output}, lies in a zarr, {folder}: choose another folder.")


def score_files(file: Path, out: str | None = None) -> list[Path]:
    """Where `evaluate` writes about ``file``: the table, the figure and the table by type."""
    prefix = Path(out) if out else named_after(file, "_scores")
    if out and (prefix.is_dir() or out.endswith((os.sep, "/"))):
        prefix = prefix / "scores"
    elif prefix.suffix in (".csv", ".png"):
        prefix = prefix.with_suffix("")
    # not with_suffix, which would cut off what follows a dot in the name
    return [prefix.with_name(f"{prefix.name}{ending}") for ending in (".csv", ".png", "_by_type.csv")]


def remove_earlier(paths: Sequence[Path]) -> None:
    """Delete what stands beside a result, once a new one is written: this run may write less, and nothing else may stay."""
    for path in paths:
        path.unlink(missing_ok=True)


def save_figure(draw: Callable[..., object], path: Path) -> None:
    """Write what ``draw(figure=...)`` draws, and say so."""
    from matplotlib.figure import Figure

    figure = Figure()  # not pyplot's: no display is looked for, no figure stays open
    draw(figure=figure)
    with atomic_write(path) as unfinished:
        figure.savefig(unfinished, dpi=150)
    say(f"Wrote {path}.")
