"""When a difference counts, and the defaults against every other method: in how many scores better, the same or worse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd

from .markdown import header, row
from .scores import COUNTED, SCORES

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


def counts(compared: dict[str, pd.DataFrame], names: Iterable[str]) -> list[str]:
    """A row for each of ``names``: in how many sets and scores the defaults are better, the same or worse; a column for each track."""
    verdicts = {
        track: np.select([of["gain"] > of["margin"], of["gain"] < -of["margin"]], ["better", "worse"], "same")
        for track, of in compared.items()
    }
    lines = header(
        ["the defaults against", *(f"{track}: {what}" for track in compared for what in ("better", "same", "worse"))]
    )
    for name in names:
        found = [Counter(verdicts[track][of["method"] == name]) for track, of in compared.items()]
        if any(found):
            cells = [str(of[what]) if of else "–" for of in found for what in ("better", "same", "worse")]
            lines.append(row([name, *cells]))
    return [*lines, ""]


def losses(compared: pd.DataFrame, name: str, names: Iterable[str]) -> list[str]:
    """A table of those of ``names`` that are better than the defaults on a set, with the scores and the differences."""
    of_set = compared[(compared["set"] == name) & compared["method"].isin(names)]
    if not len(of_set):
        return []
    lines = header(["better than the defaults", "in, and by how much"], n_left=2)
    for method, rows in of_set[of_set["gain"] < -of_set["margin"]].groupby("method", sort=False):
        lines.append(row([method, ", ".join(f"{one.score} ({-one.gain:.3f})" for one in rows.itertuples())]))
    return [*lines, *([row(["none", ""])] if len(lines) == 2 else []), ""]
