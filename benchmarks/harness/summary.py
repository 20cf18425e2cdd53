"""The paper's biology, omics and overall scores of the methods of a set, from means over seeds."""

from __future__ import annotations

import pandas as pd

from .methods import OWN_VARIANTS

NAMES = {"bio": "cell types", "omics": "modalities", "overall": "overall"}


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


def with_means(scored: pd.DataFrame) -> pd.DataFrame:
    """``scored`` with the means scaled and as they are, in the line of each method's first seed."""
    first = ~scored.sort_values("seed").duplicated("method")
    for scale, unscaled in (("minmax", ""), (None, ", unscaled")):
        found = summary(scored, scale)
        for part, name in NAMES.items() if found is not None else ():
            scored = scored.assign(**{f"{name}{unscaled}": scored["method"].map(found[part]).where(first)})
    return scored
