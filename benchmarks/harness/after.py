"""Fitted models for the scripts that look at what comes after integration: the usual split, labels left in."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .sets import HELD_OUT, SETS, DataSet, kinds_of

if TYPE_CHECKING:
    from mudata import MuData

    from scmamba_scvi import SCMAMBA


def of_set(name: str) -> DataSet:
    """One of the sets, or a word on why it cannot be read."""
    dataset = SETS[name]
    if dataset.missing():
        raise SystemExit(f"{name}: {dataset.missing()}.")
    return dataset


def halves(dataset: DataSet) -> tuple[MuData, MuData]:
    """Training and held-out cells as in `sets.split`, with their annotations."""
    whole = dataset.load()
    order = np.random.default_rng(0).permutation(whole.n_obs)
    cut = int(whole.n_obs * HELD_OUT)
    return tuple(whole[np.sort(rows)].copy() for rows in (order[cut:], order[:cut]))


@functools.cache
def fitted_halves(name: str) -> tuple[SCMAMBA, MuData, MuData]:
    """Model, training and held-out cells of a set; one fit for all the scripts of a process."""
    dataset = of_set(name)
    train, test = halves(dataset)
    return fitted(dataset, train), train, test


def fitted(dataset: DataSet, train: MuData) -> SCMAMBA:
    """A model with all defaults; it reads no label."""
    import scvi

    from scmamba_scvi import SCMAMBA

    scvi.settings.seed = 0
    SCMAMBA.setup_mudata(train, modalities=kinds_of(train), batch_key=dataset.batch_key)
    model = SCMAMBA(train)
    model.train(enable_progress_bar=False)
    return model


def keep(path: Path, part: str, name: str, found: dict[str, object]) -> None:
    """Put one set's results beside those of the others in a JSON file."""
    whole = json.loads(path.read_text()) if path.exists() else {}
    whole.setdefault(part, {})[name] = found
    path.write_text(json.dumps(whole, indent=1) + "\n")
    print(path.stem, name, json.dumps(found, indent=1), flush=True)
