"""The command of scripts that fit methods to sets, a JSON line each, and score their embeddings."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from . import benchmarks_page, command
from .runner import HELD_OUT, Track, rescore, run
from .sets import SETS, DataSet


def main(
    about: str | None,
    argv: Sequence[str] | None,
    results: Path,
    default_sets: Sequence[str],
    registry: str,
    *,
    names: Sequence[str] | None = None,
    track: Track = HELD_OUT,
    parts: Callable[[DataSet], Iterable[DataSet]] = lambda dataset: [dataset],
) -> None:
    """Fit what ``results`` lacks, or score again what is kept, then write the pages.

    ``registry`` is the module of the methods, of which ``names`` may be chosen, by default all. ``parts`` are fitted in
    place of each set.
    """
    parser = command.parser(about, page=benchmarks_page.NAMES)
    command.add_sets(parser, default_sets)
    command.add_seeds(parser)
    command.add_runs(parser, list(names or importlib.import_module(registry).METHODS))
    arguments = parser.parse_args(argv)
    datasets = (part for name in arguments.sets for part in parts(SETS[name]))
    if arguments.rescore:
        rescore(results, datasets, track=track)
    elif not arguments.page:
        run(results, datasets, registry, arguments.methods, arguments.seeds, again=arguments.again, track=track)
    benchmarks_page.write_page()
