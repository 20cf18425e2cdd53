"""What comes after integration, on each set in turn with one fit: matching, imputation, annotation, and agreement.

    python benchmarks/after_integration.py
    python benchmarks/after_integration.py --sets bmmc_cite_starter snareseq_mouse_cortex

The same as matching.py, imputation.py, annotation.py and agreement.py one by one, in a fraction of the time.
"""

from __future__ import annotations

import argparse

import agreement
import annotation
import imputation
import matching


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=annotation.SETS)
    for name in parser.parse_args().sets:
        annotation.main(["--sets", name])
        matching.main(["--cells", "0", "--sets", name])
        imputation.main(["--sets", name])
        agreement.main(["--sets", name])
    matching.main(["--sets"])


if __name__ == "__main__":
    main()
