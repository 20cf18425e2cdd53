"""Public data sets, downloaded once and kept, and a reader of the files that 10x Genomics publishes them in."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique
from mudata import MuData
from scipy import sparse

from .._compat import without_pulling
from .._keys import FEATURE_TYPES
from ..errors import ScmambaError


@dataclasses.dataclass(frozen=True)
class PublicFile:
    """A file that others publish."""

    name: str  # of the file on disk
    url: str
    #: ``"sha256:..."``, or None where the publisher names none: the download is then not verified, and pooch prints
    #: the hash it found.
    known_hash: str | None
    about: str


PUBLIC_FILES: Final = {
    "pbmc_multiome": PublicFile(
        name="pbmc_granulocyte_sorted_10k_filtered_feature_bc_matrix.h5",
        url="https://cf.10xgenomics.com/samples/cell-arc/2.0.0/pbmc_granulocyte_sorted_10k/"
        "pbmc_granulocyte_sorted_10k_filtered_feature_bc_matrix.h5",
        known_hash=None,
        about="PBMC from a healthy donor, granulocytes removed, 10x Multiome (10x Genomics, CC BY 4.0)",
    ),
}


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
    return read_10x_multiome(_fetch(PUBLIC_FILES["pbmc_multiome"], path))


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
    path = Path(path)
    if not path.is_file():
        raise ScmambaError(f"There is no file {path}.")
    if not h5py.is_hdf5(path):
        raise ScmambaError(f"{path} is not an HDF5 file; expected the filtered_feature_bc_matrix.h5 of Cell Ranger.")
    with h5py.File(path) as file:
        matrix = file.get("matrix")
        if not isinstance(matrix, h5py.Group) or not {"features", "barcodes", "data", "indices", "indptr"} <= {*matrix}:
            raise ScmambaError(
                f"{path} has no group 'matrix' with features and barcodes, it has {sorted(file)}; expected "
                f"the filtered_feature_bc_matrix.h5 of Cell Ranger 3 or later."
            )
        barcodes = _text(matrix["barcodes"])
        var = _read_features(matrix["features"])
        # stored by barcode, which makes it a CSR matrix of cells
        parts = (matrix["data"][:].astype(np.float32), matrix["indices"][:], matrix["indptr"][:])
    x = sparse.csr_matrix(parts, shape=(len(barcodes), len(var)))
    modalities = {}
    for feature_type in var["feature_types"].unique():
        of_type = (var["feature_types"] == feature_type).to_numpy()
        own_var = var[of_type].set_index(make_index_unique(var.index[of_type]))
        adata = AnnData(x[:, of_type], obs=pd.DataFrame(index=barcodes), var=own_var)
        modalities[FEATURE_TYPES.get(feature_type, feature_type)] = adata
    with without_pulling():
        return MuData(modalities)


def _read_features(features: h5py.Group) -> pd.DataFrame:
    columns = {"gene_ids": "id", "feature_types": "feature_type", "genome": "genome", "interval": "interval"}
    return pd.DataFrame(
        {column: _text(features[name]) for column, name in columns.items() if name in features},
        index=_text(features["name"]),
    )


def _text(dataset: h5py.Dataset) -> np.ndarray:
    return dataset.asstr()[:].astype(object)


def _fetch(file: PublicFile, path: str | os.PathLike[str] | None) -> Path:
    """Where the file is, after downloading it if need be."""
    import pooch

    folder = Path(pooch.os_cache("scmamba-scvi") if path is None else path)
    if folder.is_file():
        return folder
    kept = folder / file.name
    if kept.is_file():
        return kept
    try:
        return Path(pooch.retrieve(file.url, file.known_hash, fname=file.name, path=folder))
    except (OSError, ValueError) as error:  # no network, no space, no such folder | a wrong checksum
        raise ScmambaError(
            f"{file.about} could not be downloaded: {error}. Download {file.url} by hand and put it at {kept}, "
            f"or pass path='the/downloaded/file.h5'."
        ) from error
