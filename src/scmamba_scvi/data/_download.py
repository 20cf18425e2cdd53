"""Public data sets, downloaded once and kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from mudata import MuData

from ..errors import ScmambaError
from ._read import read

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
    MuData with modalities ``rna`` and ``atac``, see :func:`scmamba_scvi.data.read`.

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
    return read(file)
