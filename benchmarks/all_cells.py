"""The joint embedding of all cells, as users make it: one JSON line per (method, set, seed).

Every method is fitted on all cells without labels, and its joint embedding of the same cells is scored as it is. Beside the
methods of quality.py these are methods that embed no new cells: weighted nearest neighbours, MOFA+, SnapATAC2.

    python benchmarks/all_cells.py                              # what is missing, every method on every set
    python benchmarks/all_cells.py --sets bmmc_multiome_5k --methods scmamba-scvi WNN MOFA+
    python benchmarks/all_cells.py --page                       # only write docs/benchmarks.md from the results

Writes benchmarks/results/all_cells.jsonl and docs/benchmarks.md.
"""

from __future__ import annotations

from harness import benchmarks_page, command, paths
from harness.all_cells import METHODS
from harness.runner import ALL_CELLS, rescore, run
from harness.sets import SETS

RESULTS = paths.RESULTS / "all_cells.jsonl"
#: Real cells with labels; add others with --sets.
DEFAULT_SETS = ["snareseq_mouse_cortex", "bmmc_multiome_5k", "bmmc_cite_5k"]


def main(argv: list[str] | None = None) -> None:
    parser = command.parser(__doc__, page="docs/benchmarks.md")
    command.add_sets(parser, DEFAULT_SETS)
    command.add_seeds(parser)
    command.add_runs(parser, list(METHODS))
    arguments = parser.parse_args(argv)
    datasets = [SETS[name] for name in arguments.sets]
    if arguments.rescore:
        rescore(RESULTS, datasets, track=ALL_CELLS)
    elif not arguments.page:
        run(
            RESULTS, datasets, "harness.all_cells", arguments.methods, arguments.seeds,
            again=arguments.again, track=ALL_CELLS,
        )  # fmt: skip
    benchmarks_page.write_page()


if __name__ == "__main__":
    main()
