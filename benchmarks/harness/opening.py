"""The first thing on docs/benchmarks.md: a table of at most eight methods for each real set with labels, and our losses."""

from __future__ import annotations

import pandas as pd

from . import verdicts
from .markdown import header, row
from .sets import SETS
from .summary import summary

N_METHODS = 8
#: In this order those that a set has, up to `N_METHODS`.
FRONT = (
    "scmamba-scvi", "weighted CCA", "CCA", "MultiVI", "totalVI", "PairedSCGLUE", "Harmony on gene activity", "RNA PCA",
    "ATAC LSI / protein PCA", "weighted CCA + Harmony",
)  # fmt: skip
#: Heading in plain words -> score.
PLAIN = {
    "own partner among the 10 nearest": "recall@10",
    "other modality among the neighbours (0.5: mixed)": "other modality",
    "type right by its neighbours": "kNN accuracy",
    "clusters are types (ARI)": "ARI",
    "batches mixed": "batch mixing",
}


def section(results: pd.DataFrame) -> list[str]:
    """Tables and losses."""
    scored = results[results["fit_s"].notna()]
    losses = verdicts.compare(results)
    losses = losses[losses["gain"] < -losses["margin"]]
    lines = []
    for name, dataset in SETS.items():
        of_set = scored[scored["set"] == name]
        if dataset.path is None or dataset.label_key is None or not len(of_set):
            continue
        lines += [f"**{name}**: {dataset.about}.", "", *_table(of_set), ""]
        lines += [_losses(losses[losses["set"] == name]), ""]
    return [*lines, _explained(), ""]


def _table(of_set: pd.DataFrame) -> list[str]:
    names = [m for m in FRONT if m in set(of_set["method"])][:N_METHODS]
    overall = summary(of_set, "minmax")
    heads = {head: score for head, score in PLAIN.items() if score in of_set and of_set[score].notna().any()}
    means = of_set.groupby("method")[[*heads.values(), "fit_cpu_s"]].mean().loc[names]
    means.insert(0, "overall", float("nan") if overall is None else overall["overall"].reindex(names))
    means = means.sort_values("overall" if overall is not None else "kNN accuracy", ascending=False, na_position="last")
    lines = header(["method", "overall, 0 to 1", *heads, "CPU seconds"])
    for method, values in means.iterrows():
        first = "not yet scored" if overall is None else _number(values["overall"])
        lines.append(row([method, first, *(_number(values[s]) for s in heads.values()), f"{values['fit_cpu_s']:,.0f}"]))
    return lines


def _number(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.2f}"


def _losses(of_set: pd.DataFrame) -> str:
    """Of all methods, those that are better than the defaults, and in what."""
    if not len(of_set):
        return "No method is better than the defaults in any score here."
    by_method = [
        f"{method} in {', '.join(f'{one.score} ({-one.gain:.3f})' for one in rows.itertuples())}"
        for method, rows in of_set.groupby("method", sort=False)
    ]
    return f"The defaults lose to {'; '.join(by_method)}."


def _explained() -> str:
    return (
        "Overall is the paper's score: 0.6 of the mean of four scores of cell types and 0.4 of that of four scores of how well "
        "the modalities are mixed, each from 0 for the worst to 1 for the best method of the set; a method with one embedding "
        "for both modalities has none. Losses are over all methods and scores of the set, our own variants too, by more than "
        f"{verdicts.N_DEVIATIONS} standard deviations over seeds."
    )
