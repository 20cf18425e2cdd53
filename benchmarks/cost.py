"""What each method costs beside what it gives: seconds, memory and kNN accuracy on 1,000 to 30,000 simulated cells.

Every method embeds all cells, as in all_cells.py, each fit in a process of its own.

    python benchmarks/cost.py                                   # 1,000, 3,000 and 10,000 cells
    python benchmarks/cost.py --cells 30000 --methods scmamba-scvi "weighted CCA"
    python benchmarks/cost.py --page                            # only write the pages from the results

Writes benchmarks/results/cost.jsonl and docs/benchmarks-cost.md.
"""

from __future__ import annotations

from harness import benchmarks_page, command, cost, paths
from harness.runner import run

RESULTS = paths.RESULTS / "cost.jsonl"


def main(argv: list[str] | None = None) -> None:
    parser = command.parser(__doc__, page=benchmarks_page.NAMES)
    parser.add_argument("--cells", type=int, nargs="+", default=[1_000, 3_000, 10_000], help="numbers of cells")
    command.add_names(parser, "--methods", list(cost.METHODS), "their names, or all", list(cost.METHODS))
    parser.add_argument("--again", action="store_true", help="repeat what has a result")
    arguments = parser.parse_args(argv)
    if not arguments.page:
        run(
            RESULTS, map(cost.set_of, arguments.cells), "harness.cost", arguments.methods, [0],
            again=arguments.again, track=cost.TRACK,
        )  # fmt: skip
    benchmarks_page.write_page()


if __name__ == "__main__":
    main()
