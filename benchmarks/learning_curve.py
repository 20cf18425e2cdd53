"""How many training cells it takes: 200 to all of them, scored on the same held-out cells, beside CCA.

    python benchmarks/learning_curve.py                         # what is missing
    python benchmarks/learning_curve.py --sets bmmc_cite_5k --methods scmamba-scvi --seeds 0
    python benchmarks/learning_curve.py --page                  # only write the pages from the results

Writes benchmarks/results/learning_curve.jsonl and docs/benchmarks-fewer-cells.md.
"""

from __future__ import annotations

from harness import fits, learning, paths

RESULTS = paths.RESULTS / "learning_curve.jsonl"
DEFAULT_SETS = ["snareseq_mouse_cortex", "bmmc_multiome_5k", "bmmc_cite_5k"]


def main(argv: list[str] | None = None) -> None:
    fits.main(__doc__, argv, RESULTS, DEFAULT_SETS, "harness.methods", names=learning.METHODS, parts=learning.parts)


if __name__ == "__main__":
    main()
