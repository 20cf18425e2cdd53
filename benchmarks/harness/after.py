"""What the scripts that look at what comes after integration share: the split, one fit per seed, and where results go."""

from __future__ import annotations

import argparse
import functools
import json
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .paths import RESULTS
from .runner import machine
from .sets import SETS, DataSet, halves, kinds_of

if TYPE_CHECKING:
    from mudata import MuData

    from scmamba_scvi import SCMAMBA

#: Sets with what is asked of them: labels, two modalities of every cell.
NAMES = ("bmmc_cite_starter", "snareseq_mouse_cortex", "multiome_weak_batches", "citeseq_weak_batches")
#: Sets whose fits take seconds get three seeds, the others one.
SMALL = frozenset({"bmmc_cite_starter"})


def run(
    about: str | None,
    topic: str,
    of: Callable[[str, int], dict[str, object]],
    argv: Sequence[str] | None = None,
    *,
    names: Sequence[str] = NAMES,
) -> None:
    """Command of one script: ``of(name, seed)`` for each set and seed, kept in the results of ``topic``."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=names, metavar="SET")
    parser.add_argument("--seeds", nargs="+", type=int, help="of the fits")
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    for name in arguments.sets:
        for seed in arguments.seeds or seeds_of(name):
            keep(topic, "sets", name, {f"seed {seed}": of(name, seed) | {"machine": machine()}})


def seeds_of(name: str) -> range:
    """Seeds of the fits of a set, where nothing else is asked for."""
    return range(3 if name in SMALL else 1)


def keep(topic: str, part: str, name: str, found: dict[str, object]) -> None:
    """Put results beside those of other sets and seeds in the JSON file of ``topic``."""
    path = RESULTS / f"{topic}.json"
    whole = json.loads(path.read_text()) if path.exists() else {}
    whole.setdefault(part, {}).setdefault(name, {}).update(found)
    path.write_text(json.dumps(whole, indent=1) + "\n")
    print(topic, name, json.dumps(found, indent=1), flush=True)


def of_set(name: str) -> DataSet:
    """One of the sets, or a word on why it cannot be read."""
    dataset = SETS[name]
    if dataset.missing():
        raise SystemExit(f"{name}: {dataset.missing()}.")
    return dataset


@functools.lru_cache(maxsize=1)
def fitted_halves(name: str, seed: int) -> tuple[SCMAMBA, MuData, MuData]:
    """Model, training and held-out cells of a set; one fit for all the scripts of a process."""
    dataset = of_set(name)
    train, test = halves(dataset)
    return fitted(dataset, train, seed), train, test


def fitted(dataset: DataSet, train: MuData, seed: int) -> SCMAMBA:
    """A model with all defaults; it reads no label."""
    import scvi

    from scmamba_scvi import SCMAMBA

    scvi.settings.seed = seed
    SCMAMBA.setup_mudata(train, modalities=kinds_of(train), batch_key=dataset.batch_key)
    model = SCMAMBA(train)
    model.train(enable_progress_bar=False)
    return model
