"""Matching among some of the held-out cells: its scores, their section of the page, and its figure."""

from __future__ import annotations

import numpy as np
import pandas as pd

from . import tables
from .looks import label_of, looks_of_lines
from .markdown import header, mean_and_spread, row
from .methods import OWN_VARIANTS, Embeddings
from .methods.linear import unit
from .paths import FIGURES
from .sets import SETS, title_of

#: Numbers of cells; the paper shows 100 to 1,000.
SIZES = (100, 200, 500, 1_000, 2_000)
#: Draws of so many cells, of which the mean is taken.
N_DRAWS = 5
#: Nearest points of both modalities in which the true match is looked for.
N_NEAREST = 10
SHOWN = ("FOSCTTM", "matching score", "neighbourhood overlap")


def score(embeddings: Embeddings) -> dict[str, float]:
    """Every score at every number of cells that there are; nothing where both modalities have one embedding."""
    modalities = [unit(parts[1]) for name, parts in embeddings.items() if name != "joint"]
    if len(modalities) != 2:
        return {}
    n_cells, rng = len(modalities[0]), np.random.default_rng(0)
    found = {}
    for n in (n for n in SIZES if n <= n_cells):
        draws = [rng.choice(n_cells, n, replace=False) for _ in range(N_DRAWS if n < n_cells else 1)]
        scored = pd.DataFrame([_matching(*(x[rows] for x in modalities)) for rows in draws]).mean()
        found |= {_key(name, n): float(value) for name, value in scored.items()}
    return found


def _matching(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    from scmamba_scvi import metrics

    return {
        "FOSCTTM": float(np.mean(metrics.foscttm(x, y))),
        "matching score": metrics.matching_score(x, y),
        "neighbourhood overlap": float(metrics.true_match_ranks(x, y, among="both").recall(N_NEAREST)[0]),
    }


def _key(name: str, n: int) -> str:
    return f"{name} among {n}"


def section(results: pd.DataFrame, quality: pd.DataFrame) -> list[str]:
    """A table per set, a row per method; which methods of ``quality`` are missing."""
    lines = [
        "## Matching among fewer held-out cells", "",
        f"Held-out cells, some of them drawn at random, mean of {N_DRAWS} draws. The matching score is the confidence that common",
        "neighbours lead to the true match, with 1 neighbour. The neighbourhood overlap is the fraction of points with their true",
        f"match among the {N_NEAREST} nearest of both modalities, so it falls where the modalities lie apart.", "",
        "![Matching against the number of cells](_static/subsamples.png)", "",
    ]  # fmt: skip
    for name in SETS:
        of_set = results[results["set"] == name].dropna(axis="columns", how="all")
        if not len(of_set):
            continue
        columns = [(s, n) for s in SHOWN for n in SIZES if _key(s, n) in of_set]
        order = of_set.groupby("method")[_key(*columns[0])].mean().sort_values().index
        rows = header(["method", *(f"{s}{' ↓' * (s == 'FOSCTTM')}, {n:,}" for s, n in columns)])
        for method in order:
            of_method = of_set[of_set["method"] == method]
            rows.append(row([method, *(mean_and_spread(of_method[_key(*c)]) for c in columns)]))
        lines += tables.folded(title_of(name), rows)
        lines += tables.not_kept(results, quality[quality["FOSCTTM"].notna()], name)
    return lines


def draw(results: pd.DataFrame) -> None:
    """A column of panels per set, a row per score."""
    from matplotlib.figure import Figure

    scored = results[~results["method"].isin(OWN_VARIANTS)]  # they would lie on the defaults
    names = [name for name in SETS if name in set(scored["set"])]
    figure = Figure(figsize=(3.6 * len(names), 2.6 * len(SHOWN) + 0.8), layout="constrained")
    axes = figure.subplots(len(SHOWN), len(names), squeeze=False, sharex="col")
    look_of, handles = looks_of_lines(), {}
    for j, name in enumerate(names):
        of_set = scored[scored["set"] == name]
        for i, shown in enumerate(SHOWN):
            for method, of_method in of_set.groupby("method", sort=False):
                means = {n: of_method[_key(shown, n)].mean() for n in SIZES if of_method[_key(shown, n)].notna().any()}
                handles[method] = axes[i, j].plot(list(means), list(means.values()), lw=1, **look_of[method])[0]
            axes[i, j].set(
                xscale="log",
                ylim=(0, None),
                ylabel=label_of(shown) if j == 0 else "",
                title=title_of(name) if i == 0 else "",
            )
            sizes = [n for n in SIZES if of_set[_key(shown, n)].notna().any()]
            axes[i, j].set_xticks(sizes, [f"{n:,}" for n in sizes])
            axes[i, j].minorticks_off()
            axes[i, j].spines[["top", "right"]].set_visible(False)
        axes[-1, j].set_xlabel("cells")
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(FIGURES / "subsamples.png", dpi=120)
