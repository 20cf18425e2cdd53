"""When a difference counts, and the defaults against every other method: in how many scores better, the same or worse."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .markdown import header, row
from .scores import COUNTED, SCORES
from .sets import title_of

OURS = "scmamba-scvi"
#: A difference of more than so many standard deviations over seeds counts.
N_DEVIATIONS = 2


def compare(results: pd.DataFrame, seeded: pd.DataFrame | None = None) -> pd.DataFrame:
    """A row per (rival, set, score) that both have: difference, positive where ours is better, and the margin.

    ``seeded`` are results from which the usual spread over seeds is taken, where ``results`` have one seed each.
    """
    scored, others = (of[of["fit_s"].notna()] for of in (results, results if seeded is None else seeded))
    rows = []
    for score in [s for s in COUNTED if s in scored]:
        values = scored.assign(value=SCORES[score].quality(scored[score]))
        usual = _usual_spread(others.assign(value=SCORES[score].quality(others[score])))
        for name, of_set in values.groupby("set", sort=False):
            by_method = of_set.groupby("method", sort=False)["value"].agg(["mean", "std", "count"])
            if OURS not in by_method.index or np.isnan(by_method.at[OURS, "mean"]):
                continue
            ours = by_method.loc[OURS]
            for name_of_rival, rival in by_method.drop(OURS).iterrows():
                if np.isnan(rival["mean"]):
                    continue
                own = [method["std"] for method in (ours, rival) if method["count"] > 1]
                spread = max(own) if own else usual
                rows.append((name_of_rival, name, score, ours["mean"] - rival["mean"], N_DEVIATIONS * spread))
    return pd.DataFrame(rows, columns=["method", "set", "score", "gain", "margin"])


def _usual_spread(values: pd.DataFrame) -> float:
    """What stands in where no method has several seeds on a set: our median spread over the sets that have them."""
    ours = values[values["method"] == OURS].groupby("set")["value"].agg(["std", "count"])
    return float(ours.loc[ours["count"] > 1, "std"].median())


def section(results: pd.DataFrame, order: list[str]) -> list[str]:
    """Lines of docs/benchmarks-results.md."""
    table = compare(results)
    lines = [
        "## The defaults against each method", "",
        f"Over all sets and all scores: in how many the defaults are better, the same or worse. Better and worse mean by more than {N_DEVIATIONS}",
        "standard deviations over seeds (of the set; of the median set where it was fitted once).", "",
        *header(["against", "better", "same", "worse"], n_left=1),
    ]  # fmt: skip
    losses = []
    for method in order:
        of_method = table[table["method"] == method]
        if not len(of_method):
            continue
        worse = of_method[of_method["gain"] < -of_method["margin"]]
        better = int((of_method["gain"] > of_method["margin"]).sum())
        same = len(of_method) - better - len(worse)
        lines.append(row([method, str(better), str(same), str(len(worse))]))
        losses += [f"- **{method}**: {'; '.join(_where(worse))}."] if len(worse) else []
    return [*lines, "", "Where the defaults are worse:", "", *losses, ""]


def _where(worse: pd.DataFrame) -> list[str]:
    """Each score with its sets and the differences."""
    return [
        f"{score} on {', '.join(f'{title_of(one.set)} by {-one.gain:.3f}' for one in of_score.itertuples())}"
        for score, of_score in worse.groupby("score", sort=False)
    ]
