"""Public data sets, downloaded once and kept."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Final

from mudata import MuData

from ..errors import ScmambaError
from ._read import read


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
    MuData with modalities ``rna`` and ``atac``, see :func:`scmamba_scvi.read`.

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
    return read(_fetch(PUBLIC_FILES["pbmc_multiome"], path))


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
