"""From lines of results to docs/benchmarks*.md and their figures. What the numbers mean in words is in findings.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from . import (
    all_cells,
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
from .markdown import header, machines, read_findings, row
from .paths import DOCS, FIGURES, RESULTS
from .runner import read
from .scores import SCORES
from .sets import REAL, SETS, title_of
from .tables import frame

NAMES = "docs/benchmarks*.md"
RESULTS_OF = (
    "quality", "all_cells", "ablation", "trajectory", "held_out_batches", "cost", "learning_curve", "subsamples", "splits",
)  # fmt: skip

MAIN = ("kNN accuracy", "kNN, other batches", "ARI", "batch mixing", "FOSCTTM", "recall@10", "overall")
#: Scores that a reader opens.
FOLDED = {
    "More scores of cell types and batches": (
        "NMI", "MAP", "cell-type ASW", "batch ASW", "cell types", "cell types, unscaled", "ARI spread", "NMI spread",
    ),
    "More scores of matching and modalities": (
        "recall@1", "omics mixing", "Seurat alignment", "graph connectivity", "omics ASW", "other modality", "modalities",
        "modalities, unscaled", "overall, unscaled",
    ),
}  # fmt: skip
GLANCE = ("kNN accuracy", "ARI", "batch mixing", "recall@10")
ABLATED = ("FOSCTTM", "recall@10", "kNN accuracy", "ARI", "NMI")
#: Lines of methods that have one embedding of both modalities, in the figure of matching against cell types.
DASHES = ("-", (0, (1, 1.2)), (0, (6, 2)), (0, (8, 2, 1.5, 2)))

#: Methods that a user may choose, of those that are fitted to held-out cells; the rest are variants of ours.
CHOICES = [name for name in methods.METHODS if name in all_cells.METHODS]
VARIANTS = [name for name in methods.METHODS if name == verdicts.OURS or name in methods.OWN_VARIANTS]


def write_page() -> None:
    """All pages and their figures, from the results that are there."""
    _draw(_read("quality"))
    learning.draw(_read("learning_curve"))
    subsamples.draw(_read("subsamples"))
    cost.draw(_read("all_cells"), FIGURES / "quality_and_cost.png")
    cost.draw(_read("all_cells"), FIGURES / "types_and_seconds.png", named=opening.NAMED)
    for page, lines in pages().items():
        page.write_text("\n".join(lines))


def pages() -> dict[Path, list[str]]:
    """The lines of each page: its title, the answer in words of findings.md, then figures and tables."""
    found = {name: _read(name) for name in RESULTS_OF}
    quality, every, findings = found["quality"], found["all_cells"], read_findings()
    machine = pd.concat([results.loc[results["fit_s"].notna(), "machine"] for results in found.values()])
    answers = {
        "benchmarks": ("Benchmarks", [findings["short"], "", *opening.section(quality, every), findings["quality"], ""]),
        "benchmarks-methods": (
            "Which method for data like mine?",
            [findings["methods"], "", *_methods(quality, every, found["trajectory"])],
        ),
        "benchmarks-fewer-cells": (
            "What do fewer cells cost?",
            [findings["fewer"], "", *learning.section(found["learning_curve"]), *subsamples.section(found["subsamples"], quality)],
        ),
        "benchmarks-new-donors": (
            "Cells of new donors", [findings["donors"], "", *held_out_batches.section(found["held_out_batches"])],
        ),
        "benchmarks-parts": ("What is each part worth?", [findings["ablation"], "", *_parts(quality, found["ablation"])]),
        "benchmarks-cost": ("What does it cost?", [findings["cost"], "", *cost.section(found["cost"])]),
        "benchmarks-protocol": (
            "How it was measured",
            [findings["protocol"], "", *_definitions(), *splits.section(found["splits"], quality), *machines(machine)],
        ),
    }  # fmt: skip
    front, *others = answers
    answers[front][1].extend(["```{toctree}", ":hidden:", "", *others, "```", ""])
    return {DOCS / f"{name}.md": [f"# {title}", "", *lines] for name, (title, lines) in answers.items()}


def _read(name: str) -> pd.DataFrame:
    return frame(read(RESULTS / f"{name}.jsonl"))


def print_table(results: Path) -> None:
    """The same table of one file of results, for a terminal."""
    print(tables.table(frame(read(results)), (*MAIN, *(score for scores in FOLDED.values() for score in scores))))


def _methods(quality: pd.DataFrame, every: pd.DataFrame, lineages: pd.DataFrame) -> list[str]:
    """At a glance, in how many scores who is ahead, then held-out cells and all cells of each set, and the lineages."""
    tracks = {"held-out cells": verdicts.compare(quality), "all cells": verdicts.compare(every, quality)}
    lines = [
        "## At a glance", "", "Held-out cells: the defaults beside the best of the other methods, which is not always the same.", "",
        *_glance(quality),
        "![Matching against cell types, one panel per data set](_static/benchmarks.png)", "",
        "## In how many scores who is ahead", "",
        f"Over all sets and scores; better and worse mean by more than {verdicts.N_DEVIATIONS} standard deviations over seeds, as in",
        "{doc}`benchmarks-protocol`. Which scores these are stands below the tables of each set.", "",
        *verdicts.counts(tracks, all_cells.METHODS),
    ]  # fmt: skip
    simulated = []
    for name in SETS:
        held_out = _tables(name, quality, CHOICES, tracks["held-out cells"])
        if name not in REAL:
            simulated += tables.folded(title_of(name), held_out)
            continue
        lines += [f"## {title_of(name)}", "", *held_out]
        if name in set(every["set"]):
            of_every = _tables(name, every, all_cells.METHODS, tracks["all cells"])
            lines += [f"### {title_of(name)}: all cells", "", *of_every]
    return [*lines, *trajectory.section(lineages, every), "## Simulated cells", "", *simulated]


def _glance(quality: pd.DataFrame) -> list[str]:
    """A row for each set: our scores, and behind each the best of the other methods."""
    lines = header(["data", *GLANCE], n_left=1 + len(GLANCE))
    for name in SETS:
        scored = summary.with_means(tables.scored_on(name, quality)).reindex(columns=["method", *GLANCE])
        means = scored[~scored["method"].isin(methods.OWN_VARIANTS)].groupby("method").mean()
        lines.append(row([title_of(name), *(_beside(means[score].dropna()) for score in GLANCE)]))
    return [*lines, ""]


def _beside(values: pd.Series) -> str:
    if verdicts.OURS not in values or len(values) < 2:
        return "–"
    ours, others = values[verdicts.OURS], values.drop(verdicts.OURS)
    shown = (
        (f"**{ours:.3f}**", f"{others.max():.3f}")
        if ours >= others.max()
        else (f"{ours:.3f}", f"**{others.max():.3f}**")
    )
    return f"{shown[0]}, {others.idxmax()} {shown[1]}"


def _parts(quality: pd.DataFrame, ablation: pd.DataFrame) -> list[str]:
    """The ablation, in the order of its variants, then variants of the whole model beside the defaults."""
    compared, order = verdicts.compare(quality), list(variants.METHODS)
    lines = ["## One thing changed at a time", ""]
    for name in SETS:
        of_set = tables.scored_on(name, ablation).sort_values("method", key=lambda m: m.map(order.index), kind="stable")
        found = tables.table(of_set, ABLATED, {"CPU s": "fit_cpu_s"}, first="variant", ranked=False)
        lines += [f"### {title_of(name)}", "", found, ""] if found else []
    lines += [
        "## Other models beside the defaults", "",
        "Held-out cells. In how many scores of all sets the defaults are better, the same or worse:", "",
        *verdicts.counts({"held-out cells": compared}, VARIANTS),
    ]  # fmt: skip
    for name in SETS:
        lines += tables.folded(title_of(name), _tables(name, quality, VARIANTS, compared))
    return lines


def _definitions() -> list[str]:
    known = {**methods.METHODS, **all_cells.METHODS, **held_out_batches.METHODS}
    return [
        "## Scores", "", *(f"- **{s.name}**: {s.about}." for s in SCORES.values()), "",
        "## Methods", "", *(f"- **{m.name}**: {m.about}." for m in known.values()), "",
    ]  # fmt: skip


def _tables(name: str, results: pd.DataFrame, names: Sequence[str], compared: pd.DataFrame) -> list[str]:
    """The main scores of a set, who is better than the defaults in what, who is missing and why, and more scores to open."""
    scored = summary.with_means(tables.scored_on(name, results))
    scored = scored[scored["method"].isin(names)]
    lines = [
        f"{SETS[name].about} (`--sets {name}`).", "",
        tables.table(scored, MAIN, tables.COSTS), "", *verdicts.losses(compared, name, names), *tables.epochs(scored),
        *tables.not_run(results[results["set"] == name], names),
    ]  # fmt: skip
    for title, scores in FOLDED.items():
        more = tables.table(scored, scores)
        lines += tables.folded(title, [more]) if more else []
    return lines


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
