"""The section of docs/benchmarks-results.md on all cells, as users embed them."""

from __future__ import annotations

import pandas as pd

from . import all_cells, tables
from .sets import SETS, title_of

SHOWN = ("kNN accuracy", "kNN, other batches", "ARI", "NMI", "MAP", "cell-type ASW", "batch mixing", "batch ASW")
MORE = ("ARI spread", "NMI spread")


def section(results: pd.DataFrame) -> list[str]:
    """A table per set, its rows in order of the first score, and why others are missing."""
    lines = [
        "## All cells, as users embed them", "",
        "Every method is fitted on all cells, without labels, and its joint embedding of the same cells is scored as it is: no",
        "cell votes on its own type, and nothing is held out. So methods that embed no new cells can take part. A cell's own batch",
        "names it best where batches lie apart, so votes of other batches say more of a correction.", "",
        "![Cell types found on three real sets, against CPU seconds of the fit](_static/quality_and_cost.png)", "",
        "Real sets: up is better, left is faster. The numbers are in the tables below.", "",
        *(f"- **{name}**: {m.about}." for name, m in all_cells.METHODS.items() if name in all_cells.ADDED), "",
    ]  # fmt: skip
    for name in SETS:
        of_set = results[results["set"] == name]
        scored = of_set[of_set["fit_s"].notna()]
        if len(scored):
            lines += [
                f"### {title_of(name)}: all cells",
                "",
                tables.table(scored, SHOWN, tables.COSTS),
                "",
                *tables.epochs(scored),
            ]
            more = tables.table(scored, MORE)
            lines += tables.folded("Spread over the seeds of Leiden", more) if more else []
            lines += tables.not_run(of_set, all_cells.METHODS)
    return lines
