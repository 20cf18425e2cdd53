"""What each part of the default model is worth: one thing changed at a time, same protocol as `quality.py`.

    python benchmarks/ablation.py                              # what is missing
    python benchmarks/ablation.py --sets snareseq_mouse_cortex --variants "order: genome" "order: shuffled"
    python benchmarks/ablation.py --page                       # only write docs/benchmarks.md from the results

Writes benchmarks/results/ablation.jsonl and, with what quality.py measured, docs/benchmarks.md.
"""

from __future__ import annotations

from harness import benchmarks_page, command, paths
from harness.runner import rescore, run
from harness.sets import SETS
from harness.variants import METHODS

RESULTS = paths.RESULTS / "ablation.jsonl"


def main() -> None:
    parser = command.parser(__doc__, page="docs/benchmarks.md")
    command.add_sets(parser, ["snareseq_mouse_cortex", "multiome_strong_batches"])
    command.add_seeds(parser)
    parser.add_argument("--variants", nargs="+", choices=METHODS, default=list(METHODS), metavar="VARIANT")
    parser.add_argument("--again", action="store_true", help="repeat what has a result")
    parser.add_argument("--rescore", action="store_true", help="fit nothing, score the kept embeddings again")
    arguments = parser.parse_args()
    datasets = [SETS[name] for name in arguments.sets]
    if arguments.rescore:
        rescore(RESULTS, datasets)
    elif not arguments.page:
        run(RESULTS, datasets, "harness.variants", arguments.variants, arguments.seeds, again=arguments.again)
    benchmarks_page.write_page()


if __name__ == "__main__":
    main()
