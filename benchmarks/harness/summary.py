"""The paper's biology, omics and overall scores of the methods of a set, from means over seeds."""

from __future__ import annotations

import pandas as pd

from .markdown import header, row
from .methods import OWN_VARIANTS

HEADS = {"bio": "cell types", "omics": "modalities", "overall": "overall"}


def summary(scored: pd.DataFrame, scale: str | None) -> pd.DataFrame | None:
    """Columns bio, omics and overall per method, or None where no method of the set has all the scores yet.

    ``scale`` is that of `overall_scores`; with "minmax" our own variants are left out, since they would move its ends.
    """
    from scmamba_scvi.metrics import METRICS, overall_scores

    names = [metric.name for metric in METRICS.values() if metric.in_summary]
    if not set(names) <= set(scored) or not scored[names].notna().all(axis=1).any():
        return None
    means = scored.groupby("method", sort=False)[names].mean()
    if scale == "minmax":
        means = means[~means.index.isin(OWN_VARIANTS)]
        if len(means) < 2:
            return None
    return overall_scores(means, scale)


def section(scored: pd.DataFrame) -> list[str]:
    """A table of both kinds, sorted by the overall score as it is."""
    raw, scaled = summary(scored, None), summary(scored, "minmax")
    if raw is None:
        return []
    kinds = {"": raw} if scaled is None else {"": raw, ", 0 worst to 1 best": scaled.reindex(raw.index)}
    lines = header(["method", *(f"{HEADS[part]}{kind}" for kind in kinds for part in HEADS)])
    for method in raw.sort_values("overall", ascending=False, na_position="last").index:
        values = [table.at[method, part] for table in kinds.values() for part in HEADS]
        lines.append(row([method, *("–" if pd.isna(v) else f"{v:.3f}" for v in values)]))
    about = "The paper's means of scores, as they are and scaled over the methods of the set; variants of this package are not scaled:"
    return [about, "", *lines, ""]
