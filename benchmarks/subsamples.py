"""Matching among 100 to all held-out cells (figure 2c of the paper), of every embedding that was kept.

`quality.py` makes and keeps the embeddings; nothing is fitted here. The more cells, the more of them can be taken for the
true match, so scores of different numbers of cells say different things.

    python benchmarks/subsamples.py                             # every embedding that is there
    python benchmarks/subsamples.py --sets bmmc_cite_5k
    python benchmarks/subsamples.py --page                      # only write the pages from the results

Writes benchmarks/results/subsamples.jsonl and docs/benchmarks-fewer-cells.md.
"""

from __future__ import annotations

from harness import kept, paths, subsamples
from harness.runner import keep, kept_embeddings
from harness.sets import DataSet

FITTED = paths.RESULTS / "quality.jsonl"
RESULTS = paths.RESULTS / "subsamples.jsonl"
DEFAULT_SETS = ["snareseq_mouse_cortex", "bmmc_multiome_5k", "bmmc_cite_5k"]


def measure(dataset: DataSet) -> None:
    """A line for each kept embedding of a set."""
    for line, embeddings in kept_embeddings(FITTED, dataset.name):
        scores = subsamples.score(embeddings)
        if scores:
            keep(RESULTS, {**line, "scores": scores})


def main(argv: list[str] | None = None) -> None:
    kept.main(__doc__, argv, DEFAULT_SETS, measure)


if __name__ == "__main__":
    main()
