"""What a trained model is used for (labels, matching, imputation, swapped pairs), one fit per set and seed, and the page.

    python benchmarks/after_integration.py                                            # all sets, then the page
    python benchmarks/after_integration.py --sets bmmc_cite_starter --seeds 0
    python benchmarks/after_integration.py --page                                     # only write the page

Runs annotation.py, matching.py, imputation.py and agreement.py on the same fits, in a fraction of the time that they take one
by one. `matching.py --search`, which needs no fit, and `mosaic.py`, `region_importance.py` and `region_links.py`, which need
others, are run by themselves. Writes docs/after-integration-results.md.
"""

from __future__ import annotations

import agreement
import annotation
import imputation
import matching
from harness import after_page, command
from harness.after import NAMES, seeds_of


def main() -> None:
    parser = command.parser(__doc__, page="docs/after-integration-results.md")
    command.add_sets(parser, NAMES)
    command.add_seeds(parser)
    arguments = parser.parse_args()
    for name in () if arguments.page else arguments.sets:
        for seed in arguments.seeds or seeds_of(name):
            for script in (annotation, matching, imputation, agreement):
                script.main(["--sets", name, "--seeds", str(seed)])
    after_page.write_page()


if __name__ == "__main__":
    main()
