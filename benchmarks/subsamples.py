"""Matching among 100 to all held-out cells (figure 2c of the paper), of every embedding that was kept.

`quality.py` makes and keeps the embeddings; nothing is fitted here. The more cells, the more of them can be taken for the
true match, so scores of different numbers of cells say different things.

    python benchmarks/subsamples.py                             # every embedding that is there
    python benchmarks/subsamples.py --sets bmmc_cite_5k
    python benchmarks/subsamples.py --page                      # only write the page from the results

Writes benchmarks/results/subsamples.jsonl and docs/benchmarks.md.
"""

from __future__ import annotations

import sys
import warnings

from harness import benchmarks_page, command, paths, subsamples
from harness.runner import keep, kept_embeddings
from harness.sets import SETS

FITTED = paths.RESULTS / "quality.jsonl"
RESULTS = paths.RESULTS / "subsamples.jsonl"
DEFAULT_SETS = ["snareseq_mouse_cortex", "bmmc_multiome_5k", "bmmc_cite_5k"]


def measure(name: str) -> None:
    """A line for each kept embedding of a set."""
    if SETS[name].missing():
        print(f"{name}: skipped, {SETS[name].missing()}", file=sys.stderr)
        return
    for line, embeddings in kept_embeddings(FITTED, name):
        scores = subsamples.score(embeddings)
        if scores:
            keep(RESULTS, {**line, "scores": scores})


def main(argv: list[str] | None = None) -> None:
    parser = command.parser(__doc__, page="docs/benchmarks.md")
    command.add_sets(parser, DEFAULT_SETS)
    arguments = parser.parse_args(argv)
    if not arguments.page:
        warnings.simplefilter("ignore")
        for name in arguments.sets:
            measure(name)
    benchmarks_page.write_page()


if __name__ == "__main__":
    main()
