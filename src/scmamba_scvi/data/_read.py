"""Any file that a lab has, as a MuData: recognised by what is in it, read by scanpy, anndata or mudata, and checked."""

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique
from mudata import MuData
from scipy import sparse

from .._compat import reason_of, without_pulling
from .._files import check_is_there
from .._keys import FEATURE_TYPES, KINDS, kind_of_key
from ..errors import ScmambaError
from ._on_disk import read_whole

#: How many times smaller an array may be stored than it is: deflate, the strongest of HDF5's usual filters, reaches 1,030.
MAX_COMPRESSION: Final = 1100
#: Arrays up to this size in bytes are read without a look at how they are stored.
MAX_UNCHECKED_BYTES: Final = 1 << 26
#: What errors say can be read.
READABLE: Final = ".h5mu, .zarr, .h5ad, Cell Ranger's .h5 or its folder with matrix.mtx.gz"
#: Columns of ``var`` that may hold the type of a feature.
TYPE_COLUMNS: Final = ("feature_types", "feature_type", "modality")
#: Parts of a name in ``obsm`` that say its columns are counts of proteins.
PROTEIN_WORDS: Final = ("protein", "antibody", "adt")
#: What others write, and how to get from there to a file that can be read here. From the end of a name to what it is and the way.
ELSEWHERE: Final = {
    ".rds": (
        "an R object (Seurat or SingleCellExperiment)",
        "in R, MuDataSeurat's WriteH5MU(object, 'cells.h5mu') writes a MuData; zellkonverter or anndataR write .h5ad",
    ),
    ".qs": ("an R object", "in R, MuDataSeurat's WriteH5MU(object, 'cells.h5mu') writes a MuData"),
    ".h5seurat": ("SeuratDisk's format", "in R, load it with LoadH5Seurat and write a MuData with MuDataSeurat's WriteH5MU"),
    "fragments.tsv.gz": (
        "fragments, not counts",
        "count them in peaks first, with SnapATAC2 (make_peak_matrix), muon (atac.tl.count_fragments_features) or Signac",
    ),
    "fragments.tsv": ("fragments, not counts", "count them in peaks first, with SnapATAC2, muon or Signac"),
    ".loom": ("a loom file", "anndata.io.read_loom reads it; put each modality into mudata.MuData({'rna': ..., 'atac': ...})"),
}  # fmt: skip


def read(paths: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]] | AnnData) -> MuData:
    """Any file of counts in several modalities, as a MuData.

    What a file is follows from its content:

    - ``.h5mu``, and ``.zarr`` that holds a MuData;
    - the ``.h5`` of Cell Ranger (Multi, Count with antibodies, ARC), and its folder of ``matrix.mtx.gz``, ``features.tsv.gz``
      and ``barcodes.tsv.gz``; also the folder ``outs`` in which these lie;
    - ``.h5ad`` or ``.zarr`` of an AnnData whose ``var["feature_types"]`` tells the modality of each feature, or whose ``obsm``
      holds the counts of proteins;
    - several files of one modality each, with their names: ``read({"rna": "rna.h5ad", "atac": "atac.h5ad"})``.

    Parameters
    ----------
    paths
        A path; or a dict from modality to path. An AnnData that is in memory is taken as one from a file, and stays as it is.

    Returns
    -------
    One modality per type of feature: ``"rna"``, ``"atac"`` and ``"protein"``, others under the name of their type. Counts are as
    the file has them, sparse float16 as float32; ``var`` has the coordinates of the file. Features of one name within a modality
    are numbered.

    Raises
    ------
    ScmambaError
        There is no such file, it is damaged, of another format (the message names the way to convert it), or of one modality.

    Examples
    --------
    >>> scmamba_scvi.read("cells.h5mu").n_obs
    300
    >>> mdata["rna"].write_h5ad("rna.h5ad")
    >>> mdata["atac"].write_h5ad("atac.h5ad")
    >>> list(scmamba_scvi.read({"rna": "rna.h5ad", "atac": "atac.h5ad"}).mod)
    ['rna', 'atac']
    """
    if isinstance(paths, Mapping):
        return _assembled({str(name): _one_modality(Path(path), str(name)) for name, path in paths.items()})
    if isinstance(paths, AnnData):
        if paths.isbacked:
            return _split(paths.to_memory(), Path("adata"))
        return _split(paths, Path("adata"), is_users=True)
    if not isinstance(paths, str | os.PathLike):
        raise ScmambaError(
            f"read takes a path, or a dict from modality to path, read({{'rna': ..., 'atac': ...}}); got {paths!r}."
        )
    found = _read_one(Path(paths))
    return found if isinstance(found, MuData) else _split(found, Path(paths))


def _read_one(path: Path) -> MuData | AnnData:
    """What one path holds, read by the package whose format it is."""
    check_is_there(path)
    for ending, (what, way) in ELSEWHERE.items():
        if path.name.lower().endswith(ending):
            raise ScmambaError(f"{path} is {what}, which is not read here: {way}.")
    try:
        return _read_folder(path) if path.is_dir() else _read_file(path)
    except ScmambaError:
        raise
    except Exception as error:
        # h5py, zarr, anndata, mudata and scanpy raise a dozen types of errors for files that are cut off or hold something else
        reason = reason_of(error)
        raise ScmambaError(f"{path} cannot be read, it may be cut off or damaged: {reason}") from error


def _read_file(path: Path) -> MuData | AnnData:
    if not h5py.is_hdf5(path):
        if path.name in ("matrix.mtx", "matrix.mtx.gz"):
            raise ScmambaError(f"{path} is one of three files of Cell Ranger: pass their folder, {path.parent}.")
        raise ScmambaError(f"{path} is not a file of counts that can be read here: {READABLE}.")
    check_declared_sizes(path)
    with h5py.File(path, "r") as file:
        parts, is_typed = set(file), "encoding-type" in file.attrs
    if "mod" in parts or (is_typed and {"obs", "var"} <= parts):
        return read_whole(path)
    if {"obs", "var"} <= parts:  # before anndata 0.8
        return anndata.io.read_h5ad(path)
    if "matrix" in parts:
        import scanpy as sc

        with warnings.catch_warnings(action="ignore", category=UserWarning):  # names repeat; `_parts_of` numbers them
            return sc.read_10x_h5(path, gex_only=False)
    raise ScmambaError(f"{path} is an HDF5 file with {sorted(parts)[:5]}, which is none of the known: {READABLE}.")


def _read_folder(path: Path) -> MuData | AnnData:
    if (path / ".zgroup").exists() or (path / "zarr.json").exists():
        return read_whole(path)
    if any((path / name).exists() for name in ("matrix.mtx.gz", "matrix.mtx")):
        return _read_mtx(path)
    # the folder that Cell Ranger calls outs
    for inside in ("filtered_feature_bc_matrix.h5", "filtered_feature_bc_matrix"):
        if (path / inside).exists():
            return _read_one(path / inside)
    prefixed = [file.name for file in sorted(path.iterdir()) if re.search(r".[._-]matrix\.mtx(\.gz)?$", file.name)]
    if prefixed:
        prefix = prefixed[0][: prefixed[0].rindex("matrix.mtx")]
        raise ScmambaError(
            f"{path} has {prefixed[0]}, with something before Cell Ranger's name, as GEO puts it there. Put the three files of "
            f"each sample into a folder of their own, and take {prefix!r} off their names: matrix.mtx.gz, barcodes.tsv.gz, "
            f"features.tsv.gz."
        )
    raise ScmambaError(
        f"{path} is a folder without matrix.mtx.gz, and no .zarr: it has {sorted(f.name for f in path.iterdir())[:5]}. "
        f"Pass a file or a folder of counts: {READABLE}."
    )


def _read_mtx(path: Path) -> AnnData:
    """A folder of Cell Ranger; ARC writes the place of each feature into the fourth to sixth column."""
    import scanpy as sc

    with warnings.catch_warnings(action="ignore", category=UserWarning):  # names repeat; `_parts_of` numbers them
        adata = sc.read_10x_mtx(path, gex_only=False)
    adata.X = sparse.csr_matrix(adata.X)
    table = next(path / name for name in ("features.tsv.gz", "features.tsv", "genes.tsv") if (path / name).exists())
    columns = pd.read_csv(table, sep="\t", header=None, dtype={3: str})
    if columns.shape[1] >= 6:
        adata.var["chrom"] = columns[3].fillna("").to_numpy()
        for name, column in (("start", 4), ("end", 5)):
            adata.var[name] = columns[column].fillna(-1).astype(np.int64).to_numpy()
    return adata


def _one_modality(path: Path, name: str) -> AnnData:
    """The modality ``name`` of a file, or the only one that it holds."""
    found = _read_one(path)
    parts = dict(found.mod) if isinstance(found, MuData) else _parts_of(found)
    if name not in parts and len(parts) != 1:
        raise ScmambaError(f"{path} holds {list(parts)}: pass it alone, read({str(path)!r}), or name one of these.")
    only = name if name in parts else next(iter(parts))
    if only in KINDS and (_kind_of_name(name) or only) != only:
        raise ScmambaError(f"{path} holds {only}, and is named {name!r}: were the names of two files swapped?")
    return parts[only]


def _split(adata: AnnData, path: Path, *, is_users: bool = False) -> MuData:
    parts = _parts_of(adata, is_users=is_users)
    if len(parts) > 1:
        return _assembled(parts)
    (name,) = parts
    is_10x = path.suffix == ".h5" or path.is_dir() and "zarr" not in path.suffix
    what = "a 10x (Cell Ranger) file" if is_10x else "an AnnData"
    holds = f"{name} only" if name else "one modality (var has no 'feature_types', obsm no proteins)"
    kind, other = name or "rna", "atac" if name in ("", "rna") else "rna"
    raise ScmambaError(
        f"{path} is {what} with {holds}, and at least two modalities are needed. Name the file of each, "
        f"read({{{kind!r}: {str(path)!r}, {other!r}: '...'}}), or make a MuData of them, mudata.MuData({{'rna': ..., 'atac': ...}})."
    )


def _parts_of(adata: AnnData, *, is_users: bool = False) -> dict[str, AnnData]:
    """An AnnData by the types of its features, with the proteins that its ``obsm`` holds; ``""`` for a type that is not known.

    A single type is ``adata`` itself, its features numbered, unless it ``is_users``, which stays as it is.
    """
    columns = (adata.var[name].astype(str) for name in TYPE_COLUMNS if name in adata.var)
    # a column of that name may hold others than types of features, such as the biotypes of genes
    types = next((c for c in columns if any(map(_kind_of_type, c.unique()))), pd.Series("", index=adata.var_names))
    parts: dict[str, AnnData] = {}
    kinds = {value: _kind_of_type(value) or value for value in types.unique()}
    for value, name in kinds.items():
        if name in parts:
            alike = " and ".join(repr(other) for other, kind in kinds.items() if kind == name)
            raise ScmambaError(
                f"Features of types {alike} both look like {name}: leave out those of one, or make a MuData with a modality "
                f"for each."
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)  # yet
            part = adata if len(kinds) == 1 else adata[:, (types == value).to_numpy()]
            parts[name] = part.copy() if part.is_view or is_users else part
        # a gene and a protein may share a name, two genes may not
        parts[name].var_names = make_index_unique(parts[name].var_names)
    proteins = [key for key in adata.obsm if any(word in key.lower() for word in PROTEIN_WORDS)]
    if proteins and "protein" not in parts:
        if len(proteins) > 1:
            raise ScmambaError(f"Several entries of obsm may hold counts of proteins, {proteins}: leave one of them.")
        if "" in parts:
            parts["rna"] = parts.pop("")
        parts["protein"] = _proteins(adata, proteins[0])
    return parts


def _proteins(adata: AnnData, key: str) -> AnnData:
    """Proteins of ``obsm[key]`` as a modality; a table has their names, an array has them in ``uns``."""
    values = adata.obsm[key]
    if isinstance(values, pd.DataFrame):
        names = values.columns.astype(str)
        values = values.to_numpy()
    else:
        known = [adata.uns[k] for k in (f"{key}_names", "protein_names") if k in adata.uns]
        if not known or len(known[0]) != values.shape[1]:
            raise ScmambaError(
                f"obsm[{key!r}] holds {values.shape[1]} proteins without names: make it a pandas DataFrame with the names as "
                f"columns, or put the names into uns['protein_names']."
            )
        names = pd.Index(np.asarray(known[0]).astype(str))
    return AnnData(sparse.csr_matrix(values), obs=pd.DataFrame(index=adata.obs_names), var=pd.DataFrame(index=names))


def _assembled(modalities: Mapping[str, AnnData]) -> MuData:
    """MuData of the modalities, kinds that are known first and in their order."""
    order: list[str] = [kind for kind in KINDS if kind in modalities]
    order += [name for name in modalities if name not in order]
    with without_pulling():
        return MuData({name: modalities[name] for name in order})


def _kind_of_type(name: str) -> str | None:
    """Kind that a type of features stands for."""
    return FEATURE_TYPES.get(name) or kind_of_key(name)


def _kind_of_name(name: str) -> str | None:
    """Kind that a name, or a word of it, stands for."""
    return next((kind for word in (name, *re.split("[._-]", name)) if (kind := kind_of_key(word))), None)


def check_declared_sizes(path: Path) -> None:
    """Refuse an HDF5 file that declares a huge array and stores almost nothing: reading it would fill the memory."""

    def check(name: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset) or not item.shape:
            return
        declared, stored = item.size * item.dtype.itemsize, item.id.get_storage_size()
        if declared > MAX_COMPRESSION * stored + MAX_UNCHECKED_BYTES:
            raise ScmambaError(
                f"{path} is damaged or forged: its array {name!r} declares {declared:,} bytes and stores {stored:,}."
            )

    with h5py.File(path, "r") as file:
        file.visititems(check)
