"""What `match_cells` costs, 100,000 cells in 100,000, and how good its matches of held-out cells are.

    python benchmarks/matching.py                  # both
    python benchmarks/matching.py --cells 20000    # a smaller search

Views are simulated for the search, which takes the same time whatever they are; recall and confidence are those of cells
that training never saw. Writes benchmarks/results/matching.json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from harness.after import fitted_halves, keep  # noqa: E402
from speed import RESULTS, PeakRSS, in_process, machine  # noqa: E402

DIMENSIONS, K = 64, 10
SETS = ("multiome_weak_batches", "citeseq_weak_batches", "bmmc_cite_starter", "snareseq_mouse_cortex")


def _search(n_cells: int, one_to_one: bool, queue) -> None:
    from scmamba_scvi.model._assignment import assign
    from scmamba_scvi.model._retrieval import nearest_references

    rng = np.random.default_rng(0)
    cells = rng.normal(size=(n_cells, DIMENSIONS)).astype(np.float32)
    x, y = (cells + 0.7 * rng.normal(size=cells.shape).astype(np.float32) for _ in range(2))
    for view in (x, y):
        view /= np.linalg.norm(view, axis=1, keepdims=True)
    nearest_references(x[:1000], y[:1000], K, 0.1)
    with PeakRSS() as memory:
        begun = time.process_time()
        found = assign(x, y, 2048) if one_to_one else nearest_references(x, y, K, 0.1).indices[:, 0]
        seconds = time.process_time() - begun
    raised = (memory.peak - memory.before) / 2**20
    queue.put(
        {
            "cpu_seconds": round(seconds, 1),
            "raised_mb": round(raised),
            "own": float(np.mean(found == np.arange(n_cells))),
        }
    )


def matches(name: str) -> dict[str, object]:
    model, _, test = fitted_halves(name)
    kinds = list(model.kinds)
    out = {"cells": test.n_obs, "chance_recall_10": K / test.n_obs}
    for a, b in (kinds[:2], kinds[1::-1]):
        found = model.match_cells(test, test, a, b, k=K, one_to_one=True)
        hit = found.reference_names.to_numpy()[found.indices] == found.query_names.to_numpy()[:, None]
        out[f"{a} to {b}"] = {
            "recall_1": float(hit[:, 0].mean()), "confidence_1": float(found.confidence[:, 0].mean()),
            "recall_10": float(hit.any(1).mean()), "confidence_10": float(found.confidence.sum(1).mean()),
            "one_to_one_right": float((found.partners() == found.query_names).mean()),
        }  # fmt: skip
    return out


def search(n_cells: int) -> dict[str, object]:
    context = multiprocessing.get_context("spawn")
    return {
        "dimensions": DIMENSIONS, "k": K, "all_cosines_mb": round(4 * n_cells**2 / 2**20),
        "top_k": in_process(context, _search, n_cells, False), "one_to_one": in_process(context, _search, n_cells, True),
        **machine(),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000, help="0: no search")
    parser.add_argument("--sets", nargs="*", default=SETS)
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    path = RESULTS / "matching.json"
    for name in arguments.sets:
        keep(path, "held_out", name, matches(name))
    if arguments.cells:
        keep(path, "search", f"{arguments.cells} cells in as many", search(arguments.cells))


if __name__ == "__main__":
    main()
