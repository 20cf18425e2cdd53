"""A public data set, downloaded once and kept."""

import os
from pathlib import Path
from typing import Any, Final, Literal, get_args

import h5py
import numpy as np
import pooch
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset
from mudata import MuData

from .._arguments import check_count
from .._compat import explained, without_pulling
from .._files import check_is_there, unfinished_path
from ..errors import ScmambaError, UnknownNameError
from ._formats import what_is_no_hdf5
from ._read import read

#: Bone marrow of the NeurIPS 2021 challenge, GEO GSE194122; no checksum is published.
BONE_MARROW_URL: Final = (
    "https://ftp.ncbi.nlm.nih.gov/geo/series/GSE194nnn/GSE194122/suppl/"
    "GSE194122_openproblems_neurips2021_{assay}_BMMC_processed.h5ad.gz"
)
#: Columns of ``obs`` that are kept, and their names here.
BONE_MARROW_COLUMNS: Final = {"cell_type": "cell_type", "batch": "batch", "Site": "site", "DonorID": "donor"}
Assay = Literal["multiome", "cite"]


def fetch_bone_marrow(
    assay: Assay = "multiome",
    path: str | os.PathLike[str] | None = None,
    *,
    n_cells: int | None = 5_000,
) -> MuData:
    """Human bone marrow with cell types, of 10 donors at 4 sites: the data of the notebooks (GEO GSE194122).

    Parameters
    ----------
    assay
        ``"multiome"``, RNA and accessibility, a download of 2.7 GB; or ``"cite"``, RNA and proteins, 0.6 GB.
    path
        The file, if it was downloaded by hand and unpacked, or a folder that is there, to keep it in. None: the user's
        cache folder; where the variable ``SCMAMBA_DATA`` names a folder with ``bmmc_multiome_5k`` and ``bmmc_cite_5k``, the
        sets of the benchmarks, these are read instead.
    n_cells
        So many cells, drawn at random, the same in each call; other cells are not read. None: all, about 70,000 and 90,000.

    Returns
    -------
    MuData of raw counts, with ``cell_type``, ``batch``, ``site`` and ``donor`` in ``obs``.

    Raises
    ------
    ScmambaError
        The file cannot be downloaded; the message says where to get it and where to put it. Or ``path`` is not there, or
        another file, or the sets of the benchmarks have fewer than ``n_cells``.
    UnknownNameError
        No such ``assay``.

    Notes
    -----
    The publisher names no checksum, so the download is not verified.

    Examples
    --------
    >>> mdata = data.fetch_bone_marrow("cite")  # doctest: +SKIP
    """
    if assay not in get_args(Assay):
        raise UnknownNameError("assay", assay, get_args(Assay))
    if n_cells is not None:
        check_count("n_cells", n_cells)
    if path is None and (folder := os.environ.get("SCMAMBA_DATA")):
        of_benchmarks = Path(folder) / f"bmmc_{assay}_5k" / f"bmmc_{assay}_5k.h5mu"
        if of_benchmarks.is_file():
            return _drawn(read(of_benchmarks), n_cells, of_benchmarks)
    downloaded = _downloaded(BONE_MARROW_URL.format(assay=assay), path)
    if not h5py.is_hdf5(downloaded):
        raise ScmambaError(f"{downloaded} {what_is_no_hdf5(downloaded)}.")
    with explained(f"{downloaded} is not the file of GEO, or damaged"), h5py.File(downloaded, "r") as file:
        counts = sparse_dataset(file["layers/counts"])  # X holds normalised values
        rows: Any = slice(None)
        if n_cells is not None and n_cells < counts.shape[0]:
            rows = _rows(counts.shape[0], n_cells)
        obs = read_elem(file["obs"])[list(BONE_MARROW_COLUMNS)].rename(columns=BONE_MARROW_COLUMNS)
        return read(AnnData(counts[rows], obs=obs.iloc[rows], var=read_elem(file["var"])[["feature_types"]]))


def _drawn(mdata: MuData, n_cells: int | None, path: Path) -> MuData:
    """So many cells of a set of the benchmarks, drawn as those of a download."""
    if n_cells is None or n_cells == mdata.n_obs:
        return mdata
    if n_cells > mdata.n_obs:
        raise ScmambaError(
            f"n_cells={n_cells:,} are more than the {mdata.n_obs:,} of {path}: ask for fewer, or pass path=, a folder for the "
            f"download of all."
        )
    with without_pulling():
        return mdata[_rows(mdata.n_obs, n_cells)].copy()


def _rows(n: int, n_cells: int) -> np.ndarray:
    """Sorted positions of cells drawn at random, the same in each call."""
    return np.sort(np.random.default_rng(0).permutation(n)[:n_cells])


def _downloaded(url: str, path: str | os.PathLike[str] | None) -> Path:
    """The file of ``url``, unpacked, which is downloaded where it is not there yet."""
    folder = Path(pooch.os_cache("scmamba-scvi") if path is None else path)
    if path is not None:
        check_is_there(folder)  # a name with a mistake must not become a folder with gigabytes
    packed = url.rpartition("/")[2]
    file = folder if folder.is_file() else folder / packed.removesuffix(".gz")
    if not file.is_file():
        part = unfinished_path(file)  # until all of it is unpacked; each process has its own
        part.unlink(missing_ok=True)
        try:
            # no network, no space, no such folder
            with explained(
                f"{packed} could not be downloaded. Download {url} by hand and unpack it, and put it at {file}, or pass "
                f"path='the/downloaded/file'"
            ):
                pooch.retrieve(url, None, fname=packed, path=folder, processor=pooch.Decompress(name=part.name))
                os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)
    return file
