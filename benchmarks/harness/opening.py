"""The first thing on docs/benchmarks.md: one figure, one table of at most eight methods on the real sets, and our losses."""

from __future__ import annotations

import pandas as pd

from . import verdicts
from .markdown import header, row
from .summary import summary

#: At most eight.
FRONT = ("scmamba-scvi", "SnapATAC2", "WNN", "MultiVI", "Harmony on gene activity", "weighted CCA", "CCA", "RNA PCA")
#: Short names of the real sets with labels that have thousands of cells.
SHORT = {"snareseq_mouse_cortex": "cortex", "bmmc_multiome_5k": "marrow, Multiome", "bmmc_cite_5k": "marrow, CITE"}


def section(held_out: pd.DataFrame, all_cells: pd.DataFrame) -> list[str]:
    """Figure, table, and in how much others are better."""
    return [
        "![Cell types found, against CPU seconds](_static/quality_and_cost.png)", "",
        "How many cells of a real data set have the type of their nearest neighbours in the joint embedding of all cells, against the",
        "time that the fit computes. Up is better, left is faster; the black star is this package with its defaults.", "",
        *_table(held_out, all_cells), "",
        "Mouse cortex is SNARE-seq, marrow is bone marrow of several donors.", "",
        "- *Overall* is the paper's score of held-out cells, 0.6 of four scores of cell types and 0.4 of four scores of how well the",
        "  modalities lie together. Each goes from 0 for the worst to 1 for the best method of the set.",
        "- *Types* is what the figure shows.",
        "- *Pairs* is the fraction of held-out cells whose {term}`true match` is among the 10 nearest cells of the other modality.",
        "- A dash stands for a method that embeds no new cells, that embeds both modalities as one, that is made for other modalities, or",
        "  that was not run on all cells. {doc}`benchmarks-results` says which.", "",
        *_losses("Held-out cells", verdicts.compare(held_out)), *_losses("All cells", verdicts.compare(all_cells, held_out)),
        f"Differences of more than {verdicts.N_DEVIATIONS} standard deviations over seeds count; with one seed, of the median set.", "",
    ]  # fmt: skip


def _table(held_out: pd.DataFrame, all_cells: pd.DataFrame) -> list[str]:
    columns: dict[str, pd.Series] = {}
    for name, short in SHORT.items():
        of_set = _scored(held_out, name)
        scores = summary(of_set, "minmax")
        columns[f"overall: {short}"] = pd.Series(dtype=float) if scores is None else scores["overall"]
    for name, short in SHORT.items():
        columns[f"types: {short}"] = _scored(all_cells, name).groupby("method")["kNN accuracy"].mean()
    for name, short in SHORT.items():
        columns[f"pairs: {short}"] = _scored(held_out, name).groupby("method")["recall@10"].mean()
    table = pd.DataFrame(columns).reindex(FRONT)
    best = table.round(2).max()
    lines = header(["method", *table])
    for method, values in table.iterrows():
        lines.append(row([method, *(_number(v, bold=round(v, 2) == best[c]) for c, v in values.items())]))
    return lines


def _scored(results: pd.DataFrame, name: str) -> pd.DataFrame:
    return results[(results["set"] == name) & results["fit_s"].notna()]


def _number(value: float, bold: bool) -> str:
    return "–" if pd.isna(value) else f"**{value:.2f}**" if bold else f"{value:.2f}"


def _losses(what: str, compared: pd.DataFrame) -> list[str]:
    """Of all methods, those that are better than the defaults, and in what, a line for each set."""
    losses = compared[compared["gain"] < -compared["margin"]]
    lines = []
    for name, short in SHORT.items():
        by_method = [
            f"{method} in {', '.join(f'{one.score} ({-one.gain:.3f})' for one in rows.itertuples())}"
            for method, rows in losses[losses["set"] == name].groupby("method", sort=False)
        ]
        lost = f"the defaults lose to {'; '.join(by_method)}" if by_method else "no method is better in any score"
        lines.append(f"- **{what}, {short}**: {lost}.")
    return [*lines, ""]
