"""``evaluate``: score the embeddings in a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table

from .._files import atomic_write
from .._keys import OBSM_KEY, VALIDATION_KEY
from ..errors import ScmambaError, UnknownNameError
from ._arguments import holds_mudata, parse_pairs
from ._console import err, out, reporting, say
from ._outputs import check_outputs, save_figure

if TYPE_CHECKING:
    import pandas as pd

#: Captions of the table. Nothing changes the scores of true matches as much as whether a method was trained on the cells.
ON_VALIDATION: Final = (
    "↓ lower is better. Scored on the validation cells: the network was not trained on them, but they chose the epoch, and the "
    "alignment of the modalities was fitted to them. --all-cells scores all."
)
ON_ALL: Final = (
    "↓ lower is better. Scored on all cells, also those a method was trained on, whose true matches are easy to find."
)


def evaluate(
    file: Annotated[
        Path,
        typer.Argument(
            help="MuData with embeddings in obsm, .h5mu as integrate writes it, or .zarr.", show_default=False
        ),
    ],
    labels_key: Annotated[str | None, typer.Option(help="Column of obs with known cell types.")] = None,
    batch_key: Annotated[str | None, typer.Option(help="Column of obs with batches.")] = None,
    embedding: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]KEY",
            help="A method and the key of obsm that holds its embedding, of the MuData (joint), of the modalities, or "
            "of both; repeat it. A key alone is also the name. By default scmamba-scvi=X_scmamba.",
        ),
    ] = None,
    prefix: Annotated[
        str | None,  # a Path would lose the slash that says it is a folder
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="Where to write: PATH.csv and PATH.png, or scores.csv and scores.png in a folder. By default "
            "the name of the file and _scores, beside it.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Score to compute, such as FOSCTTM; repeat it. By default all.")
    ] = None,
    all_cells: Annotated[
        bool,
        typer.Option(
            "--all-cells",
            help="Score all cells. By default only the validation cells of integrate, where the file marks them.",
        ),
    ] = False,
    max_cells: Annotated[
        int | None, typer.Option(min=2, help="Score at most this many cells, drawn at random.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random draws and of the clustering.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
) -> None:
    """Score how embeddings separate cell types, match modalities and mix batches, in a table and a figure.

    For example:

        scmamba-scvi evaluate out.h5mu --labels-key cell_type

        scmamba-scvi evaluate out.h5mu --embedding PCA=X_pca -o scores
    """
    with reporting():
        csv, png = _outputs(file, prefix)
        check_outputs([file], [("--out", csv), ("--out", png)], overwrite)
        embeddings = parse_pairs("--embedding", embedding, "NAME=KEY or KEY", "PCA=X_pca", may_be_alone=True)
        embeddings = embeddings or {"scmamba-scvi": OBSM_KEY}

        from .. import pl
        from ..data import open_mudata, read
        from ..metrics import METRICS, evaluate_integration

        for name in metric or ():
            if name not in METRICS:
                raise UnknownNameError("metric", name, METRICS)
        mdata = open_mudata(file) if holds_mudata(file) else read(file)  # counts, which nothing here needs, stay there
        validation = None
        if not all_cells and VALIDATION_KEY in mdata.obs:
            # also where the column has become text, or cells without a value were added
            validation = (mdata.obs[VALIDATION_KEY].astype("string") == "True").fillna(False).to_numpy(dtype=bool)
            if validation.sum() < 2:
                raise ScmambaError(f"{file} holds {validation.sum()} validation cells: --all-cells scores all cells.")
        scores = evaluate_integration(
            mdata, embeddings, labels_key=labels_key, batch_key=batch_key, metrics=metric or "all", cells=validation,
            max_cells=max_cells, random_state=seed, progress=err.is_terminal, device="auto",
        )  # fmt: skip
        lower = [name for name, metric in METRICS.items() if not metric.higher_is_better]
        n_cells = mdata.n_obs if validation is None else int(validation.sum())
        title = f"{file.name}, {min(n_cells, max_cells or n_cells):,} cells"
        out.print(_table(scores, lower, title))
        say(ON_ALL if validation is None else ON_VALIDATION)
        with atomic_write(csv) as unfinished:
            scores.to_csv(unfinished)
        say(f"Wrote {csv}.")
        save_figure(lambda figure: pl.metrics_table(scores, figure=figure), png)


def _outputs(file: Path, out: str | None) -> tuple[Path, Path]:
    """Names of the table and of the figure."""
    if not file.name:  # a dot
        raise ScmambaError(f"{file} is a folder: name the file that holds the embeddings, .h5mu.")
    prefix = Path(out or f"{file.with_suffix('')}_scores")
    if out is not None and (prefix.is_dir() or out.endswith((os.sep, "/"))):
        prefix = prefix / "scores"
    elif prefix.suffix in (".csv", ".png"):
        prefix = prefix.with_suffix("")
    # not with_suffix, which would cut off what follows a dot in the name
    return prefix.with_name(f"{prefix.name}.csv"), prefix.with_name(f"{prefix.name}.png")


def _table(scores: pd.DataFrame, lower: Sequence[str], title: str) -> Table:
    """Scores in rows, a section for each group, methods in columns; the best of several methods in bold."""
    table = Table(title=escape(title), title_style="bold", header_style="bold")
    table.add_column("")
    table.add_column("score")
    for method in scores.index:
        table.add_column(escape(str(method)), justify="right")
    groups = list(dict.fromkeys(scores.columns.get_level_values(0)))
    for group in groups:
        for i, name in enumerate(scores[group]):
            values = scores[group, name]
            best = values.min() if name in lower else values.max()
            several = values.nunique() > 1
            cells = [
                "–" if value != value else f"[bold]{value:.3f}[/bold]" if several and value == best else f"{value:.3f}"
                for value in values
            ]
            arrow = " ↓" if name in lower else ""
            table.add_row(f"[bold]{group}[/bold]" if not i else "", f"{name}{arrow}", *cells)
        table.add_section()
    return table
