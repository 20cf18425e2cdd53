"""Sets with fewer training cells, docs/benchmarks-fewer-cells.md and its figure."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from . import tables
from .looks import label_of, looks_of_lines
from .markdown import header, mean_and_spread, row
from .paths import FIGURES
from .sets import REAL, SETS, DataSet, title_of, train_and_test
from .verdicts import N_DEVIATIONS, compare

METHODS = ["scmamba-scvi", "weighted CCA", "CCA"]
SIZES = (200, 400, 800, 1_600, 3_200, None)  # None is all
SHOWN = ("FOSCTTM", "recall@10", "kNN accuracy")
#: Between the name of a set and the number of its training cells.
SEPARATOR = "@"
#: A size nearer than so many times to the next larger one has no number at the axis.
APART = 1.3


def parts(dataset: DataSet) -> list[DataSet]:
    """The set with each number of training cells; the held-out cells are the same."""
    n_cells = 0 if dataset.missing() else train_and_test(dataset)[0].n_obs
    return [
        dataclasses.replace(dataset, name=f"{dataset.name}{SEPARATOR}{n or 'all'}", n_train=n)
        for n in SIZES
        if n is None or n < n_cells
    ]


def section(results: pd.DataFrame) -> list[str]:
    """The figure, where weighted CCA is ahead, then a table per set, a row per number of training cells."""
    curves = _curves(results)
    lines = [
        "![Scores against training cells](_static/learning_curve.png)", "",
        "The same held-out cells after training on some of the others, drawn at random. Bars and numbers behind a mean are the spread over seeds;",
        "simulated sets have one seed.", "",
        *(line for rival in METHODS[1:] for line in _behind(curves, rival)), "## All numbers of training cells", "",
    ]  # fmt: skip
    for name in _names(curves):
        of_set = curves[curves["whole"] == name].dropna(axis=1, how="all")
        methods = [m for m in METHODS if m in set(of_set["method"])]
        rows = header(["cells", *(f"{m}: {s}" for s in SHOWN for m in methods if s in of_set)])
        for cells, of_size in of_set.groupby("cells"):
            by_method = {m: of_size[of_size["method"] == m] for m in methods}
            shown = [mean_and_spread(by_method[m][s]) for s in SHOWN for m in methods if s in of_set]
            rows.append(row([f"{int(cells):,}", *shown]))
        lines += tables.folded(title_of(name), rows)
    return lines


def _behind(curves: pd.DataFrame, rival: str) -> list[str]:
    """Scores, of all that count, in which the defaults are worse than ``rival``, and after how many training cells."""
    table = compare(curves)
    worse = table[(table["method"] == rival) & (table["gain"] < -table["margin"])]
    whole, _, size = zip(*worse["set"].str.partition(SEPARATOR).to_numpy(), strict=True) if len(worse) else ((), (), ())
    worse = worse.assign(whole=whole, size=size)
    lines = [
        f"## Where {rival} is ahead", "",
        f"Of {len(table[table['method'] == rival]):,} comparisons with {rival} (every score, set and number of training cells) the defaults are",
        f"worse in {len(worse):,}, by more than {N_DEVIATIONS} standard deviations over seeds; in brackets by how much:", "",
    ]  # fmt: skip
    for name in _names(worse):
        scores = []
        for score, of_score in worse[worse["whole"] == name].groupby("score", sort=False):
            where = [f"{_shown(n)} ({-gain:.3f})" for n, gain in zip(of_score["size"], of_score["gain"], strict=True)]
            scores.append(f"{score} after {', '.join(where)}")
        lines.append(f"- **{title_of(name)}**: {'; '.join(scores)}.")
    return [*lines, ""]


def _shown(size: str) -> str:
    return f"{int(size):,}" if size.isdigit() else size


def draw(results: pd.DataFrame) -> None:
    """A column of panels per real set, a row per score."""
    from matplotlib.figure import Figure

    curves = _curves(results)
    names = [name for name in _names(curves) if name in REAL]
    figure = Figure(figsize=(2.7 * len(names), 2.6 * len(SHOWN)), layout="constrained")
    axes = figure.subplots(len(SHOWN), len(names), squeeze=False, sharex="col")
    look_of = looks_of_lines()
    for j, name in enumerate(names):
        for i, score in enumerate(SHOWN):
            axis = axes[i, j]
            sizes = sorted({int(n) for n in curves.loc[curves["whole"] == name, "cells"]})
            sizes = [n for n, larger in zip(sizes, [*sizes[1:], np.inf], strict=True) if APART * n <= larger]
            for method in METHODS:
                of_method = curves[(curves["whole"] == name) & (curves["method"] == method)]
                if score in of_method and of_method[score].notna().any():
                    of_size = of_method.groupby("cells")[score]
                    means, spread = of_size.mean(), of_size.std().fillna(0)
                    axis.errorbar(means.index, means, spread, lw=1, label=method, **look_of[method])
            axis.set(
                xscale="log",
                ylabel=label_of(score) if j == 0 else "",
                title=title_of(name).replace(" (", "\n(") if i == 0 else "",
            )
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axis.minorticks_off()
            axis.tick_params(axis="x", labelrotation=45)
            axis.spines[["top", "right"]].set_visible(False)
            if not axis.containers:  # labels of the cells are not known
                axis.set_axis_off()
        lowest = [axis for axis in axes[:, j] if axis.containers][-1]
        lowest.set_xlabel("training cells")
        lowest.tick_params(axis="x", labelbottom=True)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(FIGURES / "learning_curve.png", dpi=120)


def _names(curves: pd.DataFrame) -> list[str]:
    """Sets that are there, in the order of all pages."""
    return [name for name in SETS if name in set(curves["whole"])]


def _curves(results: pd.DataFrame) -> pd.DataFrame:
    scored = results[results["fit_s"].notna()]
    return scored.assign(whole=scored["set"].str.partition(SEPARATOR)[0])
