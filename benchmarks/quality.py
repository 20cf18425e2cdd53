"""How well held-out cells are embedded, by this package and by its peers: one JSON line per (method, set, seed).

Every method is fitted on 80 % of the cells and scored on the others, which it never sees; labels reach no method.

    python benchmarks/quality.py                                # what is missing, every method on every set
    python benchmarks/quality.py --sets snareseq_mouse_cortex --methods scmamba-scvi linear --seeds 0
    python benchmarks/quality.py --file mine.h5mu --labels-key cell_type --batch-key donor
    python benchmarks/quality.py --list                         # sets and methods
    python benchmarks/quality.py --page                         # only write the pages from the results

Writes benchmarks/results/quality.jsonl, docs/benchmarks.md and docs/benchmarks-methods.md; with --file only
benchmarks/results/local/quality_NAME.jsonl, which git ignores.
"""

from __future__ import annotations

from harness import benchmarks_page, command, paths
from harness.methods import METHODS
from harness.runner import rescore, run
from harness.sets import SETS, from_file

RESULTS = paths.RESULTS / "quality.jsonl"


def main(argv: list[str] | None = None) -> None:
    parser = command.parser(__doc__, page=benchmarks_page.NAMES)
    command.add_sets(parser, list(SETS))
    command.add_seeds(parser)
    command.add_runs(parser, list(METHODS))
    parser.add_argument("--file", help="a paired .h5mu of raw counts instead of the sets")
    parser.add_argument("--labels-key", help="column of obs with cell types, for --file")
    parser.add_argument("--batch-key", help="column of obs with batches, for --file")
    parser.add_argument("--list", action="store_true", help="list sets and methods")
    arguments = parser.parse_args(argv)
    if arguments.list:
        for entry in (*SETS.values(), *METHODS.values()):
            print(f"{entry.name}\n    {entry.about}")
        return
    datasets = [SETS[name] for name in arguments.sets]
    if arguments.file:
        datasets = [from_file(arguments.file, arguments.labels_key, arguments.batch_key)]
        results = paths.LOCAL_RESULTS / f"quality_{datasets[0].name}.jsonl"
        run(results, datasets, "harness.methods", arguments.methods, arguments.seeds, again=arguments.again)
        benchmarks_page.print_table(results)
        return
    if arguments.rescore:
        rescore(RESULTS, datasets)
    elif not arguments.page:
        run(RESULTS, datasets, "harness.methods", arguments.methods, arguments.seeds, again=arguments.again)
    benchmarks_page.write_page()


if __name__ == "__main__":
    main()
