"""Public data sets, downloaded once and kept, and a reader of the files that 10x Genomics publishes them in."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Final

import h5py
from mudata import MuData

from .._compat import without_pulling
from .._keys import FEATURE_TYPES
from ..errors import ScmambaError

#: PBMC from a healthy donor, granulocytes removed, 10x Multiome (10x Genomics, CC BY 4.0); no checksum is published.
PBMC_URL: Final = (
    "https://cf.10xgenomics.com/samples/cell-arc/2.0.0/pbmc_granulocyte_sorted_10k/"
    "pbmc_granulocyte_sorted_10k_filtered_feature_bc_matrix.h5"
)


def fetch_pbmc_multiome(path: str | os.PathLike[str] | None = None) -> MuData:
    """About 12,000 PBMC with RNA and accessibility, published by 10x Genomics; no labels.

    Parameters
    ----------
    path
        The file, if it was downloaded by hand, or the folder to keep it in. None: the user's cache folder.

    Returns
    -------
    MuData with modalities ``rna`` and ``atac``, see :func:`read_10x_multiome`.

    Raises
    ------
    ScmambaError
        The file is not there and cannot be downloaded; the message says where to get it and where to put it.

    Notes
    -----
    The publisher names no checksum, so the download is not verified.

    Examples
    --------
    >>> mdata = data.fetch_pbmc_multiome()  # doctest: +SKIP
    """
    import pooch

    folder = Path(pooch.os_cache("scmamba-scvi") if path is None else path)
    file = folder if folder.is_file() else folder / PBMC_URL.rpartition("/")[2]
    if not file.is_file():
        try:
            pooch.retrieve(PBMC_URL, None, fname=file.name, path=folder)
        except (OSError, ValueError) as error:  # no network, no space, no such folder
            raise ScmambaError(
                f"The PBMC of 10x Genomics could not be downloaded: {error}. Download {PBMC_URL} by hand and put it at "
                f"{file}, or pass path='the/downloaded/file.h5'."
            ) from error
    return read_10x_multiome(file)


def read_10x_multiome(path: str | os.PathLike[str]) -> MuData:
    """MuData from a ``filtered_feature_bc_matrix.h5`` with several feature types (Cell Ranger 3 or later, or ARC).

    Returns
    -------
    One modality per feature type, ``rna``, ``atac`` and ``protein``, others under their own names. Counts are float32
    CSR; ``var`` holds ``gene_ids``, ``feature_types`` and, where the file has them, ``genome`` and ``interval``
    (``chr1:100-200``). Names that occur twice are numbered.

    Raises
    ------
    ScmambaError
        The file is missing, or is not such a file.

    Examples
    --------
    >>> mdata = data.read_10x_multiome("filtered_feature_bc_matrix.h5")  # doctest: +SKIP
    """
    import scanpy as sc

    path = Path(path)
    if not path.is_file():
        raise ScmambaError(f"There is no file {path}.")
    if not h5py.is_hdf5(path):
        raise ScmambaError(f"{path} is not an HDF5 file; expected the filtered_feature_bc_matrix.h5 of Cell Ranger.")
    with h5py.File(path) as file:
        if not ("matrix/features" in file and "matrix/barcodes" in file):
            raise ScmambaError(
                f"{path} has no group 'matrix' with features and barcodes, it has {sorted(file)}; expected "
                f"the filtered_feature_bc_matrix.h5 of Cell Ranger 3 or later."
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that occur twice are numbered here
        cells = sc.read_10x_h5(path, gex_only=False)
    modalities = {}
    for feature_type in cells.var["feature_types"].unique():
        adata = cells[:, cells.var["feature_types"] == feature_type].copy()
        adata.var_names_make_unique()
        modalities[FEATURE_TYPES.get(feature_type, feature_type)] = adata
    with without_pulling():
        return MuData(modalities)
