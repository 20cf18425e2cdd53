"""Cell types of donors that no method saw, by votes of neighbours and by logistic regression on each embedding.

Every method is fitted on the batches of other donors without labels; then their labels name the cells of the new donors. A
logistic regression on expression itself, as CellTypist does it, needs no embedding.

    python benchmarks/held_out_batches.py
    python benchmarks/held_out_batches.py --sets bmmc_cite_5k --methods scmamba-scvi "logistic regression on expression"
    python benchmarks/held_out_batches.py --page                # only write the pages from the results

Writes benchmarks/results/held_out_batches.jsonl and docs/benchmarks-new-donors.md.
"""

from __future__ import annotations

from harness import fits, held_out_batches, paths

RESULTS = paths.RESULTS / "held_out_batches.jsonl"
DEFAULT_SETS = ["bmmc_multiome_5k", "bmmc_cite_5k"]


def main(argv: list[str] | None = None) -> None:
    fits.main(__doc__, argv, RESULTS, DEFAULT_SETS, "harness.held_out_batches", track=held_out_batches.TRACK)


if __name__ == "__main__":
    main()
