"""Cell types of donors that no method saw, by votes of neighbours and by logistic regression on each embedding.

Every method is fitted on the batches of other donors without labels; then their labels name the cells of the new donors. A
logistic regression on expression itself, as CellTypist does it, needs no embedding.

    python benchmarks/held_out_batches.py
    python benchmarks/held_out_batches.py --sets bmmc_cite_5k --methods scmamba-scvi "logistic regression on expression"
    python benchmarks/held_out_batches.py --page                # only write the page from the results

Writes benchmarks/results/held_out_batches.jsonl and docs/benchmarks.md.
"""

from __future__ import annotations

from harness import benchmarks_page, command, held_out_batches, paths
from harness.runner import rescore, run
from harness.sets import SETS

RESULTS = paths.RESULTS / "held_out_batches.jsonl"


def main(argv: list[str] | None = None) -> None:
    parser = command.parser(__doc__, page="docs/benchmarks.md")
    command.add_sets(parser, ["bmmc_multiome_5k", "bmmc_cite_5k"])
    command.add_seeds(parser)
    command.add_runs(parser, list(held_out_batches.METHODS))
    arguments = parser.parse_args(argv)
    datasets, track = [SETS[name] for name in arguments.sets], held_out_batches.TRACK
    if arguments.rescore:
        rescore(RESULTS, datasets, track=track)
    elif not arguments.page:
        run(
            RESULTS, datasets, "harness.held_out_batches", arguments.methods, arguments.seeds, again=arguments.again,
            track=track,
        )  # fmt: skip
    benchmarks_page.write_page()


if __name__ == "__main__":
    main()
