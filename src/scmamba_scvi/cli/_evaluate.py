"""``evaluate``: score the embeddings in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table

from .._arguments import MAX_SEED
from .._compat import warn
from .._files import atomic_write
from .._keys import VALIDATION_KEY
from ..errors import ScmambaError
from ._arguments import holds_mudata, parse_pairs
from ._console import err, out, reporting, say
from ._outputs import OVERWRITE, check_outputs, remove_earlier, save_figure, score_files

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mudata import MuData

#: Cells whose types and batches are scored at most, unless the user says how many: all scores of so many take 40 seconds.
MAX_CELLS: Final = 10_000
#: Groups of the table, and those for which it makes no difference whether a method was trained on the cells.
GROUPS: Final = ("bio", "omics", "single-cell", "batch", "overall")
OF_ALL: Final = ("bio", "batch")
#: Captions of the table. Nothing changes the scores of true matches as much as whether a method was trained on the cells.
ON_VALIDATION: Final = (
    "↓ lower is better. omics and single-cell are of the validation cells: the network was not trained on them, but they chose "
    "the epoch, and the alignment of the modalities was fitted to them. --all-cells scores all cells in every row."
)
ON_ALL: Final = (
    "↓ lower is better. Scored on all cells, also those a method was trained on, whose true matches are easy to find."
)
BY_TYPE: Final = (
    "Fraction of the 15 nearest cells that are of the other modality: 0.5 is a perfect mix, below 0.25 the modalities lie "
    "apart. The mean of few cells is uncertain."
)


def evaluate(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="MuData with embeddings in obsm, .h5mu as integrate writes it, or .zarr.",
            show_default=False,
        ),
    ],
    labels_key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of obs with known cell types.")
    ] = None,
    batch_key: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of obs with batches.")] = None,
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
            help="Where to write: PATH.csv, PATH.png and, with --labels-key, PATH_by_type.csv; in a folder scores.csv and so "
            "on. By default the name of the file and _scores, beside it.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Score to compute, such as FOSCTTM; repeat it. By default all."),
    ] = None,
    all_cells: Annotated[
        bool,
        typer.Option(
            "--all-cells",
            help="Score all cells in every row. By default how modalities match is scored on the validation cells of "
            "integrate, where the file marks them.",
        ),
    ] = False,
    max_cells: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Score at most this many cells, drawn at random. By default 10,000 for types and batches, beside which "
            "the validation cells are scored.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, metavar="N", help="Seed of the random draws and of the clustering.")
    ] = 0,
    overwrite: OVERWRITE = False,
) -> None:
    """Score embeddings by cell types, modalities and batches.

    A table and a figure say how well they separate cell types, match modalities and mix batches, with --labels-key also how
    well the modalities mix in each cell type.

    For example:

        scmamba-scvi evaluate out.h5mu --labels-key cell_type

        scmamba-scvi evaluate out.h5mu --embedding PCA=X_pca -o scores
    """
    with reporting():
        csv, png, by_type_csv = outputs = score_files(file, prefix)
        check_outputs([file], [("--out", path) for path in outputs], overwrite)
        embeddings = parse_pairs("--embedding", embedding, "NAME=KEY or KEY", "PCA=X_pca", may_be_alone=True)

        from .. import pl
        from ..data import open_mudata, read
        from ..metrics import METRICS

        mdata = open_mudata(file) if holds_mudata(file) else read(file)  # counts, which nothing here needs, stay there
        validation = None if all_cells else _validation_cells(mdata, file)
        chosen: dict[str, Any] = {"cells": validation, "max_cells": max_cells, "random_state": seed}
        columns: dict[str, Any] = {"labels_key": labels_key, "batch_key": batch_key}
        scores, n_cells = _scores(mdata, embeddings, columns, metric, chosen)
        lower = [name for name, metric in METRICS.items() if not metric.higher_is_better]
        out.print(_table(scores, lower, file.name, n_cells))
        say(ON_ALL if validation is None else ON_VALIDATION)
        _write(scores, csv)
        remove_earlier([png, by_type_csv])
        if labels_key is not None and ("omics", "other modality") in scores:
            _report_by_type(mdata, embeddings, labels_key, chosen, by_type_csv)
        save_figure(lambda figure: pl.metrics_table(scores, figure=figure), png)


def _scores(
    mdata: MuData,
    embeddings: Any,
    columns: dict[str, Any],
    asked: Sequence[str] | None,
    chosen: dict[str, Any],
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The table, and of how many cells each group is: types and batches of all, among which users see neighbours."""
    import pandas as pd

    from ..metrics import METRICS, evaluate_integration

    of_all = [name for name in asked or METRICS if name in METRICS and METRICS[name].group in OF_ALL]
    rest = [name for name in asked or METRICS if name not in of_all]
    calls = [(asked or "all", chosen)]
    if chosen["cells"] is not None and of_all and any(columns.values()):
        calls = [(of_all, {**chosen, "cells": None, "max_cells": chosen["max_cells"] or MAX_CELLS})]
        calls += [(rest, chosen)] if rest else []
    tables: list[pd.DataFrame] = []
    n_cells: dict[str, int] = {}
    failed: list[ScmambaError] = []
    for names, cells in calls:
        try:
            scores = evaluate_integration(
                mdata, embeddings, metrics=names, **columns, **cells, progress=err.is_terminal, device="auto"
            )
        except ScmambaError as error:  # what one part lacks must not prevent the other
            failed.append(error)
            continue
        tables.append(scores)
        n = mdata.n_obs if cells["cells"] is None else int(cells["cells"].sum())
        n_cells |= dict.fromkeys(scores.columns.unique(0), min(n, cells["max_cells"] or n))
    if not tables:
        raise failed[0]
    for what in failed:
        warn(str(what))
    scores = pd.concat(tables, axis=1)
    return pd.concat([scores[[group]] for group in GROUPS if group in scores], axis=1), n_cells


def _report_by_type(mdata: MuData, embeddings: Any, labels_key: str, chosen: dict[str, Any], path: Path) -> None:
    """Print and write how well the modalities mix in each type."""
    from ..metrics import mixing_by_type

    try:
        by_type = mixing_by_type(mdata, embeddings, labels_key=labels_key, **chosen)
    except ScmambaError as error:  # none of these cells has a type; the other scores are there
        warn(str(error))
        return
    out.print(_table_by_type(by_type))
    say(BY_TYPE)
    _write(by_type, path)


def _validation_cells(mdata: MuData, file: Path) -> np.ndarray | None:
    """Whether each cell is one of validation; ``None`` if the file marks none."""
    if VALIDATION_KEY not in mdata.obs:
        return None
    # also where the column has become text, or cells without a value were added
    marked = (mdata.obs[VALIDATION_KEY].astype("string") == "True").fillna(False).to_numpy(dtype=bool)
    if marked.sum() < 2:
        raise ScmambaError(f"{file} holds {marked.sum()} validation cells: --all-cells scores all cells.")
    return marked


def _write(table: pd.DataFrame, path: Path) -> None:
    with atomic_write(path) as unfinished:
        table.to_csv(unfinished)
    say(f"Wrote {path}.")


def _table(scores: pd.DataFrame, lower: Sequence[str], title: str, n_cells: dict[str, int]) -> Table:
    """Scores in rows, a section for each group, methods in columns; the best of several methods in bold."""
    table = Table(title=escape(title), title_style="bold", header_style="bold")
    table.add_column("")
    table.add_column("score")
    for method in scores.index:
        table.add_column(escape(str(method)), justify="right")
    for group in scores.columns.unique(0):
        label = f"[bold]{group}[/bold]" + ("" if group == "overall" else f", {n_cells[group]:,} cells")
        for i, name in enumerate(scores[group]):
            values = scores[group, name]
            best = values.min() if name in lower else values.max()
            several = values.nunique() > 1
            cells = [
                "–" if value != value else f"[bold]{value:.3f}[/bold]" if several and value == best else f"{value:.3f}"
                for value in values
            ]
            arrow = " ↓" if name in lower else ""
            table.add_row(label if not i else "", f"{name}{arrow}", *cells)
        table.add_section()
    return table


def _table_by_type(by_type: pd.DataFrame) -> Table:
    """Types in rows, those with the least mix first, methods in columns."""
    table = Table(title="Neighbours of the other modality", title_style="bold", header_style="bold")
    # unstack(sort=False) of pandas puts values into rows of others
    mixed = by_type["other modality"].unstack("method")[by_type.index.unique("method")]
    cells = by_type["cells"].groupby(level=["modalities", "type"]).max()
    several = mixed.index.get_level_values("modalities").nunique() > 1
    for name in (["modalities"] if several else []) + ["type"]:
        table.add_column(name)
    table.add_column("cells", justify="right")
    for method in mixed:
        table.add_column(escape(str(method)), justify="right")
    for row, values in mixed.loc[mixed.min(axis=1).sort_values().index].iterrows():
        names = [escape(str(name)) for name in (row if several else row[1:])]
        table.add_row(*names, f"{cells[row]:,}", *("–" if value != value else f"{value:.3f}" for value in values))
    return table
