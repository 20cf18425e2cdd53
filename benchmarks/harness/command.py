"""Options that the scripts share, so that they mean the same in each."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence

from .sets import SETS

#: Stands for every name.
ALL = "all"


def parser(about: str | None, page: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help is the docstring of the script, with ``--page`` for a script that writes one."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    if page is not None:
        made.add_argument("--page", action="store_true", help=f"measure nothing, only write {page} from the results")
    return made


def hide_warnings() -> None:
    """All but those that say that what is timed on a GPU is slower than it should be."""
    warnings.simplefilter("ignore")
    warnings.filterwarnings("always", "Layers and scan run in plain torch|No CUDA graph")


def add_names(
    made: argparse.ArgumentParser, option: str, known: Sequence[str], about: str, default: Sequence[str]
) -> None:
    """An option that takes names out of ``known``, or ``all``."""
    metavar = option.strip("-").removesuffix("s").upper()
    made.add_argument(
        option, nargs="+", choices=[*known, ALL], default=default, metavar=metavar, action=_Names, help=about
    )


class _Names(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None) -> None:
        known = [name for name in self.choices or () if name != ALL]
        setattr(namespace, self.dest, known if ALL in values else values)


def add_sets(made: argparse.ArgumentParser, default: Sequence[str]) -> None:
    """``--sets``: the data sets, by name."""
    add_names(made, "--sets", list(SETS), "names of data sets, or all", default)


def add_runs(made: argparse.ArgumentParser, methods: Sequence[str]) -> None:
    """Which methods are fitted, and whether what has a result is fitted or scored again."""
    add_names(made, "--methods", methods, "their names, or all", methods)
    made.add_argument("--again", action="store_true", help="repeat what has a result")
    made.add_argument("--rescore", action="store_true", help="fit nothing, score the kept embeddings again")


def add_seeds(made: argparse.ArgumentParser) -> None:
    """``--seeds``: the seeds themselves, not their number."""
    made.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="seeds of the fits, such as 0 1 2")
