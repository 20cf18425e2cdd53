"""``convert``: rewrite a file so that it can be used without fitting into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._files import check_writable
from ._console import out, reporting


def convert(
    file: Annotated[Path, typer.Argument(help="MuData: .h5mu or .zarr, matrices sparse by rows or dense.")],
    target: Annotated[Path | None, typer.Argument(help="Folder to write, .zarr. By default beside FILE.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace TARGET if it exists.")] = False,
) -> None:
    """Rewrite a MuData as zarr, in chunks that are fast to read a few cells from, without loading it.

    Open the result with scmamba_scvi.data.open_mudata: its matrices stay on disk in training and embedding.
    """
    with reporting():
        from ..data import convert_mudata

        target = file.with_suffix(".zarr") if target is None else target
        check_writable(target.parent)
        convert_mudata(file, target, overwrite=overwrite)
        size = sum(part.stat().st_size for part in target.rglob("*") if part.is_file())
        out.print(f"Wrote {target}, {size / 2**20:,.0f} MB.", highlight=False, soft_wrap=True)
