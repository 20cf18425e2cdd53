"""What the scripts on a trained model share: their options, one fit per set and seed, and where results go."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from . import command
from .files import write_json
from .paths import RESULTS
from .runner import machine
from .sets import SETS, DataSet, kinds_of, train_and_test

if TYPE_CHECKING:
    import argparse

    from mudata import MuData

    from scmamba_scvi import SCMAMBA

#: Sets with labels and two modalities of every cell, which all of these scripts need.
NAMES = ("bmmc_cite_starter", "snareseq_mouse_cortex", "multiome_weak_batches", "citeseq_weak_batches")
#: Sets whose fits take seconds: they get three seeds, the others one.
SMALL = frozenset({"bmmc_cite_starter"})


def parser(about: str | None, names: Sequence[str] = NAMES) -> argparse.ArgumentParser:
    """Options of a script: the sets, by default ``names``, and the seeds."""
    made = command.parser(about)
    command.add_sets(made, names)
    command.add_seeds(made)
    return made


def run(topic: str, measure: Callable[[str, int], dict[str, object]], arguments: argparse.Namespace) -> None:
    """Keep what ``measure(name, seed)`` finds, for each set and seed asked for, in the results of ``topic``."""
    warnings.simplefilter("ignore")
    for name in arguments.sets:
        for seed in arguments.seeds or seeds_of(name):
            keep(topic, "sets", name, {f"seed {seed}": measure(name, seed) | {"machine": machine()}})


def seeds_of(name: str) -> range:
    """Seeds of the fits of a set, unless others are asked for."""
    return range(3 if name in SMALL else 1)


def keep(topic: str, part: str, name: str, found: dict[str, object]) -> None:
    """Add results to those of other sets and seeds in the JSON file of ``topic``."""
    path = RESULTS / f"{topic}.json"
    whole = json.loads(path.read_text()) if path.exists() else {}
    whole.setdefault(part, {}).setdefault(name, {}).update(found)
    write_json(path, whole)
    print(topic, name, json.dumps(found, indent=1), flush=True)


def get_set(name: str) -> DataSet:
    """One of the sets; the script ends with the reason where it cannot be read."""
    dataset = SETS[name]
    if dataset.missing():
        raise SystemExit(f"{name}: {dataset.missing()}.")
    return dataset


@functools.lru_cache(maxsize=1)
def fitted_set(name: str, seed: int) -> tuple[SCMAMBA, MuData, MuData]:
    """Model, training and held-out cells of a set; fitted once for all scripts that `after_integration.py` runs."""
    dataset = get_set(name)
    train, test = train_and_test(dataset)
    return fitted(dataset, train, seed), train, test


def fitted(dataset: DataSet, train: MuData, seed: int, **overrides: object) -> SCMAMBA:
    """A model with all defaults but ``overrides``, trained on ``train``; it reads no label."""
    import scvi

    from scmamba_scvi import SCMAMBA

    scvi.settings.seed = seed
    SCMAMBA.setup_mudata(train, modalities=kinds_of(train), batch_key=dataset.batch_key)
    model = SCMAMBA(train, **overrides)
    model.train(enable_progress_bar=False)
    return model
