"""What comes after integration, on each set in turn with one fit per seed, and the page about it.

    python benchmarks/after_integration.py                                            # all sets, then the page
    python benchmarks/after_integration.py --sets bmmc_cite_starter --seeds 0
    python benchmarks/after_integration.py --page                                     # only write the page

The same as annotation.py, matching.py, imputation.py and agreement.py one by one, in a fraction of the time. What takes
a fit of its own, or none, is run by itself: `matching.py --search`, `mosaic.py`. Writes docs/after-integration-results.md.
"""

from __future__ import annotations

import argparse

import agreement
import annotation
import imputation
import matching
from harness.after import NAMES, seeds_of
from harness.sets import SETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=NAMES, metavar="SET")
    parser.add_argument("--seeds", nargs="+", type=int, help="of the fits")
    parser.add_argument("--page", action="store_true", help="only write docs/after-integration-results.md")
    arguments = parser.parse_args()
    for name in () if arguments.page else arguments.sets:
        for seed in arguments.seeds or seeds_of(name):
            for script in (annotation, matching, imputation, agreement):
                script.main(["--sets", name, "--seeds", str(seed)])
    from harness import after_page

    after_page.write_page()


if __name__ == "__main__":
    main()
