"""Tables of methods, and what stands below them."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from .markdown import header, mean_and_spread, row
from .scores import SCORES
from .sets import title_of

#: Heading of a column -> entry of a line of results; that of the first seed is shown, since most methods were fitted once.
COSTS = {"CPU s": "fit_cpu_s", "MB": "peak_mb"}


def frame(results: list[dict]) -> pd.DataFrame:
    """One row per line, scores as columns."""
    return pd.DataFrame([{**{k: v for k, v in r.items() if k != "scores"}, **r.get("scores", {})} for r in results])


def scored_on(name: str, results: pd.DataFrame) -> pd.DataFrame:
    """The rows of the set ``name`` that have scores: the others say why they have none."""
    return results[(results["set"] == name) & results["fit_s"].notna()]


def table(
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
    quality = pd.DataFrame({s: SCORES[s].quality(means[s]) for s in shown})
    lines = header([first, "seeds", *(f"{s} ↓" if SCORES[s].lower_is_better else s for s in shown), *costs])
    order = quality.sort_values(shown[0], ascending=False, na_position="last").index if ranked else means.index
    for method in order:
        of_method = by_method.get_group(method)
        of_first = of_method.loc[of_method["seed"].idxmin()]
        cells = [mean_and_spread(of_method[s], bold=quality.at[method, s] == quality[s].max()) for s in shown]
        spent = [f"{of_first[column]:,.0f}" for column in costs.values()]
        lines.append(row([method, str(len(of_method)), *cells, *spent]))
    return "\n".join(lines)


def epochs(scored: pd.DataFrame) -> list[str]:
    """Epochs of the methods that stop by themselves or are cut short on a CPU, beside what they would take at most."""
    found = [
        f"{result['method']} {result['notes']['epochs']} ({result['notes']['epochs by default']})"
        for result in scored.to_dict("records")
        if isinstance(result["notes"], dict) and "epochs by default" in result["notes"]
    ]
    return [f"Epochs, in brackets those by default: {', '.join(found)}.", ""] if found else []


def not_run(of_set: pd.DataFrame, methods: Iterable[str]) -> list[str]:
    """What is not in the table, and why: a missing row must not look like one that was forgotten."""
    scored = set(of_set.loc[of_set["fit_s"].notna(), "method"])
    tried = {r["method"]: r for r in of_set.to_dict("records")}
    reasons: dict[str, list[str]] = {}
    for method in methods:
        if method not in scored:
            reasons.setdefault(_reason(tried.get(method)), []).append(method)
    missing = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
    return [f"Not run: {missing}.", ""] if missing else []


def not_kept(found: pd.DataFrame, fitted: pd.DataFrame, name: str) -> list[str]:
    """Methods that were ``fitted`` to the set ``name`` and are not ``found``, where embeddings that were kept are scored."""
    scored = set(found.loc[found["set"] == name, "method"])
    missing = ", ".join(m for m in dict.fromkeys(scored_on(name, fitted)["method"]) if m not in scored)
    return [f"{title_of(name)}, not scored, since their embeddings were not kept: {missing}.", ""] if missing else []


def folded(title: str, lines: list[str]) -> list[str]:
    """Lines that a reader opens."""
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>", ""]


def _reason(result: dict | None) -> str:
    if result is None:
        return "not yet run"
    return result["skipped"] if isinstance(result.get("skipped"), str) else f"failed: {result.get('failed')}"
