"""Options that name pairs, and the options of the command line in messages of the library."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from .._files import check_is_there
from ..errors import ScmambaError

#: Counts in any format, an argument of several commands.
FILES = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE",
        show_default=False,
        help="Raw counts: .h5mu, .zarr, .h5ad with feature types or proteins, Cell Ranger's .h5 or its folder; or one file "
        "per modality, such as rna=a.h5ad atac=b.h5ad.",
    ),
]
#: Options that are not named as the arguments of the library are.
OPTIONS: Final = {
    "layers": "--layer", "modalities": "--modality", "modality": "--modality rna=KEY", "paths": "",
    "require_counts": "--no-require-counts",
}  # fmt: skip


def parse_pairs(
    option: str, texts: Sequence[str] | None, form: str, example: str, *, may_be_alone: bool = False
) -> dict[str, str] | None:
    """``["rna=gex"]`` to ``{"rna": "gex"}``; `None` stays. With ``may_be_alone`` a value alone is also its name."""
    pairs: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if may_be_alone and not equals:
            value = name
        if not (name and value):
            raise ScmambaError(f"{option} takes {form}, such as {option} {example}; got {text!r}.")
        if name in pairs:
            raise ScmambaError(f"{option} names {name!r} twice: {pairs[name]!r} and {value!r}.")
        pairs[name] = value
    return pairs or None


def parse_files(texts: Sequence[str]) -> Path | dict[str, Path]:
    """A file, or a dict from modality to file where they are written as ``rna=a.h5ad``; all must be there."""
    named = [text.partition("=") for text in texts if _names_modality(text)]
    if len(named) < len(texts) != 1:
        if not named and not Path(texts[-1]).exists():  # as cp takes it
            raise ScmambaError(f"There is no file {texts[-1]}. If it is the output, name it with --out {texts[-1]}.")
        raise ScmambaError(
            "Name the modality of every file: rna=a.h5ad atac=b.h5ad. Files of several samples are joined first, as the user guide "
            "does under 'Several samples'."
        )
    if len({name for name, _, _ in named}) < len(named):
        raise ScmambaError(f"Each modality takes one file; got {', '.join(texts)}.")
    # a shell leaves ~ behind NAME= as it is
    found = {name: Path(path).expanduser() for name, _, path in named} or Path(texts[0])
    for text, path in zip(texts, paths_of(found), strict=True):
        check_is_there(path, typed=text if named else "")
    return found


def _names_modality(text: str) -> bool:
    """Whether text is ``NAME=PATH``, and not a path with ``=`` in it, as of folders that are named after parameters."""
    name, equals, path = text.partition("=")
    if not (name and equals) or re.search(r"[/\\]", name) or Path(text).exists():
        return False
    folder = Path(text).parent
    return Path(path).exists() or folder == Path() or not folder.is_dir()


def paths_of(files: Path | Mapping[str, Path]) -> list[Path]:
    """The paths that `parse_files` found."""
    return list(files.values()) if isinstance(files, Mapping) else [files]


def holds_mudata(path: Path) -> bool:
    """Whether a file is a MuData, whose counts can stay in it."""
    return path.suffix == ".h5mu" or (path / "mod").is_dir()


def as_option(name: str, value: Any = None) -> str:
    """An argument of the library as it is typed here: ``layers={'rna': ...}`` is ``--layer rna=...``."""
    option = OPTIONS.get(name, f"--{name.replace('_', '-')}" if name.isidentifier() else name)
    if isinstance(value, dict):
        pairs = [shlex.quote(f"{key}={'...' if part is ... else part}") for key, part in value.items() if part]
        return " ".join(f"{option} {pair}".strip() for pair in pairs) or f"no {option} for {' and '.join(value)}"
    return f"{option} {value!r}" if isinstance(value, str | int) and not isinstance(value, bool) else option
