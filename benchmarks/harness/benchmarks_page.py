"""From lines of results to docs/benchmarks.md, docs/benchmarks-results.md and their figures. What the numbers mean in words is in findings.md."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from . import (
    all_cells_page,
    cost,
    held_out_batches,
    learning,
    methods,
    opening,
    splits,
    subsamples,
    summary,
    tables,
    trajectory,
    variants,
    verdicts,
)
from .looks import looks
from .markdown import machines, read_findings
from .paths import DOCS, FIGURES, RESULTS
from .runner import read
from .scores import SCORES
from .sets import SETS, title_of
from .tables import frame

PAGE, ALL_ROWS = DOCS / "benchmarks.md", DOCS / "benchmarks-results.md"
NAMES = "docs/benchmarks.md and docs/benchmarks-results.md"

MAIN = ("FOSCTTM", "recall@10", "kNN accuracy", "ARI", "NMI", "batch mixing", "batch ASW")
MORE = (
    "recall@1", "omics mixing", "Seurat alignment", "graph connectivity", "omics ASW", "other modality", "MAP", "cell-type ASW",
    "ARI spread", "NMI spread",
)  # fmt: skip
ABLATED = ("FOSCTTM", "recall@10", "kNN accuracy", "ARI", "NMI")
#: Lines of methods that have one embedding of both modalities, in the figure of matching against cell types.
DASHES = ("-", (0, (1, 1.2)), (0, (6, 2)), (0, (8, 2, 1.5, 2)))


def write_page() -> None:
    """Both pages and their figures, from the results that are there."""
    _draw(_read("quality"))
    learning.draw(_read("learning_curve"))
    subsamples.draw(_read("subsamples"))
    cost.draw(_read("all_cells"), FIGURES / "quality_and_cost.png")
    cost.draw(_read("all_cells"), FIGURES / "types_and_seconds.png", named=opening.NAMED)
    PAGE.write_text("\n".join(page_lines()))
    ALL_ROWS.write_text("\n".join(row_lines()))


def page_lines() -> list[str]:
    """Lines of the page that people read first: a figure, a table, what they mean, where others are better, and the rest."""
    held_out, all_cells = _read("quality"), _read("all_cells")
    return [
        "# Benchmarks", "", *opening.section(held_out, all_cells),
        "## In short", "", read_findings()["quality"], "",
        "## Where others are better", "", *opening.losses(held_out, all_cells),
        "{doc}`benchmarks-results` has the protocol, every method on every set, and what each part of the model is worth.", "",
    ]  # fmt: skip


def row_lines() -> list[str]:
    """Lines of the page behind it: held-out cells, others, some of them, all cells, a lineage, new donors, costs, fewer cells, the ablation."""
    names = (
        "quality",
        "ablation",
        "all_cells",
        "trajectory",
        "held_out_batches",
        "cost",
        "learning_curve",
        "subsamples",
        "splits",
    )
    found = {name: _read(name) for name in names}
    quality, findings = found["quality"], read_findings()
    lines = [
        "# Benchmarks: all results", "", "{doc}`benchmarks` has them in short.", "",
        "![Matching against cell types, one panel per data set](_static/benchmarks.png)", "",
        *verdicts.section(quality, list(methods.METHODS)),
        "## Protocol", "", findings["protocol"], "",
        "## Scores", "", *(f"- **{s.name}**: {s.about}." for s in SCORES.values()), "",
        "## Methods", "", *(f"- **{m.name}**: {m.about}." for m in methods.METHODS.values()), "",
    ]  # fmt: skip
    for name in SETS:
        lines += _set_section(name, quality)
    lines += [
        *splits.section(found["splits"], quality), *subsamples.section(found["subsamples"], quality),
        *all_cells_page.section(found["all_cells"]), *trajectory.section(found["trajectory"], found["all_cells"]),
        *held_out_batches.section(found["held_out_batches"]), *cost.section(found["cost"]),
        *learning.section(found["learning_curve"]), "## What each part is worth", "", findings["ablation"], "",
    ]  # fmt: skip
    for name in SETS:
        lines += _ablation_section(name, found["ablation"])
    fitted = [results.loc[results["fit_s"].notna(), "machine"] for results in found.values()]
    return lines + machines(pd.concat(fitted))


def _read(name: str) -> pd.DataFrame:
    return frame(read(RESULTS / f"{name}.jsonl"))


def print_table(results: Path) -> None:
    """The same table of one file of results, for a terminal."""
    print(tables.table(frame(read(results)), (*MAIN, *MORE)))


def _set_section(name: str, results: pd.DataFrame) -> list[str]:
    of_set = results[results["set"] == name]
    scored = of_set[of_set["fit_s"].notna()]
    if not len(scored):
        return []
    lines = [
        f"## {title_of(name)}",
        "",
        f"{SETS[name].about} (`--sets {name}`).",
        "",
        tables.table(scored, MAIN, tables.COSTS),
        "",
        *tables.epochs(scored),
    ]
    more = tables.table(scored, MORE)
    lines += [*summary.section(scored), *(tables.folded("More scores", more) if more else [])]
    return lines + tables.not_run(of_set, methods.METHODS)


def _ablation_section(name: str, results: pd.DataFrame) -> list[str]:
    of_set = results[(results["set"] == name) & results["fit_s"].notna()]
    if not len(of_set):
        return []
    order = {variant: i for i, variant in enumerate(variants.METHODS)}
    of_set = of_set[of_set["method"].isin(order)].sort_values("method", key=lambda m: m.map(order), kind="stable")
    return [
        f"### {title_of(name)}",
        "",
        tables.table(of_set, ABLATED, {"CPU s": "fit_cpu_s"}, first="variant", ranked=False),
        "",
    ]


def _draw(quality: pd.DataFrame) -> None:
    """Matching against cell types, one panel per set: the best methods are in the upper left corner."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    scored = quality[quality["fit_s"].notna() & quality["kNN accuracy"].notna()]
    scored = scored[~scored["method"].isin(methods.OWN_VARIANTS)]  # they would lie on the defaults
    names = [name for name in SETS if name in set(scored.loc[scored["FOSCTTM"].notna(), "set"])]
    n_columns = 3
    n_rows = -(-len(names) // n_columns)
    figure = Figure(figsize=(4.2 * n_columns, 3.4 * n_rows + 1.4), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    look_of, handles = looks(), {}
    unmatched = [m for m, values in scored.groupby("method", sort=False)["FOSCTTM"] if values.isna().all()]
    dashes = dict(zip(unmatched, DASHES, strict=True))
    for i, (axis, name) in enumerate(zip(axes, names, strict=False)):
        of_method = scored[scored["set"] == name].groupby("method", sort=False)[["FOSCTTM", "kNN accuracy"]]
        spread = of_method.std().fillna(0)
        for method, foscttm, accuracy in of_method.mean().itertuples():
            look = look_of[method]
            if pd.isna(foscttm):  # one embedding for both modalities, nothing to match: a line to compare with
                handles[method] = axis.axhline(accuracy, ls=dashes[method], lw=1.5, color=look["color"], zorder=1)
            else:
                handles[method] = axis.plot(foscttm, accuracy, ls="", **look)[0]
                x, y = spread.loc[method]
                axis.errorbar(foscttm, accuracy, y, x, color=look["color"], lw=1, zorder=look["zorder"])
        axis.set(title=title_of(name), xlabel="FOSCTTM (lower is better)", xscale="log")
        axis.set_ylabel("kNN accuracy" if i % n_columns == 0 else "")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.margins(0.08)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    ordered = [m for m in look_of if m in handles]
    figure.legend([handles[m] for m in ordered], ordered, loc="outside lower center", ncols=4, frameon=False)
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(FIGURES / "benchmarks.png", dpi=120)
