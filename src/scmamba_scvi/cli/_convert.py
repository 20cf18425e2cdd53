"""``convert``: rewrite files as one MuData, as ``.zarr`` so that it can be used without fitting into memory."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._files import temporary_folder
from ..errors import ScmambaError
from ._arguments import FILES, holds_mudata, parse_files, paths_of
from ._console import reporting, say
from ._outputs import OVERWRITE, check_outputs, named_after

if TYPE_CHECKING:
    from mudata import MuData


def convert(
    files: FILES,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="PATH", help=".zarr or .h5mu to write. By default FILE.zarr beside the first file."
        ),
    ] = None,
    overwrite: OVERWRITE = False,
) -> None:
    """Rewrite files as one MuData, .zarr or .h5mu. A zarr is fast to read a few cells from.

    A MuData becomes a zarr without being loaded, but for matrices that are stored by columns. scmamba_scvi.data.open_mudata
    leaves its matrices on disk.

    For example:

        scmamba-scvi convert atlas.h5mu -o atlas.zarr

        scmamba-scvi convert filtered_feature_bc_matrix.h5 -o cells.h5mu
    """
    with reporting():
        sources = parse_files(files)
        first, *others = paths_of(sources)
        target = named_after(first, ".zarr") if out_file is None else out_file
        if target.suffix not in (".zarr", ".h5mu"):
            raise ScmambaError(f"--out must end in .zarr or .h5mu, got {target.name!r}.")
        is_folder = target.suffix == ".zarr"
        written = [("--out", target)]
        check_outputs([first, *others], [] if is_folder else written, overwrite, folders=written if is_folder else [])

        from ..data import convert_mudata, read
        from ..workflow import write_mudata

        is_whole = not isinstance(sources, dict)  # of which no modality was named
        if not is_folder:
            write_mudata(by_rows(read(sources)), target)
        elif is_whole and holds_mudata(first):
            convert_mudata(first, target, overwrite=overwrite)
        else:
            with temporary_folder(target.parent) as folder:
                write_mudata(read(sources), folder / "cells.h5mu")
                convert_mudata(folder / "cells.h5mu", target, overwrite=overwrite)
        size = sum(part.stat().st_size for part in (target.rglob("*") if is_folder else [target]) if part.is_file())
        say(f"Wrote {target}, {size / 2**20:,.0f} MB.")


def by_rows(mdata: "MuData") -> "MuData":
    """The same MuData; counts that are stored by columns (CSC) become CSR, of which a few cells can be read from a file."""
    for part in mdata.mod.values():
        if getattr(part.X, "format", "") == "csc":
            part.X = part.X.tocsr()
        for name, layer in part.layers.items():
            if getattr(layer, "format", "") == "csc":
                part.layers[name] = layer.tocsr()
    return mdata
