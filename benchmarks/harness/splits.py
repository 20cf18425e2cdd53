"""Sets with other held-out cells, and their section of docs/benchmarks-protocol.md."""

from __future__ import annotations

import dataclasses

import pandas as pd

from .markdown import header, row
from .sets import SETS, DataSet, title_of

METHODS = ["scmamba-scvi", "linear", "weighted CCA", "CCA"]
#: Seeds of the permutations whose first fifth is held out; 0 is that of all other tracks.
OTHERS = (1, 2)
#: Between the name of a set and its split.
SEPARATOR = "#"
SHOWN = ("FOSCTTM", "recall@10", "other modality", "kNN accuracy", "ARI")


def parts(dataset: DataSet) -> list[DataSet]:
    """The set with each of the other splits."""
    return [dataclasses.replace(dataset, name=f"{dataset.name}{SEPARATOR}{n}", split=n) for n in OTHERS]


def section(results: pd.DataFrame, quality: pd.DataFrame) -> list[str]:
    """A table per set, a row per method, the scores of each split in one cell."""
    first = quality[quality["seed"] == 0].assign(whole=lambda r: r["set"], split="0")
    whole = results["set"].str.partition(SEPARATOR)
    both = pd.concat([first, results.assign(whole=whole[0], split=whole[2])])
    both = both[both["fit_s"].notna() & both["method"].isin(METHODS)]
    lines = [
        "## Other held-out cells", "",
        f"Scores of the split of all other tables and, behind it, of {len(OTHERS)} others, each with another fifth of the cells held out; seed 0 of",
        "the fits.", "",
    ]  # fmt: skip
    for name in (name for name in SETS if name in set(whole[0])):
        lines += [f"### {title_of(name)}", "", *header(["method", *SHOWN])]
        of_set = both[both["whole"] == name].sort_values("split")
        for method in METHODS:
            of_method = of_set[of_set["method"] == method]
            lines.append(row([method, *(", ".join(f"{value:.3f}" for value in of_method[s]) for s in SHOWN)]))
        lines.append("")
    return lines
