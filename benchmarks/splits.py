"""How much scores depend on which cells are held out: two other fifths of the cells, beside CCA.

    python benchmarks/splits.py                                 # what is missing
    python benchmarks/splits.py --sets bmmc_cite_5k --methods linear
    python benchmarks/splits.py --page                          # only write the pages from the results

Writes benchmarks/results/splits.jsonl and docs/benchmarks-protocol.md. The first split is that of quality.py.
"""

from __future__ import annotations

from harness import fits, paths, splits

RESULTS = paths.RESULTS / "splits.jsonl"
DEFAULT_SETS = ["snareseq_mouse_cortex", "bmmc_multiome_5k", "bmmc_cite_5k"]


def main(argv: list[str] | None = None) -> None:
    fits.main(__doc__, argv, RESULTS, DEFAULT_SETS, "harness.methods", names=splits.METHODS, parts=splits.parts)


if __name__ == "__main__":
    main()
