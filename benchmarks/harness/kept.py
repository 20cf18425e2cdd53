"""The command of scripts that fit nothing: they score the embeddings that another script keeps."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence

from . import benchmarks_page, command
from .sets import SETS, DataSet


def main(
    about: str | None, argv: Sequence[str] | None, default_sets: Sequence[str], measure: Callable[[DataSet], None]
) -> None:
    """``measure`` every set that is there, then write the pages."""
    parser = command.parser(about, page=benchmarks_page.NAMES)
    command.add_sets(parser, default_sets)
    arguments = parser.parse_args(argv)
    if not arguments.page:
        warnings.simplefilter("ignore")
        for dataset in (SETS[name] for name in arguments.sets):
            if dataset.missing():
                print(f"{dataset.name}: skipped, {dataset.missing()}", file=sys.stderr)
            else:
                measure(dataset)
    benchmarks_page.write_page()
