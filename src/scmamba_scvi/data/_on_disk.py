"""MuData files larger than memory: open them with their matrices left on disk, rewrite them for that, add to them."""

import contextlib
import gc
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData, OldFormatWarning
from anndata.experimental import IOSpec, read_dispatched
from anndata.io import read_elem, sparse_dataset, write_elem
from mudata import MuData

from .._compat import explained, mudata_of, without_pulling
from .._files import check_is_there, temporary_folder, try_writing
from ..errors import ScmambaError, written
from ._row_blocks import is_sparse, read_sparse, row_blocks, write_rows

#: Parts of a MuData beside its modalities.
SHARED = ("obs", "var", "obsm", "varm", "obsp", "varp", "obsmap", "varmap", "uns")
#: Of so few features cells in a row may all have the first one only.
FEW_FEATURES = 20


def open_mudata(path: str | os.PathLike[str]) -> MuData:
    """MuData of a file whose matrices stay in the file: ``X`` and layers are read a few cells at a time when needed.

    Parameters
    ----------
    path
        ``.h5mu`` or ``.zarr``, on a local disk; matrices sparse by rows (CSR) or dense.

    Returns
    -------
    MuData to set up, train on and embed, as one in memory; names and tables are in memory. A ``.h5mu`` stays open, for
    reading only, as long as the object lives.

    Raises
    ------
    ScmambaError
        The file is missing, damaged, or holds no MuData.

    Examples
    --------
    >>> mdata = data.open_mudata("cells.h5mu")
    >>> SCMAMBA.setup_mudata(mdata)
    >>> model = SCMAMBA(mdata)
    >>> model.train(plan_kwargs={"buffer_mb": 2048})
    """
    root = _open(path, "r")
    with explained(f"{path} is damaged, or not a MuData"):
        return _assembled(root, _open_modality)


def read_whole(path: Path) -> MuData | AnnData:
    """What a MuData or an AnnData in a file holds, in memory; sparse matrices of float16, which scipy lacks, become float32."""

    def read_part(read: Callable, name: str, part: Any, *, iospec: IOSpec) -> Any:
        return read_sparse(part) if is_sparse(part) and part["data"].dtype == np.float16 else read(part)

    def read_modality(group: Any) -> AnnData:
        if "encoding-type" in group.attrs:
            return read_dispatched(group, read_part)
        return AnnData(**read_elem(group))  # the first releases of mudata did not write what a modality is

    with contextlib.ExitStack() as stack, warnings.catch_warnings(action="ignore", category=OldFormatWarning):
        if path.is_dir():
            root = _open_zarr(path, "r")
            _check_kind(root, path)
            _check_pieces(root, path)
        else:
            root = stack.enter_context(h5py.File(path, "r"))
        return _assembled(root, read_modality) if "mod" in root else read_dispatched(root, read_part)


def _check_kind(root: Any, path: Path) -> None:
    """Raise unless a zarr is a MuData or an AnnData."""
    if "mod" in root or {"obs", "var"} <= set(root):
        return
    way = "pass one of these"
    if "tables" in root:
        tables = [str(path / "tables" / name) for name in root["tables"]]
        way = f"of a SpatialData pass a table: {', '.join(tables) or 'it has none'}"
    raise ScmambaError(f"{path} is a zarr with {sorted(root)[:5]}, and neither a MuData nor an AnnData: {way}.")


def _check_pieces(root: Any, path: Path) -> None:
    """Raise if pieces of a sparse matrix of a zarr are not there: zarr reads them as zeros.

    A piece of nothing but zeros is not written. So where none is there, as of a layer of zeros, they need not be lost, nor those
    of ``indices`` where cells have only the first of a few features.
    """
    for name, group in root.groups():
        if is_sparse(group):
            parts = ["data", "indices"] if min(group.attrs["shape"]) > FEW_FEATURES else ["data"]
            for array in (group[part] for part in parts):
                found, of = array.nchunks_initialized, array.nchunks
                if 0 < found < of:
                    raise ScmambaError(
                        f"{path} is not complete: {of - found:,} of {of:,} pieces of {array.path} are not there, which would "
                        f"be read as zeros. Copy it again from where it came."
                    )
        elif name not in SHARED:
            _check_pieces(group, path)


def _assembled(root: Any, read_modality: Callable[[Any], AnnData]) -> MuData:
    names = list(root["mod"])
    written = [str(name) for name in root["mod"].attrs.get("mod-order", names)]  # in the order of the MuData
    with without_pulling():
        modalities = {
            name: read_modality(root["mod"][name]) for name in (written if sorted(written) == sorted(names) else names)
        }
        shared = {name: read_elem(root[name]) for name in SHARED if name in root}
        return mudata_of(modalities, {**shared, "axis": int(root.attrs.get("axis", 0))})


def convert_mudata(source: str | os.PathLike[str], target: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a MuData again as zarr, in chunks suited to reading a few cells at a time.

    ``X``, layers and ``raw`` are copied a block of rows at a time; only those that are stored by columns (CSC) are read
    whole, as is everything else, and become CSR. Dense matrices with more zeros than values become sparse.

    Parameters
    ----------
    source
        ``.h5mu`` or ``.zarr``.
    target
        ``.zarr``; it appears only once it is complete.
    overwrite
        Replace ``target`` if it is a MuData or an AnnData as zarr; nothing else is ever replaced.

    Returns
    -------
    ``target``.

    Raises
    ------
    ScmambaError
        ``target`` exists or cannot be used, or ``source`` cannot be read.

    Examples
    --------
    >>> data.convert_mudata("cells.h5mu", "cells.zarr", overwrite=True).name
    'cells.zarr'
    """
    source, target = Path(source), Path(target)
    if target.suffix != ".zarr":
        raise ScmambaError(
            f"The result is a zarr folder: call it {target.with_suffix('.zarr').name}, not {target.name}."
        )
    if os.path.lexists(target) and not _is_store(target):
        raise ScmambaError(f"{target} is no MuData or AnnData stored as zarr: choose another name, or remove it.")
    if target.exists() and (not overwrite or target.resolve() == source.resolve()):
        raise ScmambaError(
            f"{target} exists: choose another name" + ("." if overwrite else f", or pass {written('overwrite', True)}.")
        )
    with contextlib.ExitStack() as stack:
        from_root = stack.enter_context(_opened(source, "r"))
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = stack.enter_context(temporary_folder(target.parent))
        with explained(f"{source} cannot be converted to {target}"):
            new = zarr.open_group(folder / "new", mode="w", zarr_format=2)
            if (folder / "NEW").exists():  # as on macOS and Windows
                _check_case(from_root)
            _copy(from_root, new)
        with explained(f"{target} cannot be replaced"):
            _put_in_place(folder / "new", target, folder / "old")
    return target


def _check_case(group: Any) -> None:
    """Raise if two names in a group differ in case only: as folders that have no case, one would replace the other."""
    known: dict[str, str] = {}
    for name in group:
        if other := known.get(name.lower()):
            raise ScmambaError(
                f"{other!r} and {name!r} of {group.name} differ in case only, and this disk does not tell them apart: rename one, "
                f"or choose another disk."
            )
        known[name.lower()] = name
        if hasattr(group[name], "keys"):
            _check_case(group[name])


def _put_in_place(new: Path, target: Path, old: Path) -> None:
    """Move a folder to ``target``, and what is there to ``old``; after an error or Ctrl-C, that is back."""
    try:
        if target.exists():
            os.replace(target, old)
        os.replace(new, target)
    except BaseException:
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise


def write_obsm(path: str | os.PathLike[str], key: str, values: np.ndarray, *, obs_names: Any) -> None:
    """Add a matrix with a row per cell to ``obsm`` of a MuData in a file; nothing else of the file is written.

    Parameters
    ----------
    path
        ``.h5mu`` or ``.zarr``. A ``.h5mu`` must not be open. First drop the MuData of `open_mudata`: of data that were set up,
        ``model.deregister_manager(mdata)``, then ``del mdata, model``. Where the process is killed meanwhile, a ``.h5mu`` may
        be damaged, a ``.zarr`` is not.
    key
        Name in ``obsm``, such as ``"X_scmamba"``; what has this name is replaced.
    values
        ``(n_cells, z)``.
    obs_names
        Name of the cell of each row, in any order; they are compared with those of the file.

    Raises
    ------
    ScmambaError
        The cells are not those of the file, the file cannot be written, or ``key`` or ``values`` cannot be used.

    Examples
    --------
    >>> path = data.convert_mudata("cells.h5mu", "cells.zarr", overwrite=True)
    >>> joint = model.get_latent_representation()
    >>> data.write_obsm(path, "X_scmamba", joint, obs_names=mdata.obs_names)
    """
    values, names = np.asarray(values), pd.Index(obs_names)
    if not isinstance(key, str) or not key or "/" in key:  # a path within the file
        raise ScmambaError(f"key must be text without a slash, such as 'X_scmamba'; got {key!r}.")
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise ScmambaError(
            f"values must be a matrix of numbers (n cells, z); got {values.dtype} of shape {values.shape}."
        )
    check_is_there(path := Path(path))
    gc.collect()  # a MuData that was dropped refers to itself, and would keep a .h5mu open
    what = "cannot be changed" if path.is_dir() else "could not be changed to the end, and may be damaged"
    with explained(f"{path} {what}"), _opened(path, "r+") as root:
        if key in root["mod"]:
            raise ScmambaError(f"key {key!r} is a modality, whose cells obsm[{key!r}] marks: choose another name.")
        known = read_elem(root["obs"]).index
        if len(values) != len(names):
            raise ScmambaError(f"{len(values):,} rows of values for {len(names):,} names of cells.")
        rows = names.get_indexer(known) if names.is_unique else None
        if rows is None or len(names) != len(known) or (rows < 0).any():
            raise ScmambaError(
                f"The cells are not those of {path}: {len(names):,} names for {len(known):,} cells, "
                f"{len(names.intersection(known)):,} of them the same."
            )
        _put_into_obsm(root, path, key, np.ascontiguousarray(values[rows]))
        _consolidate_again(path)


def _put_into_obsm(root: Any, path: Path, key: str, values: np.ndarray) -> None:
    """Write an entry of ``obsm``. Of a zarr, where it is a folder, it is complete before it is there."""
    obsm = root.require_group("obsm")
    if not path.is_dir():
        try_writing(values, path)
        write_elem(obsm, key, values)
        return
    with temporary_folder(path) as folder:
        write_elem(zarr.open_group(folder, mode="w", zarr_format=root.metadata.zarr_format), "new", values)
        _put_in_place(folder / "new", path / "obsm" / key, folder / "old")


def _is_store(path: Path) -> bool:
    """Whether a folder is a MuData or an AnnData as zarr, and holds nothing else."""
    if path.is_symlink() or not path.is_dir():
        return False
    try:
        kind = zarr.open_group(path, mode="r").attrs.get("encoding-type")
    except (OSError, ValueError, KeyError):
        return False
    known = {"mod", "X", "layers", "raw", "zarr.json", ".zgroup", ".zattrs", ".zmetadata", *SHARED}
    return kind in ("MuData", "anndata") and {file.name for file in path.iterdir()} <= known


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str], mode: Literal["r", "r+"]) -> Iterator[Any]:
    """`_open` for the time of the block."""
    root = _open(path, mode)
    try:
        yield root
    finally:
        if hasattr(root, "close"):  # zarr's groups have nothing to close
            root.close()


def _open(path: str | os.PathLike[str], mode: Literal["r", "r+"]) -> Any:
    """Root of the file, an h5py or a zarr group."""
    path = Path(path)
    check_is_there(path)
    what = "cannot be read: it is being written, damaged, or neither .h5mu nor .zarr"
    with explained(
        f"{path} {what if mode == 'r' else 'cannot be written: it is open elsewhere, read-only, or damaged'}"
    ):
        # consolidated metadata would not show what is written, and anndata refuses to write where they are read
        consolidated = None if mode == "r" else False  # None: if there are
        root = _open_zarr(path, mode, use_consolidated=consolidated) if path.is_dir() else h5py.File(path, mode)
        if "mod" not in root or "obs" not in root:
            raise ScmambaError(f"{path} is not a MuData: it has no group 'mod' or 'obs'.")
    if path.is_dir():
        _check_pieces(root, path)
    return root


def _open_zarr(path: Path, mode: Literal["r", "r+"], **options: Any) -> Any:
    """Root of a zarr, which is found whatever folder the process works in later."""
    return zarr.open_group(_Folder(path.absolute(), read_only=mode == "r"), mode=mode, **options)


class _Folder(zarr.storage.LocalStore):
    """A folder that must not vanish while it is read, as with its drive: zarr reads what it does not find as zeros."""

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        """Content of a piece, None where it is not there; raises where nothing is."""
        found = await super().get(*args, **kwargs)
        if found is None and not self.root.exists():
            raise ScmambaError(f"{self.root} is not there any more: it was moved or deleted, or its drive is gone.")
        return found


def _consolidate_again(path: Path) -> None:
    """Bring the consolidated metadata of a zarr, if it has them, up to date with what was written."""
    if path.is_dir() and zarr.open_group(path, mode="r").metadata.consolidated_metadata is not None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")  # of zarr 3, as before
            zarr.consolidate_metadata(path)


def _left_on_disk(element: Any) -> Any:
    """A sparse matrix as anndata's reader of slices, a dense one as the array of the file."""
    return sparse_dataset(element) if is_sparse(element) else element


def _open_modality(group: Any) -> AnnData:
    layers = {name: _left_on_disk(group["layers"][name]) for name in group["layers"]} if "layers" in group else {}
    parts = {name: read_elem(group[name]) for name in ("obs", "var", "obsm", "varm", "uns") if name in group}
    x = _left_on_disk(group["X"]) if "X" in group and not _is_none(group["X"]) else None
    return AnnData(X=x, layers=layers, **parts)


def _is_none(element: Any) -> bool:
    """Whether a file says that there is no ``X``, as where all counts are in layers."""
    return element.attrs.get("encoding-type") == "null"


def _copy(source: Any, target: Any, inside: str = "") -> None:
    """Copy a MuData, a modality or, ``inside`` one, its ``mod``, ``layers`` or ``raw``; matrices a block of rows at a time."""
    for name in source:
        element = source[name]
        if inside == "mod" or (not inside and name in ("mod", "layers", "raw")):
            _copy(element, target.require_group(name), "" if inside else name)
        elif name == "X" and _is_none(element):
            continue  # a modality without X is read likewise, by older releases too
        elif inside == "layers" or name == "X":
            write_rows(target, name, row_blocks(element))
        else:
            write_elem(target, name, read_elem(element))
    # as JSON can hold them: HDF5 gives arrays and numpy's numbers
    target.attrs.update({k: v if isinstance(v, str) else np.asarray(v).tolist() for k, v in dict(source.attrs).items()})
