"""Known markers of simulated types among all features, ranked by `get_region_importance`.

    python benchmarks/region_importance.py
    python benchmarks/region_importance.py --sets multiome_weak_batches --seeds 0

For each type the AUROC of its markers among all features; mean over types, and the lowest of them. Beside the importance
stands the difference of mean log counts between the cells of the type and all others, which needs no model. The
sets are simulated, since nothing else has markers that are known. Writes benchmarks/results/region_importance.json.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from harness.after import fitted, get_set, parser, run
from region_links import log_counts
from sklearn.metrics import roc_auc_score

NAMES = ("multiome_weak_batches", "multiome_shallow")


def difference_of_means(adata, of_type: np.ndarray) -> pd.Series:
    """Mean log counts of the cells of a type, less those of all other cells; one number per feature."""
    x = log_counts(adata.X).tocsr()
    inside, outside = (np.asarray(x[cells].mean(0)).ravel() for cells in (of_type, ~of_type))
    return pd.Series(inside - outside, index=adata.var_names)


def measure(name: str, seed: int) -> dict[str, object]:
    dataset = get_set(name)
    mdata = dataset.load()
    model = fitted(dataset, mdata, seed)
    types = mdata.obs[dataset.labels_key].astype(str)
    out: dict[str, object] = {"cells": mdata.n_obs, "types": types.nunique(), "rarest": int(types.value_counts().min())}
    for kind, key in model.kinds.items():
        table = model.get_region_importance(groupby=dataset.labels_key, modality=kind)
        of_cell, marker_of = types.reindex(mdata[key].obs_names), mdata[key].var["marker_of"]
        found: dict[str, list[float]] = {"importance": [], "difference of means": []}
        for group, part in table.groupby("group"):
            part = part.set_index("name")
            part["difference of means"] = difference_of_means(mdata[key], (of_cell == group).to_numpy())
            marker = (marker_of == group).reindex(part.index)
            for column, aurocs in found.items():
                aurocs.append(float(roc_auc_score(marker, part[column])))
        out[kind] = {column: {"mean": float(np.mean(a)), "lowest": min(a)} for column, a in found.items()}
    return out


def main(argv: list[str] | None = None) -> None:
    run("region_importance", measure, parser(__doc__, NAMES).parse_args(argv))


if __name__ == "__main__":
    main()
