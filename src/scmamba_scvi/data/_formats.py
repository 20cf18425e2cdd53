"""What one path holds: the format is recognised by what is in it, and read by the package whose format it is."""

import gzip
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Final

import anndata
import h5py
from anndata import AnnData
from mudata import MuData

from .._compat import explained
from .._files import check_is_there, is_zarr
from ..errors import ScmambaError
from ._cell_ranger import FEATURE_TABLES, genomes_of, holds_mtx, only_table_in, read_h5, read_mtx
from ._on_disk import read_whole

#: How many times smaller an array may be stored than it is: deflate reaches 1,030.
MAX_COMPRESSION: Final = 1100
#: Numbers of the filters of HDF5 that this holds for: deflate, shuffle, checksums, lzf. Others, such as zstd, have no limit.
LIMITED_FILTERS: Final = frozenset({1, 2, 3, 32000})
#: Arrays up to this size in bytes are read without a look at how they are stored.
MAX_UNCHECKED_BYTES: Final = 1 << 26
#: First bytes of what gzip compressed, and of HDF5.
GZIP: Final = b"\x1f\x8b"
HDF5: Final = b"\x89HDF\r\n\x1a\n"
#: What errors say can be read.
READABLE: Final = ".h5mu, .zarr, .h5ad, Cell Ranger's .h5 or its folder with matrix.mtx.gz"
#: What others write, and how to get from there to a file that can be read here: from the end of a name to what it is and how.
ELSEWHERE: Final = {
    ".rds": (
        "an R object (Seurat or SingleCellExperiment)",
        "in R, MuDataSeurat's WriteH5MU(object, 'cells.h5mu') writes a MuData; zellkonverter or anndataR write .h5ad",
    ),
    ".qs": ("an R object", "in R, MuDataSeurat's WriteH5MU(object, 'cells.h5mu') writes a MuData"),
    ".rdata": ("a file of R objects", "in R, load it, and write a Seurat object with MuDataSeurat's WriteH5MU"),
    ".arrow": (
        "a file of ArchR",
        "in R, zellkonverter's writeH5AD writes .h5ad of what getMatrixFromProject(project, 'PeakMatrix') gives",
    ),
    ".h5ads": ("an AnnDataSet of SnapATAC2", "its to_adata() makes an AnnData, for .write_h5ad('atac.h5ad')"),
    ".h5seurat": ("SeuratDisk's format", "in R, load it with LoadH5Seurat and write a MuData with MuDataSeurat's WriteH5MU"),
    "fragments.tsv": (
        "fragments, not counts",
        "count them in peaks first, with SnapATAC2 (make_peak_matrix), muon (atac.tl.count_fragments_features) or Signac",
    ),
    ".loom": ("a loom file", "anndata.io.read_loom reads it; put each modality into mudata.MuData({'rna': ..., 'atac': ...})"),
}  # fmt: skip


def read_file(path: Path) -> MuData | AnnData:
    """What one path holds, read by the package whose format it is."""
    check_is_there(path)
    for ending, (what, way) in ELSEWHERE.items():
        if path.name.lower().removesuffix(".gz").endswith(ending):
            raise ScmambaError(f"{path} is {what}, which is not read here: {way}.")
    with explained(f"{path} cannot be read: it is being written, cut off or damaged"):
        return _read_folder(path) if path.is_dir() else _read_hdf5(path)


def _read_hdf5(path: Path) -> MuData | AnnData:
    # HDF5 may begin later in a file, so that h5py finds the first one in an archive
    if not h5py.is_hdf5(path) or _is_tar(path):
        raise ScmambaError(f"{path} {what_is_no_hdf5(path)}.")
    check_declared_sizes(path)
    with h5py.File(path, "r") as file:
        parts, is_typed, genomes = set(file), "encoding-type" in file.attrs, genomes_of(file)
    if "mod" in parts or (is_typed and {"obs", "var"} <= parts):
        return read_whole(path)
    if {"obs", "var"} <= parts:  # before anndata 0.8
        return anndata.io.read_h5ad(path)
    if "matrix" in parts or genomes:
        return read_h5(path, genomes)
    raise ScmambaError(f"{path} is an HDF5 file with {sorted(parts)[:5]}, which is none of the known: {READABLE}.")


def what_is_no_hdf5(path: Path) -> str:
    """What a file is that cannot be read as it is, and what to do."""
    name = path.name.lower().removesuffix(".gz")
    if name in ("matrix.mtx", "barcodes.tsv", *FEATURE_TABLES):
        return f"is one of three files of Cell Ranger: pass their folder, {path.parent}"
    if _is_tar(path) or zipfile.is_zipfile(path):
        return "is an archive: unpack it first, and pass the file or folder of counts that was in it"
    if _is_gzip_of_hdf5(path):
        return "is compressed: gunzip it first, and pass the file that comes out"
    if name.endswith((".csv", ".tsv", ".txt")):
        tab = "" if name.endswith(".csv") else ", delimiter='\\t'"
        return (
            f"is not a file of counts that can be read here: {READABLE}. If it is a table of genes times cells, "
            f"anndata.io.read_csv({str(path)!r}{tab}, first_column_names=True).T is an AnnData of it, for .write_h5ad('rna.h5ad')"
        )
    return f"is not a file of counts that can be read here: {READABLE}"


def _is_tar(path: Path) -> bool:
    try:
        with tarfile.open(path) as archive:  # of any compression
            return archive.next() is not None  # a file of zeros passes for an empty archive
    except tarfile.TarError:
        return False


def _is_gzip_of_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(len(GZIP)) != GZIP:
            return False
    with gzip.open(path) as inside:
        return HDF5 in inside.read(1024)  # a .h5mu has 512 bytes before it


def _read_folder(path: Path) -> MuData | AnnData:
    if is_zarr(path):
        return read_whole(path)
    if holds_mtx(path):
        return read_mtx(path)
    if table := only_table_in(path):
        return read_file(table)
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


def check_declared_sizes(path: Path) -> None:
    """Refuse an HDF5 file that declares a huge array and stores almost nothing: reading it would fill the memory."""

    def check(name: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset) or not item.shape:
            return
        made = item.id.get_create_plist()
        if not LIMITED_FILTERS.issuperset(made.get_filter(i)[0] for i in range(made.get_nfilters())):
            return
        declared, stored = item.size * item.dtype.itemsize, item.id.get_storage_size()
        if declared > MAX_COMPRESSION * stored + MAX_UNCHECKED_BYTES:
            raise ScmambaError(
                f"{path} is damaged or forged: its array {name!r} declares {declared:,} bytes and stores {stored:,}."
            )

    with h5py.File(path, "r") as file:
        file.visititems(check)
