"""From lines of results to docs/benchmarks.md and its figures. What the numbers mean in words stands in findings.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from . import methods, variants, verdicts
from .runner import read
from .scores import SCORES
from .sets import ROOT, SETS

RESULTS = ROOT / "benchmarks" / "results"
FINDINGS = ROOT / "benchmarks" / "findings.md"
PAGE = ROOT / "docs" / "benchmarks.md"
FIGURES = ROOT / "docs" / "_static"

MAIN = ("FOSCTTM", "recall@10", "kNN accuracy", "ARI", "NMI", "batch mixing", "batch ASW")
MORE = ("recall@1", "omics mixing", "omics ASW", "cell-type ASW")
ABLATED = ("FOSCTTM", "recall@10", "kNN accuracy", "ARI", "NMI")
COSTS = {"CPU s": ("fit_cpu_s", 0), "MB": ("peak_mb", 0)}


def write_page() -> None:
    """Both parts of the page, and the figures."""
    quality, ablation = (frame(read(RESULTS / f"{name}.jsonl")) for name in ("quality", "ablation"))
    findings = read_findings()
    lines = ["# Benchmarks", "", findings["protocol"], "", "## In short", "", findings["quality"], ""]
    if len(quality):
        _draw(quality)
        lines += ["![Matching against cell types, one panel per data set](_static/benchmarks.png)", ""]
    if len(quality):
        lines += verdicts.section(quality, list(methods.METHODS))
    lines += ["## Scores", "", *(f"- **{s.name}**: {s.about}." for s in SCORES.values()), ""]
    lines += ["## Methods", "", *_method_list(), ""]
    for name in SETS:
        lines += _set_section(name, quality)
    if len(ablation):
        lines += ["## What each part is worth", "", findings["ablation"], ""]
        for name in SETS:
            lines += _ablation_section(name, ablation)
    both = pd.concat([quality, ablation])
    lines += machines(both.loc[both["fit_s"].notna(), "machine"])
    PAGE.write_text("\n".join(lines))


def print_table(results: Path) -> None:
    """The same table of one file of results, for a terminal."""
    print(_table(frame(read(results)), (*MAIN, *MORE)))


def frame(results: list[dict]) -> pd.DataFrame:
    """One row per line, scores as columns."""
    return pd.DataFrame([{**{k: v for k, v in r.items() if k != "scores"}, **r.get("scores", {})} for r in results])


def read_findings() -> dict[str, str]:
    """Sections of findings.md by their heading."""
    parts = re.split(r"^# (\w+)\n", FINDINGS.read_text(), flags=re.MULTILINE)[1:]
    return {heading: text.strip() for heading, text in zip(parts[::2], parts[1::2], strict=True)}


def _method_list() -> list[str]:
    return [f"- **{m.name}**: {m.about}." for m in methods.METHODS.values()]


def _set_section(name: str, results: pd.DataFrame) -> list[str]:
    of_set = results[results["set"] == name] if len(results) else results
    scored = of_set[of_set["fit_s"].notna()] if len(of_set) else of_set
    if not len(scored):
        return []
    lines = [f"## {name}", "", SETS[name].about + ".", "", _table(scored, MAIN, COSTS), ""]
    more = _table(scored, MORE)
    lines += ["<details><summary>More scores</summary>", "", more, "", "</details>", ""] if more else []
    return lines + _not_run(of_set, scored)


def _ablation_section(name: str, results: pd.DataFrame) -> list[str]:
    of_set = results[(results["set"] == name) & results["fit_s"].notna()]
    if not len(of_set):
        return []
    order = {variant: i for i, variant in enumerate(variants.METHODS)}
    of_set = of_set[of_set["method"].isin(order)].sort_values("method", key=lambda m: m.map(order), kind="stable")
    return [f"### {name}", "", _table(of_set, ABLATED, {"CPU s": COSTS["CPU s"]}, first="variant"), ""]


def _not_run(of_set: pd.DataFrame, scored: pd.DataFrame) -> list[str]:
    """What is not in the table, and why: a missing row must not look like one that was forgotten."""
    missing = of_set[~of_set["method"].isin(scored["method"])]
    reasons = {}
    for row in missing.to_dict("records"):
        reason = row.get("skipped") if isinstance(row.get("skipped"), str) else f"failed: {row.get('failed')}"
        if not reason.startswith("made for"):
            reasons.setdefault(reason, []).append(row["method"])
    return [f"Not run: {', '.join(names)} ({reason})." for reason, names in reasons.items()] + ([""] if reasons else [])


def _table(results: pd.DataFrame, scores: tuple[str, ...], costs: dict | None = None, first: str = "method") -> str:
    """Mean over seeds, spread behind it; the best of each column in bold."""
    shown = [s for s in scores if s in results and results[s].notna().any()]
    if not shown:
        return ""
    by_method = results.groupby("method", sort=False)
    means = by_method[shown].mean()
    best = {s: means[s].min() if SCORES[s].lower_is_better else means[s].max() for s in shown}
    header = [first, "seeds", *(f"{s} ↓" if SCORES[s].lower_is_better else s for s in shown), *(costs or {})]
    lines = [row(header), row(["---"] + ["--:"] * (len(header) - 1))]
    order = means.sort_values(shown[0], ascending=SCORES[shown[0]].lower_is_better, na_position="last").index
    for method in order if first == "method" else means.index:
        rows = by_method.get_group(method)
        cells = [cell(rows[s], bold=means.at[method, s] == best[s]) for s in shown]
        spent = [f"{rows[column].mean():,.{digits}f}" for column, digits in (costs or {}).values()]
        lines.append(row([method, str(len(rows)), *cells, *spent]))
    return "\n".join(lines)


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(values: pd.Series, bold: bool) -> str:
    if values.isna().all():
        return "–"
    mean = f"**{values.mean():.3f}**" if bold else f"{values.mean():.3f}"
    return f"{mean} ± {values.std():.3f}" if len(values) > 1 else mean


def machines(found: Iterable[dict]) -> list[str]:
    """What the numbers were measured with, once per different answer."""
    fits = Counter(
        f"{m['device']}, {m['threads']} thread, Python {m['python']}, "
        + ", ".join(f"{name} {number}" for name, number in m["versions"].items())
        for m in found
    )
    return ["## Machine", "", *(f"- {n} fits: {text}." for text, n in fits.items()), ""]


def _draw(quality: pd.DataFrame) -> None:
    """Matching against cell types: the upper left corner is where one wants to be."""
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
        for method, row in means.iterrows():
            look = looks[method]
            if pd.isna(row["FOSCTTM"]):  # nothing to match with: a level that the others are held against
                handles[method] = axis.axhline(row["kNN accuracy"], ls=":", lw=1.5, color=look["color"], zorder=1)
            else:
                handles[method] = axis.plot(row["FOSCTTM"], row["kNN accuracy"], ls="", mec="white", mew=0.7, **look)[0]
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
    """The default of this package stands out and in front; the others differ by colour and marker."""
    from matplotlib import colormaps

    palette, markers = colormaps["tab20"].colors, "sDo^v<>Php"
    looks = {}
    for i, name in enumerate(names):
        color = palette[(2 * i) % 20 + (i >= 10)]
        looks[name] = {"color": color, "marker": markers[i % len(markers)], "ms": 8, "zorder": 2}
    if "scMamba" in looks:
        looks["scMamba"] = {"color": "black", "marker": "*", "ms": 15, "zorder": 3}
    return looks
