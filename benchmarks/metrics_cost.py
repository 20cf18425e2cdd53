"""What the scores of an integration cost on this machine: CPU time, and memory of a process that does nothing else.

    python benchmarks/metrics_cost.py
    python benchmarks/metrics_cost.py --page    # only write docs/performance.md from the results

Results go to benchmarks/results/metrics.json and from there into docs/performance.md.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

from harness import command
from harness.files import write_json
from harness.paths import RESULTS
from harness.performance_page import machine, write_page
from harness.process import MB, PeakRSS, in_process

DIMENSIONS, TYPES = 64, 20


def simulated(n_pairs: int):
    """Embeddings of two modalities of cells of overlapping types, their mean, and the types."""
    import numpy as np

    rng = np.random.default_rng(0)
    types = rng.integers(TYPES, size=n_pairs)
    cells = rng.normal(size=(TYPES, DIMENSIONS))[types] + rng.normal(size=(n_pairs, DIMENSIONS))
    embeddings = [cells + 0.7 * rng.normal(size=cells.shape) for _ in range(2)]
    return *embeddings, (embeddings[0] + embeddings[1]) / 2, types, rng.integers(3, size=n_pairs)


def true_matches(n_pairs: int) -> Callable[[], object]:
    import numpy as np

    from scmamba_scvi import metrics

    x, y, *_ = simulated(n_pairs)

    def run() -> dict[str, float]:
        ranks = metrics.true_match_ranks(x, y)
        curve = metrics.true_match_ranks(x, y, among="both").recall(np.arange(1, 1001))
        return {
            "FOSCTTM": float(sum(map(sum, ranks.fractions))),
            "recall@10": ranks.recall(10)[0],
            "points": len(curve),
        }

    return run


def silhouette(n_rows: int) -> Callable[[], object]:
    from scmamba_scvi import metrics

    *_, joint, types, _ = simulated(n_rows)
    return lambda: metrics.cell_type_asw(joint, types)


def everything(n_pairs: int) -> Callable[[], object]:
    from anndata import AnnData

    from scmamba_scvi import metrics

    x, y, joint, types, batches = simulated(n_pairs)
    # what scanpy compiles on its first use is no cost of the scores
    metrics.leiden_ari_nmi(joint[:200], types[:200], [1.0])
    return lambda: metrics.evaluate_integration(
        AnnData(shape=(n_pairs, 0)),
        {"m": {"rna": x, "atac": y, "joint": joint}},
        labels_key=types,
        batch_key=batches,
        progress=False,
    )


#: Name -> what is measured, the number of cells and what they are.
TASKS = {
    "FOSCTTM, recall and the whole overlap curve": (true_matches, 20_000, "pairs"),
    "cell-type ASW": (silhouette, 20_000, "rows"),
    "evaluate_integration, every score": (everything, 10_000, "pairs"),
}


def measure_one(task: str) -> dict[str, float]:
    """In a process of its own."""
    warnings.simplefilter("ignore")
    function, size, _ = TASKS[task]
    run = function(size)
    with PeakRSS() as memory:
        begun = time.process_time()  # others may use the machine
        run()
        seconds = time.process_time() - begun
    return {"seconds": round(seconds, 2), "peak_mb": round(memory.peak / MB), "before_mb": round(memory.before / MB)}


def measure() -> dict[str, object]:
    rows = []
    for task, (_, size, unit) in TASKS.items():
        found = in_process(measure_one, task)
        rows.append({"task": task, "cells": f"{size:,} {unit}", **found})
        print(f"{task}, {size:,} {unit}: {found['seconds']} s, peak {found['peak_mb']} MB")
    return {"dimensions": DIMENSIONS, "types": TYPES, "tasks": rows, **machine()}


def main() -> None:
    parser = command.parser(__doc__, page="docs/performance.md")
    if not parser.parse_args().page:
        write_json(RESULTS / "metrics.json", measure())
    write_page()


if __name__ == "__main__":
    main()
