"""Scores of a lineage whose stages are known, and their section of docs/benchmarks-methods.md."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from . import tables
from .methods import Embeddings
from .methods.linear import components
from .sets import SETS, Task, title_of

SHOWN = ("stage order", "trajectory conservation", "pseudotime consistency", "neighbourhood overlap", "cells reached")
#: Neighbours in the overlap of neighbourhoods, among the points of both modalities.
N_NEIGHBORS = 50


@dataclasses.dataclass(frozen=True)
class Lineage:
    """Cells of a lineage, their stages, a stem cell to start from, and their pseudotime in each modality alone."""

    rows: np.ndarray
    stages: np.ndarray
    root: int
    alone: dict[str, np.ndarray]

    @classmethod
    def of(cls, task: Task, stages: np.ndarray) -> Lineage:
        """Cells with a stage of 0 or more; the root is the stem cell in the middle of the others, by components of RNA."""
        from scmamba_scvi.metrics.distances import medoid

        rows = np.flatnonzero(stages >= 0)
        whole = {kind: components(task, kind, seed=0)[0][rows] for kind in task.keys}
        stem = np.flatnonzero(stages[rows] == 0)
        root = int(stem[medoid(whole["rna"][stem])])
        return cls(rows, stages[rows], root, {kind: _pseudotime(x, root) for kind, x in whole.items()})

    def score(self, embeddings: Embeddings) -> dict[str, float]:
        """Of the joint embedding, and of those of the modalities where a method has them."""
        from scipy.stats import spearmanr

        from scmamba_scvi import metrics

        points = {name: train[self.rows] for name, (train, _) in embeddings.items()}
        time = {name: _pseudotime(x, self.root) for name, x in points.items()}
        reached = np.isfinite(time["joint"])
        found = {
            "stage order": float(spearmanr(time["joint"][reached], self.stages[reached]).statistic),
            "trajectory conservation": float(np.mean([
                metrics.trajectory_conservation(before, time.get(kind, time["joint"])) for kind, before in self.alone.items()
            ])),
            "cells reached": float(reached.mean()),
        }  # fmt: skip
        if set(self.alone) <= set(points):
            x, y = (kind for kind in self.alone)
            found["pseudotime consistency"] = metrics.pseudotime_consistency(time[x], time[y])
            ranks = metrics.true_match_ranks(points[x], points[y], among="both")
            found["neighbourhood overlap"] = float(ranks.recall(N_NEIGHBORS)[0])
        return found


def _pseudotime(x: np.ndarray, root: int) -> np.ndarray:
    from scmamba_scvi import metrics

    return metrics.diffusion_pseudotime(x, root)


def section(results: pd.DataFrame, all_cells: pd.DataFrame) -> list[str]:
    """A table per set; which methods of ``all_cells`` are missing."""
    lines = [
        "## Erythroid trajectories", "",
        "Stem cells of bone marrow become red blood cells in stages that the authors of the data named. Diffusion pseudotime of",
        "these cells alone, from one stem cell, in the embeddings of all cells. RNA PCA and the other modality alone are",
        "what conservation is measured against, so they have an advantage there. A method with one embedding for both modalities",
        "has no consistency and no overlap.", "",
    ]  # fmt: skip
    for name in SETS:
        of_set = results[results["set"] == name]
        if len(of_set):
            n_cells = int(of_set["cells"].iloc[0])
            lines += [f"### {title_of(name)}: {n_cells:,} erythroid cells", "", tables.table(of_set, SHOWN), ""]
            lines += tables.not_kept(results, all_cells, name)
    return lines
