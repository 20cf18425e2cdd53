"""Writing: what cannot be written is found before the work, and after a crash a file has its old content or all of the new."""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ._compat import mudata_of, reason_of, without_pulling
from .errors import ScmambaError, written

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mudata import MuData

#: Bytes that adding a matrix to a file may take beside its values.
SPARE: Final = 2**20


def check_is_there(path: Path, typed: str = "") -> None:
    """Raise if there is no such file or folder, which ``typed`` may also mean, or if it may not be read."""
    if path.exists():
        if not os.access(path, os.R_OK):
            raise ScmambaError(f"{path} may not be read by you: ask its owner for the permission.")
        return
    if path.is_symlink():
        raise ScmambaError(f"{path} is a link to {path.readlink()}, which is not there.")
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    hint = f" Did you mean {path.with_name(near[0])}?" if near else ""
    nor = f", nor one called {typed}" if typed else ""
    raise ScmambaError(f"There is no file {path}{nor}.{hint}")


def check_is_file(path: Path, argument: str) -> None:
    """`check_is_there`, and that it is no folder; ``argument`` names it."""
    check_is_there(path)
    if path.is_dir():
        raise ScmambaError(f"{written(argument, str(path))} is a folder: name a file.")


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr, whatever it is called."""
    return (path / ".zgroup").exists() or (path / "zarr.json").exists()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Path of a temporary file to write, which replaces ``path`` after the block if that raises nothing; folders are made."""
    if path.is_dir():
        raise ScmambaError(f"{path} is a folder; a file is to be written there.")
    place = place_of(path)
    unfinished = unfinished_path(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        replace_by(unfinished, place)
    except OSError as error:
        raise ScmambaError(
            f"{path} cannot be written: {reason_on_disk(error)}. What was there is as it was."
        ) from error
    finally:
        with suppress(OSError):  # the folder may be gone
            unfinished.unlink()


def place_of(path: Path) -> Path:
    """Where a file is written: of a link, what it leads to, whose folder must be there, as its drive may not be mounted."""
    place = Path(os.path.realpath(path))
    if path.is_symlink() and not place.parent.is_dir():
        raise ScmambaError(f"{path} is a link to {path.readlink()}, whose folder is not there.")
    return place


def reason_on_disk(error: OSError) -> str:
    """Why something could not be written, without what HDF5 adds."""
    said = reason_of(error)
    return os.strerror(error.errno) if error.errno and "unable to lock" not in said else said


@contextmanager
def naming_full_disk() -> Iterator[None]:
    """Within the block torch writes a file; its error on one that cannot grow says nothing of disks."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"torch could not write it, the disk may be full ({reason_of(error)})") from error


def unfinished_path(path: Path) -> Path:
    """Where `atomic_write` writes: in the same folder and so on the same file system, where os.replace is atomic."""
    return path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Folder for files that are then moved into ``folder``, or that takes its place; gone after the block."""
    # on its file system: in it, as it may be a mount point, or beside it
    where = folder if folder.is_dir() else folder.parent
    where.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{folder.name[:50]}.", dir=where, ignore_cleanup_errors=True
    ) as unfinished:
        yield Path(unfinished)


def replace_by(finished: Path, path: Path) -> None:
    """Put the file ``finished`` in the place of ``path``, once all of it is on the disk."""
    with finished.open("r+b") as opened:
        os.fsync(opened.fileno())
    os.replace(finished, path)
    sync_folder(path.parent)


def write_h5mu(mdata: MuData, path: Path, **options: Any) -> None:
    """Write an ``.h5mu`` file; if that fails, ``path`` keeps what it held before. ``mdata`` stays as it is."""
    with atomic_write(path) as unfinished, _nullable_strings(), without_pulling():
        whole = _copy_of_view(mdata) if mdata.is_view else mdata
        with _keeping_text(whole):
            whole.write_h5mu(unfinished, **options)


def _copy_of_view(mdata: MuData) -> MuData:
    """The cells and features of a view: mudata updates what it writes, and fails with whole numbers in ``obsm`` of a view."""
    shared = {name: dict(getattr(mdata, name)) for name in ("obsm", "varm", "obsp", "varp", "uns")}
    parts = {key: part.copy() for key, part in mdata.mod.items()}
    return mudata_of(parts, {"obs": mdata.obs.copy(), "var": mdata.var.copy(), "axis": mdata.axis, **shared})


@contextmanager
def _keeping_text(mdata: MuData) -> Iterator[None]:
    """Columns of text of the modalities, which writing makes categories, are text again after the block."""
    before = [table.copy(deep=False) for table in _tables(mdata)]
    try:
        yield
    finally:
        for table, kept in zip(_tables(mdata), before, strict=True):
            for name in kept:
                if table[name].dtype != kept[name].dtype:
                    table[name] = kept[name]


def _tables(mdata: MuData) -> list[pd.DataFrame]:
    """``obs`` and ``var`` of each modality, and ``var`` of its ``raw``."""
    parts = mdata.mod.values()
    return [part.obs for part in parts] + [part.var for part in parts] + [part.raw.var for part in parts if part.raw]


def check_result(mdata: MuData, folder: Path) -> None:
    """Raise if ``mdata`` cannot be written into ``folder``, for what it holds or for its size."""
    check_content(mdata)
    parts = [mdata, *mdata.mod.values()]
    entries = [x.X for part in mdata.mod.values() for x in (part, part.raw) if x is not None]
    entries += [x for part in parts for name in ("obsm", "varm", "obsp", "varp") for x in getattr(part, name).values()]
    # anndata 0.13 lists X among the layers, as None
    entries += [x for part in mdata.mod.values() for name, x in part.layers.items() if name is not None]
    check_space(sum(map(_n_bytes, [*entries, *(table for part in parts for table in (part.obs, part.var))])), folder)


def check_space(n_bytes: int, folder: Path) -> None:
    """Raise unless so much fits on the disk of ``folder``."""
    free = shutil.disk_usage(nearest_folder(folder)).free
    if n_bytes > free:
        raise ScmambaError(
            f"About {n_bytes / 2**20:,.0f} MB are to be written into {folder}, which has {free / 2**20:,.0f} MB left."
        )


def try_writing(values: np.ndarray, path: Path) -> None:
    """Raise unless values fit beside ``path``, which a disk that becomes full while they are added to it would damage.

    They, ``(n, z)`` by rows, are written: free space says nothing of quotas, nor of files that are compressed.
    """
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent) as file:
            file.write(values.data)
            file.write(os.urandom(SPARE))
            file.flush()
            os.fsync(file.fileno())
    except PermissionError:  # to make another file there, which a file that may be changed does not need
        return
    except OSError as error:
        n_bytes = values.nbytes + SPARE
        raise ScmambaError(
            f"{path} stays as it was: {n_bytes / 2**20:,.0f} MB more do not fit there, {reason_on_disk(error)}. Make space first."
        ) from error


def _n_bytes(entry: Any) -> int:
    """What an array, a table or a sparse matrix in memory takes there, about what it takes in a file."""
    if hasattr(entry, "memory_usage"):
        return int(entry.memory_usage().sum())
    arrays = [getattr(entry, name) for name in ("data", "indices", "indptr")] if hasattr(entry, "indptr") else [entry]
    return sum(int(getattr(array, "nbytes", 0)) for array in arrays)


def check_content(mdata: MuData) -> None:
    """Raise, and name them, if ``mdata`` holds entries that a file cannot hold; all but plain numbers are tried in memory."""
    found = list(_faults(mdata))
    if found:
        entry, reason, advice = found[0]
        others = f", nor can {', '.join(entry for entry, *_ in found[1:6])}" if len(found) > 1 else ""
        raise ScmambaError(f"{entry} cannot be written into a file{others}: {reason}. First {advice}.")


def _faults(mdata: MuData) -> Iterator[tuple[str, str, str]]:
    """Each entry that a file cannot hold, as the user writes it, why, and what to do."""
    parts = {"mdata": mdata, **{f"mdata[{key!r}]": part for key, part in mdata.mod.items()}}
    # what has a slash would be written as a folder with an entry in it, and could not be read again
    divides = "a slash divides names there"
    for key in mdata.mod:
        if "/" in key:
            yield (
                f"The modality {key!r}", divides,
                f"name it otherwise, mudata.MuData({{{key.replace('/', '_')!r}: mdata[{key!r}], ...}})",
            )  # fmt: skip
    for where, part in parts.items():
        for name in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
            of_part = getattr(part, name, None) or {}  # a MuData has no layers
            for entries, key in _with_slash(f"{where}.{name}", of_part):
                new = f"{entries}[{key.replace('/', '_')!r}]"
                yield f"{entries}[{key!r}]", divides, f"rename it, {new} = {entries}.pop({key!r})"
        for name in ("obs", "var"):
            table = getattr(part, name)
            index = table.index.name
            if index in table and not table.index.to_series().equals(table[index]):  # as anndata compares them
                reason = f"it has the name of a column with other values, {index!r}"
                yield f"The index of {where}.{name}", reason, f"rename the index, {where}.{name}.index.name = None"
    raws = {f"mdata[{key!r}].raw": part.raw for key, part in mdata.mod.items() if part.raw is not None}
    for where, part in {**parts, **raws}.items():
        for name in ("var",) if where in raws else ("obs", "var", "uns", "obsm", "varm"):
            entries = getattr(part, name)
            for key in entries:
                if why := _unwritable(entries, key):
                    entry = f"{where}.{name}[{key!r}]"
                    is_column = name in ("obs", "var") and key != "_index"
                    text = f"make it text, {entry} = {entry}.astype('string'), or " if is_column else ""
                    yield entry, why, f"{text}remove it, del {entry}"


def _with_slash(where: str, entries: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """Names with a slash at any level of ``entries``, and where they lie."""
    for key, value in entries.items():
        if isinstance(key, str) and "/" in key:
            yield where, key
        elif isinstance(value, Mapping):
            yield from _with_slash(f"{where}[{key!r}]", value)


def _unwritable(entries: Any, key: Any) -> str | None:
    """Why one entry of a table or a dict cannot be written; `None` if it can."""
    import anndata
    import h5py
    import pandas as pd

    if key == "_index" and isinstance(entries, pd.DataFrame):
        return "the names of rows are stored as a column of this name"
    entry: Any = {key: entries[key]}
    if getattr(entries[key], "ndim", 0) > 1 and getattr(getattr(entries[key], "dtype", None), "kind", "O") in "biuf":
        return None  # a matrix of numbers
    try:
        with _nullable_strings(), h5py.File("nowhere", "w", driver="core", backing_store=False) as file:
            if isinstance(entries, pd.DataFrame):
                column = entries[[key]]
                if not column.index.is_unique:  # as of a gene and its protein; anndata would warn of them as of cells
                    column = column.set_axis(pd.RangeIndex(len(column)).astype(str))
                table = anndata.AnnData(obs=column)
                table.strings_to_categoricals()  # as writing a MuData does
                entry = table.obs
            anndata.io.write_elem(file, "entry", entry)
    except Exception:  # noqa: BLE001  anndata, h5py and pandas raise half a dozen types
        if not isinstance(key, str):
            return "its name is not text"
        kind = str(getattr(entries[key], "dtype", type(entries[key]).__name__))
        return "not all of it is text" if kind == "object" else f"its type is {kind}"
    return None


def _nullable_strings() -> Any:
    """Anndata's leave to write columns of pandas' type ``string``, which releases before 0.11 cannot read."""
    import anndata

    return anndata.settings.override(allow_write_nullable_strings=True)


def check_folder(folder: Path, overwrite: bool) -> None:
    """Raise unless a model can be written into ``folder``."""
    if folder.exists() and not folder.is_dir():
        raise ScmambaError(f"{folder} is a file; a folder is to be written there.")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ScmambaError(f"{folder} exists. Choose another folder or pass {written('overwrite', True)}.")
    check_writable(folder)


def check_writable(folder: Path) -> None:
    """Raise unless files can be made in ``folder``, or in the nearest folder above it that exists."""
    folder = nearest_folder(folder)
    # by trying: permissions alone say too little about network drives and full or read-only disks
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ScmambaError(f"Nothing can be written into {folder}: {reason_on_disk(error)}.") from error


def nearest_folder(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists; raises if that is a link to one that does not."""
    nearest = next((folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder)), None)
    if nearest is None:
        raise ScmambaError(f"There is no drive {path.absolute().anchor}: choose another folder than {path}.")
    if nearest.is_symlink():  # a folder cannot be made in its place
        check_is_there(nearest)
    return nearest


def remove_unfinished(path: Path) -> None:
    """Delete the temporary files of `atomic_write` that killed processes left beside ``path``."""
    for temporary in path.parent.glob(f".{path.stem}.*{path.suffix}"):
        if temporary.name.split(".")[-2].isdigit():  # the id of the process
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names of the files in ``folder`` are on the disk, where that can be asked for."""
    with suppress(OSError):  # on Windows, where one may not list the folder, and on some network drives it cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
