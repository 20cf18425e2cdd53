"""From lines of results to docs/benchmarks.md and its figure. What the numbers mean in words is in findings.md."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from . import methods, variants, verdicts
from .markdown import header, machines, mean_and_spread, read_findings, row
from .paths import DOCS, FIGURES, RESULTS
from .runner import read
from .scores import SCORES
from .sets import SETS

PAGE = DOCS / "benchmarks.md"

MAIN = ("FOSCTTM", "recall@10", "kNN accuracy", "ARI", "NMI", "batch mixing", "batch ASW")
MORE = ("recall@1", "omics mixing", "omics ASW", "cell-type ASW")
ABLATED = ("FOSCTTM", "recall@10", "kNN accuracy", "ARI", "NMI")
#: Heading of a column -> entry of a line of results.
COSTS = {"CPU s": "fit_cpu_s", "MB": "peak_mb"}


def write_page() -> None:
    """The page and its figure, from the results that are there."""
    quality = frame(read(RESULTS / "quality.jsonl"))
    _draw(quality)
    PAGE.write_text("\n".join(page_lines(quality, frame(read(RESULTS / "ablation.jsonl")))))


def page_lines(quality: pd.DataFrame, ablation: pd.DataFrame) -> list[str]:
    """Lines of the page: the comparison with other methods, then the ablation."""
    findings = read_findings()
    lines = [
        "# Benchmarks", "", findings["protocol"], "", "## In short", "", findings["quality"], "",
        "![Matching against cell types, one panel per data set](_static/benchmarks.png)", "",
        *verdicts.section(quality, list(methods.METHODS)),
        "## Scores", "", *(f"- **{s.name}**: {s.about}." for s in SCORES.values()), "",
        "## Methods", "", *(f"- **{m.name}**: {m.about}." for m in methods.METHODS.values()), "",
    ]  # fmt: skip
    for name in SETS:
        lines += _set_section(name, quality)
    lines += ["## What each part is worth", "", findings["ablation"], ""]
    for name in SETS:
        lines += _ablation_section(name, ablation)
    both = pd.concat([quality, ablation])
    return lines + machines(both.loc[both["fit_s"].notna(), "machine"])


def print_table(results: Path) -> None:
    """The same table of one file of results, for a terminal."""
    print(_table(frame(read(results)), (*MAIN, *MORE)))


def frame(results: list[dict]) -> pd.DataFrame:
    """One row per line, scores as columns."""
    return pd.DataFrame([{**{k: v for k, v in r.items() if k != "scores"}, **r.get("scores", {})} for r in results])


def _set_section(name: str, results: pd.DataFrame) -> list[str]:
    of_set = results[results["set"] == name]
    scored = of_set[of_set["fit_s"].notna()]
    if not len(scored):
        return []
    lines = [f"## {name}", "", SETS[name].about + ".", "", _table(scored, MAIN, COSTS), "", *_epochs(scored)]
    more = _table(scored, MORE)
    lines += ["<details><summary>More scores</summary>", "", more, "", "</details>", ""] if more else []
    return lines + _not_run(of_set, scored)


def _epochs(scored: pd.DataFrame) -> list[str]:
    """Epochs of the methods that stop by themselves or are cut short on a CPU, beside what they would take at most."""
    found = [
        f"{result['method']} {result['notes']['epochs']} ({result['notes']['epochs by default']})"
        for result in scored.to_dict("records")
        if isinstance(result["notes"], dict) and "epochs by default" in result["notes"]
    ]
    return [f"Epochs, in brackets those by default: {', '.join(found)}.", ""] if found else []


def _ablation_section(name: str, results: pd.DataFrame) -> list[str]:
    of_set = results[(results["set"] == name) & results["fit_s"].notna()]
    if not len(of_set):
        return []
    order = {variant: i for i, variant in enumerate(variants.METHODS)}
    of_set = of_set[of_set["method"].isin(order)].sort_values("method", key=lambda m: m.map(order), kind="stable")
    return [f"### {name}", "", _table(of_set, ABLATED, {"CPU s": COSTS["CPU s"]}, first="variant", ranked=False), ""]


def _not_run(of_set: pd.DataFrame, scored: pd.DataFrame) -> list[str]:
    """What is not in the table, and why: a missing row must not look like one that was forgotten."""
    missing = of_set[~of_set["method"].isin(scored["method"])]
    reasons = {}
    for result in missing.to_dict("records"):
        skipped = result.get("skipped")
        reason = skipped if isinstance(skipped, str) else f"failed: {result.get('failed')}"
        if not reason.startswith("made for"):
            reasons.setdefault(reason, []).append(result["method"])
    return [f"Not run: {', '.join(names)} ({reason})." for reason, names in reasons.items()] + ([""] if reasons else [])


def _table(
    results: pd.DataFrame,
    scores: tuple[str, ...],
    costs: dict[str, str] | None = None,
    *,
    first: str = "method",
    ranked: bool = True,
) -> str:
    """A row per method, of its mean and spread over seeds; the best of each column in bold.

    ``ranked`` sorts by the first score; otherwise rows stay in the order of ``results``.
    """
    costs = costs or {}
    shown = [s for s in scores if s in results and results[s].notna().any()]
    if not shown:
        return ""
    by_method = results.groupby("method", sort=False)
    means = by_method[shown].mean()
    best = {s: means[s].min() if SCORES[s].lower_is_better else means[s].max() for s in shown}
    lines = header([first, "seeds", *(f"{s} ↓" if SCORES[s].lower_is_better else s for s in shown), *costs])
    if ranked:
        means = means.sort_values(shown[0], ascending=SCORES[shown[0]].lower_is_better, na_position="last")
    for method in means.index:
        of_method = by_method.get_group(method)
        cells = [mean_and_spread(of_method[s], bold=means.at[method, s] == best[s]) for s in shown]
        spent = [f"{of_method[column].mean():,.0f}" for column in costs.values()]
        lines.append(row([method, str(len(of_method)), *cells, *spent]))
    return "\n".join(lines)


def _draw(quality: pd.DataFrame) -> None:
    """Matching against cell types, one panel per set: the best methods are in the upper left corner."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    scored = quality[quality["fit_s"].notna() & quality["kNN accuracy"].notna()]
    names = [name for name in SETS if name in set(scored.loc[scored["FOSCTTM"].notna(), "set"])]
    n_columns = 3
    n_rows = -(-len(names) // n_columns)
    figure = Figure(figsize=(4.2 * n_columns, 3.4 * n_rows + 1.4), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    looks = _looks([m for m in methods.METHODS if m in set(scored["method"])])
    handles = {}
    for i, (axis, name) in enumerate(zip(axes, names, strict=False)):
        means = scored[scored["set"] == name].groupby("method", sort=False)[["FOSCTTM", "kNN accuracy"]].mean()
        for method, foscttm, accuracy in means.itertuples():
            look = looks[method]
            if pd.isna(foscttm):  # one embedding for both modalities, nothing to match: a line to compare with
                handles[method] = axis.axhline(accuracy, ls=":", lw=1.5, color=look["color"], zorder=1)
            else:
                handles[method] = axis.plot(foscttm, accuracy, ls="", mec="white", mew=0.7, **look)[0]
        axis.set(title=name, xlabel="FOSCTTM (lower is better)", xscale="log")
        axis.set_ylabel("kNN accuracy" if i % n_columns == 0 else "")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.margins(0.08)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    ordered = [m for m in looks if m in handles]
    figure.legend([handles[m] for m in ordered], ordered, loc="outside lower center", ncols=4, frameon=False)
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(FIGURES / "benchmarks.png", dpi=120)


def _looks(names: list[str]) -> dict[str, dict[str, object]]:
    """The default of this package as a large black star in front; the others differ by colour and marker."""
    from matplotlib import colormaps

    palette, markers = colormaps["tab20"].colors, "sDo^v<>Php"
    looks = {}
    for i, name in enumerate(names):
        color = palette[(2 * i) % 20 + (i >= 10)]
        looks[name] = {"color": color, "marker": markers[i % len(markers)], "ms": 8, "zorder": 2}
    if verdicts.OURS in looks:
        looks[verdicts.OURS] = {"color": "black", "marker": "*", "ms": 15, "zorder": 3}
    return looks
