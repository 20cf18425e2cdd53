"""Fitted models for the scripts that look at what comes after integration: the usual split, labels left in."""

from __future__ import annotations

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


def fitted(dataset: DataSet, parts: tuple[MuData, MuData] | None = None) -> tuple[SCMAMBA, MuData, MuData]:
    """A model with all defaults on the training cells; it reads no label."""
    import scvi

    from scmamba_scvi import SCMAMBA

    scvi.settings.seed = 0
    train, test = halves(dataset) if parts is None else parts
    SCMAMBA.setup_mudata(train, modalities=kinds_of(train), batch_key=dataset.batch_key)
    model = SCMAMBA(train)
    model.train(enable_progress_bar=False)
    return model, train, test
