"""Time and memory against cells: the sets, docs/benchmarks-cost.md and the figure of quality against seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from . import tables
from .all_cells import METHODS as ALL_CELLS
from .looks import looks
from .markdown import header, row
from .methods import Embeddings, Limit, Method
from .runner import Track
from .scores import N_NEIGHBORS
from .sets import SETS, DataSet, Truth, all_cells, simulated, title_of

#: About what 10x Multiome shows of each cell.
FEATURES = {"n_genes": 10_000, "n_peaks": 50_000, "rna_counts": 1_000, "atac_counts": 2_000, "n_cell_types": 12}
PREFIX = "simulated multiome, cells "
VARIANTS = Limit(frozenset(), "a part or a variant of weighted CCA, which has a row")
METHODS: dict[str, Method] = {
    **ALL_CELLS,
    **{
        name: dataclasses.replace(ALL_CELLS[name], limit=VARIANTS)
        for name in ("ATAC LSI / protein PCA", "weighted CCA + gene activity", "weighted CCA, plain LSI")
    },
}
#: How methods without a name look in a figure.
UNNAMED = {"color": "0.78", "marker": "o", "ms": 5, "mec": "white", "mew": 0, "zorder": 1}


def set_of(n_cells: int) -> DataSet:
    """A simulated set of so many cells."""
    return simulated(f"{PREFIX}{n_cells}", "simulated RNA + ATAC", n_cells=n_cells, **FEATURES)


def score(embeddings: Embeddings, truth: Truth) -> dict[str, float]:
    """The one score that says that a method has done its work."""
    from scmamba_scvi import metrics

    return {"kNN accuracy": metrics.knn_accuracy(embeddings["joint"][0], truth.labels[0], N_NEIGHBORS)}


TRACK = Track(all_cells, score)


def section(results: pd.DataFrame) -> list[str]:
    """Seconds and megabytes of each method at each number of cells, and how they grow."""
    lines = [
        "![Cell types found on three real sets, against CPU seconds of the fit](_static/quality_and_cost.png)", "",
        "All cells of three real sets: up is better, left is faster. The numbers are on {doc}`benchmarks-methods`.", "",
        "## Growth with the cells", "",
        f"Columns are numbers of simulated cells, of {FEATURES['n_genes']:,} genes and {FEATURES['n_peaks']:,} peaks with {FEATURES['rna_counts']:,} and",
        f"{FEATURES['atac_counts']:,} counts each. Every fit and its embedding of all cells ran in a process of its own on one thread, of WNN and Harmony + WNN",
        "on two. Seconds are those that the process computed; others used the machine at the time, so those of the clock say less and are in brackets.",
        "MB is the peak of the process, with its libraries and the data. The slope is the exponent of growth: 1 is linear.", "",
    ]  # fmt: skip
    scored = _scored(results)
    sizes = sorted(scored["n"].unique())
    in_seconds, in_mb, of_votes = ([f"{what}, {n:,}" for n in sizes] for what in ("s", "MB", "kNN"))
    lines += header(["method", *in_seconds, "slope", *in_mb, *of_votes])
    order = scored.groupby("method")["fit_cpu_s"].max().sort_values().index
    for method in order:
        of_method = scored[scored["method"] == method].set_index("n")
        seconds = [
            f"{of_method.at[n, 'fit_cpu_s']:,.0f} ({of_method.at[n, 'fit_s']:,.0f})" if n in of_method.index else "–"
            for n in sizes
        ]
        memory, found = (
            [f"{of_method.at[n, column]:{form}}" if n in of_method.index else "–" for n in sizes]
            for column, form in (("peak_mb", ",.0f"), ("kNN accuracy", ".3f"))
        )
        lines.append(row([method, *seconds, _slope(of_method), *memory, *found]))
    return [*lines, "", *tables.not_run(results, METHODS)]


def _scored(results: pd.DataFrame) -> pd.DataFrame:
    scored = results[results["fit_s"].notna()]
    return scored.assign(n=scored["set"].str.removeprefix(PREFIX).astype(int)).sort_values("n")


def _slope(of_method: pd.DataFrame) -> str:
    if len(of_method) < 2:
        return "–"
    return f"{np.polyfit(np.log(of_method.index), np.log(of_method['fit_cpu_s'].clip(lower=0.1)), 1)[0]:.1f}"


def draw(all_cells_results: pd.DataFrame, path: Path, named: Sequence[str] | None = None) -> None:
    """Cell types found against CPU seconds, a panel for each real set of which all cells were embedded.

    Methods that are not ``named`` are grey dots; `None`: all are named.
    """
    from matplotlib.figure import Figure

    scored = all_cells_results[all_cells_results["fit_s"].notna() & all_cells_results["kNN accuracy"].notna()]
    n_methods = scored.groupby("set")["method"].nunique()
    names = [name for name in SETS if n_methods.get(name, 0) > 1]
    figure = Figure(figsize=(2.9 * len(names), 4.3), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    of_results = set(scored["method"])
    known = looks()
    methods = [m for m in named or known if m in of_results]
    look_of = {name: known[name] for name in methods}
    handles = {}
    for axis, name in zip(axes, names, strict=True):
        of_method = scored[scored["set"] == name].sort_values("seed").groupby("method", sort=False)
        # seconds of the first seed, since most methods were fitted once
        means = pd.DataFrame(
            {"fit_cpu_s": of_method["fit_cpu_s"].first(), "kNN accuracy": of_method["kNN accuracy"].mean()}
        )
        for method, seconds, accuracy in means.itertuples():
            drawn = axis.plot(max(seconds, 0.1), accuracy, ls="", **look_of.get(method, UNNAMED))
            handles[method if method in look_of else "others"] = drawn[0]
        axis.set(title=title_of(name), xlabel="CPU seconds", xscale="log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(0.1)
    axes[0].set_ylabel("kNN accuracy of the joint embedding")
    ordered = [m for m in (*methods, "others") if m in handles]
    figure.legend(
        [handles[m] for m in ordered], ordered, loc="outside lower center", ncols=min(4, len(ordered)), frameon=False,
        fontsize=9, columnspacing=1, handletextpad=0.2,
    )  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=180)
