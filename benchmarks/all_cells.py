"""The joint embedding of all cells, as users make it: one JSON line per (method, set, seed).

Every method is fitted on all cells without labels, and its joint embedding of the same cells is scored as it is. Beside the
methods of quality.py these are methods that embed no new cells: weighted nearest neighbours, MOFA+, SnapATAC2.

    python benchmarks/all_cells.py                              # what is missing, every method on every set
    python benchmarks/all_cells.py --sets bmmc_multiome_5k --methods scmamba-scvi WNN MOFA+
    python benchmarks/all_cells.py --page                       # only write the pages from the results

Writes benchmarks/results/all_cells.jsonl, docs/benchmarks.md and docs/benchmarks-methods.md.
"""

from __future__ import annotations

from harness import fits, paths
from harness.runner import ALL_CELLS

RESULTS = paths.RESULTS / "all_cells.jsonl"
#: Real cells with labels; add others with --sets.
DEFAULT_SETS = ["snareseq_mouse_cortex", "bmmc_multiome_5k", "bmmc_cite_5k"]


def main(argv: list[str] | None = None) -> None:
    fits.main(__doc__, argv, RESULTS, DEFAULT_SETS, "harness.all_cells", track=ALL_CELLS)


if __name__ == "__main__":
    main()
