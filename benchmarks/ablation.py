"""What each part of the default model is worth: one thing changed at a time, same protocol as `quality.py`.

    python benchmarks/ablation.py                              # what is missing
    python benchmarks/ablation.py --sets snareseq_mouse_cortex --methods "order: genome" "order: shuffled"
    python benchmarks/ablation.py --page                       # only write the pages from the results

Writes benchmarks/results/ablation.jsonl and docs/benchmarks-parts.md.
"""

from __future__ import annotations

from harness import fits, paths

RESULTS = paths.RESULTS / "ablation.jsonl"
DEFAULT_SETS = ["snareseq_mouse_cortex", "multiome_strong_batches"]


def main(argv: list[str] | None = None) -> None:
    fits.main(__doc__, argv, RESULTS, DEFAULT_SETS, "harness.variants")


if __name__ == "__main__":
    main()
