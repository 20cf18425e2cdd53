"""Any file that a lab has, as a MuData: recognised by what is in it, read by scanpy, anndata or mudata, and checked."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from anndata import AnnData
from mudata import MuData

from .._compat import mudata_of, without_pulling
from .._files import is_zarr
from .._keys import KINDS, kind_of_key
from ..errors import ScmambaError, written
from ._formats import read_file
from ._parts import parts_of, reason_for_one


def read(paths: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str] | AnnData] | AnnData) -> MuData:
    """Any file of counts in several modalities, as a MuData.

    What a file is follows from its content:

    - ``.h5mu``, and ``.zarr`` that holds a MuData;
    - the ``.h5`` of Cell Ranger (Multi, Count with antibodies, ARC, ATAC), and its folder of ``matrix.mtx.gz``,
      ``features.tsv.gz`` and ``barcodes.tsv.gz``, each compressed or not, as of STARsolo; also the folder ``outs`` in which
      these lie, of Multi if it has one sample, else that of a sample;
    - ``.h5ad`` or ``.zarr`` of an AnnData whose ``var["feature_types"]`` tells the modality of each feature, or whose ``obsm``
      holds the counts of proteins;
    - several files or AnnData of one modality each, with their names: ``read({"rna": "rna.h5ad", "atac": "atac.h5ad"})``.

    Parameters
    ----------
    paths
        A path; or a dict from modality to path or AnnData, of two modalities or more. An AnnData that is in memory is taken as
        one from a file, and stays as it is.

    Returns
    -------
    One modality per type of feature: ``"rna"``, ``"atac"`` and ``"protein"``, others under the name of their type, with ``_``
    for a slash. Counts are as the file has them, sparse float16 as float32; ``var`` has the coordinates of the file. Features
    of one name within a modality are numbered, but for those of a file that holds a MuData, which stays as it is. Of
    ``raw``, each modality has its own features.

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
        if len(paths) < 2:
            raise ScmambaError(
                f"At least two modalities are needed, with a file or an AnnData of each; got {', '.join(map(repr, paths)) or 'none'}."
            )
        return _assembled({str(name): _one_modality(source, str(name)) for name, source in paths.items()})
    if isinstance(paths, AnnData):
        return _split(paths, _parts_of_users(paths))
    if not isinstance(paths, str | os.PathLike):
        raise ScmambaError(
            f"read takes a path, or a dict from modality to path, read({{'rna': ..., 'atac': ...}}); got {paths!r}."
        )
    found = read_file(Path(paths))
    return found if isinstance(found, MuData) else _split(found, parts_of(found), Path(paths))


def _one_modality(source: str | os.PathLike[str] | AnnData, name: str) -> AnnData:
    """The modality ``name`` of a file or of an AnnData in memory, or the only one that it holds."""
    if isinstance(source, AnnData):
        what, argument = "The AnnData", "adata"
        parts = _parts_of_users(source)
    elif isinstance(source, str | os.PathLike):
        what, argument = str(source), repr(os.fspath(source))
        found = read_file(Path(source))
        parts = dict(found.mod) if isinstance(found, MuData) else parts_of(found)
    else:
        raise ScmambaError(f"{name!r} must be a path or an AnnData; got a {type(source).__name__}.")
    if name not in parts and len(parts) != 1:
        raise ScmambaError(f"{what} holds {list(parts)}: pass it alone, read({argument}), or name one of these.")
    only = name if name in parts else next(iter(parts))
    if only in KINDS and (_kind_of_name(name) or only) != only:
        raise ScmambaError(f"{what} holds {only}, and is named {name!r}: were the names of two files swapped?")
    return parts[only]


def _parts_of_users(adata: AnnData) -> dict[str, AnnData]:
    """The modalities of an AnnData, which stays as it is."""
    return parts_of(adata.to_memory()) if adata.isbacked else parts_of(adata, is_users=True)


def _split(adata: AnnData, parts: dict[str, AnnData], path: Path | None = None) -> MuData:
    """The ``parts`` of an AnnData, which was read from ``path`` or was in memory, if there are several."""
    if len(parts) > 1:
        return _assembled(parts)
    (name,) = parts
    holds = f"{name} only" if name else f"one modality ({reason_for_one(adata)})"
    kind, other = name or "rna", "atac" if name in ("", "rna") else "rna"
    if path is None:
        raise ScmambaError(
            f"adata is an AnnData with {holds}, and at least two modalities are needed. Make a MuData of it and another, "
            f"mudata.MuData({{{kind!r}: adata, {other!r}: ...}})."
        )
    is_10x = path.suffix == ".h5" or path.is_dir() and not is_zarr(path)
    what = "a 10x (Cell Ranger) file" if is_10x else "an AnnData"
    raise ScmambaError(
        f"{path} is {what} with {holds}, and at least two modalities are needed. Name the file of each, "
        f"{written('paths', {kind: str(path), other: ...})}, or make a MuData of them, mudata.MuData({{'rna': ..., 'atac': ...}})."
    )


def _assembled(modalities: Mapping[str, AnnData]) -> MuData:
    """MuData of the modalities, kinds that are known first and in their order."""
    order: list[str] = [kind for kind in KINDS if kind in modalities]
    order += [name for name in modalities if name not in order]
    with without_pulling():
        return mudata_of({name: modalities[name] for name in order}, {})


def _kind_of_name(name: str) -> str | None:
    """Kind that a name, or a word of it, stands for."""
    return next((kind for word in (name, *re.split("[._-]", name)) if (kind := kind_of_key(word))), None)
