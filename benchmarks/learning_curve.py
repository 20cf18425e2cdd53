"""How many training cells it takes: 200 to all of them, scored on the same held-out cells, beside CCA.

    python benchmarks/learning_curve.py                         # what is missing
    python benchmarks/learning_curve.py --sets bmmc_cite_5k --methods scmamba-scvi --seeds 0
    python benchmarks/learning_curve.py --page                  # only write docs/benchmarks.md from the results

Writes benchmarks/results/learning_curve.jsonl and docs/benchmarks.md.
"""

from __future__ import annotations

from harness import benchmarks_page, command, learning, paths
from harness.runner import rescore, run
from harness.sets import SETS

RESULTS = paths.RESULTS / "learning_curve.jsonl"


def main(argv: list[str] | None = None) -> None:
    parser = command.parser(__doc__, page="docs/benchmarks.md")
    command.add_sets(parser, ["snareseq_mouse_cortex", "bmmc_multiome_5k", "bmmc_cite_5k"])
    command.add_seeds(parser)
    command.add_runs(parser, learning.METHODS)
    arguments = parser.parse_args(argv)
    datasets = [part for name in arguments.sets for part in learning.parts(SETS[name])]
    if arguments.rescore:
        rescore(RESULTS, datasets)
    elif not arguments.page:
        run(RESULTS, datasets, "harness.methods", arguments.methods, arguments.seeds, again=arguments.again)
    benchmarks_page.write_page()


if __name__ == "__main__":
    main()
