"""How good the matches of `match_cells` are on held-out cells, and with --search what its search costs.

    python benchmarks/matching.py                               # matches of held-out cells
    python benchmarks/matching.py --sets bmmc_cite_starter --seeds 0
    python benchmarks/matching.py --search 20000 100000         # the search alone, with so many cells on either side

Embeddings are simulated for the search, whose time does not depend on their values; recall and confidence are those of cells
that training never saw. Writes benchmarks/results/matching.json.
"""

from __future__ import annotations

import time

import numpy as np
from harness.after import fitted_set, keep, parser, run
from harness.process import MB, PeakRSS, in_process
from harness.runner import machine

DIMENSIONS, K = 64, 10
#: Of the confidences of the simulated search.
TEMPERATURE = 0.1


def measure_search(n_cells: int) -> dict[str, float]:
    """Time and memory of one search among simulated embeddings, in a process of its own, and the fraction of true matches found."""
    from scmamba_scvi.model.tools.retrieval import nearest_references

    rng = np.random.default_rng(0)
    cells = rng.normal(size=(n_cells, DIMENSIONS)).astype(np.float32)
    x, y = (cells + 0.7 * rng.normal(size=cells.shape).astype(np.float32) for _ in range(2))
    for embedding in (x, y):
        embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    nearest_references(x[:1000], y[:1000], K, TEMPERATURE)  # what libraries load on first use is not counted
    with PeakRSS() as memory:
        begun = time.process_time()
        found = nearest_references(x, y, K, TEMPERATURE).indices[:, 0]
        seconds = time.process_time() - begun
    own = float(np.mean(found == np.arange(n_cells)))
    return {"cpu_seconds": round(seconds, 1), "raised_mb": round(memory.raised / MB), "own": own}


def measure(name: str, seed: int) -> dict[str, object]:
    model, _, test = fitted_set(name, seed)
    kinds = list(model.kinds)
    out = {"cells": test.n_obs, "chance_recall_10": K / test.n_obs}
    for a, b in (kinds[:2], kinds[1::-1]):
        found = model.match_cells(test, test, query_modality=a, reference_modality=b, k=K, one_to_one=True)
        hit = found.reference_names.to_numpy()[found.indices] == found.query_names.to_numpy()[:, None]
        out[f"{a} to {b}"] = {
            "recall_1": float(hit[:, 0].mean()), "confidence_1": float(found.confidence[:, 0].mean()),
            "recall_10": float(hit.any(1).mean()), "confidence_10": float(found.confidence.sum(1).mean()),
            "one_to_one_right": float((found.to_series() == found.query_names).mean()),
        }  # fmt: skip
    return out


def search(n_cells: int) -> dict[str, object]:
    return {
        "dimensions": DIMENSIONS, "k": K, "all_cosines_mb": round(4 * n_cells**2 / MB),
        "top_k": in_process(measure_search, n_cells), "machine": machine(),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--search", nargs="+", type=int, metavar="CELLS", help="only the search, of so many cells")
    arguments = options.parse_args(argv)
    for n_cells in arguments.search or ():
        keep("matching", "search", f"{n_cells:,}", search(n_cells))
    if not arguments.search:
        run("matching", measure, arguments)


if __name__ == "__main__":
    main()
