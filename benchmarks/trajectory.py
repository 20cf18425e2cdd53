"""The erythroid lineage of bone marrow, whose stages are known, in every joint embedding of all cells that was kept.

`all_cells.py` makes and keeps the embeddings; nothing is fitted here. Diffusion pseudotime of the cells of the lineage starts
at one stem cell, the same for every method.

    python benchmarks/trajectory.py                             # every embedding that is there
    python benchmarks/trajectory.py --sets bmmc_cite_5k
    python benchmarks/trajectory.py --page                      # only write the pages from the results

Writes benchmarks/results/trajectory.jsonl and docs/benchmarks-methods.md.
"""

from __future__ import annotations

from harness import kept, paths
from harness.runner import keep, kept_embeddings
from harness.sets import DataSet, all_cells
from harness.trajectory import Lineage

FITTED = paths.RESULTS / "all_cells.jsonl"
RESULTS = paths.RESULTS / "trajectory.jsonl"
DEFAULT_SETS = ["bmmc_multiome_5k", "bmmc_cite_5k"]


def measure(dataset: DataSet) -> None:
    """A line for each kept embedding of a set."""
    stages = dataset.load().obs[dataset.stage_key].to_numpy()
    lineage = Lineage.of(all_cells(dataset)[0], stages)
    for line, embeddings in kept_embeddings(FITTED, dataset.name):
        keep(RESULTS, {**line, "cells": len(lineage.rows), "scores": lineage.score(embeddings)})


def main(argv: list[str] | None = None) -> None:
    kept.main(__doc__, argv, DEFAULT_SETS, measure)


if __name__ == "__main__":
    main()
