"""What each part of the default model is worth: one thing changed at a time, same protocol as `quality.py`.

python benchmarks/ablation.py                              # what is missing
python benchmarks/ablation.py --sets snareseq_mouse_cortex --variants "order: genome" "order: shuffled"
python benchmarks/ablation.py --page                       # only write docs/benchmarks.md from the results
"""

from __future__ import annotations

import argparse

from harness import benchmarks_page, paths
from harness.runner import rescore, run
from harness.sets import SETS
from harness.variants import METHODS

RESULTS = paths.RESULTS / "ablation.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ["snareseq_mouse_cortex", "multiome_strong_batches"]
    parser.add_argument("--sets", nargs="+", choices=SETS, default=default, metavar="SET")
    parser.add_argument("--variants", nargs="+", choices=METHODS, default=list(METHODS), metavar="VARIANT")
    parser.add_argument("--seeds", type=int, help="at most so many; by default what each variant declares")
    parser.add_argument("--again", action="store_true", help="repeat what has a result")
    parser.add_argument("--rescore", action="store_true", help="take the scores of kept embeddings again")
    parser.add_argument("--page", action="store_true", help="only write docs/benchmarks.md from the results")
    arguments = parser.parse_args()
    datasets = [SETS[name] for name in arguments.sets]
    if arguments.rescore:
        rescore(RESULTS, datasets)
    elif not arguments.page:
        run(RESULTS, datasets, "harness.variants", arguments.variants, arguments.seeds, again=arguments.again)
    benchmarks_page.write_page()


if __name__ == "__main__":
    main()
