"""Harmony on the joint weighted CCA, for batches."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..sets import Task
from ._method import Fitted, Method
from .linear import cca

#: Nearest training cells whose mean correction a held-out cell gets.
N_ANCHORS = 30


def harmony_on_batches(task: Task, seed: int) -> Fitted:
    """The joint embedding of weighted CCA, batches mixed by Harmony."""
    before, test = cca(weighted=True, lsi="unit")(task, seed).embeddings["joint"]
    after = harmonise(before, task.train.obs[task.batch_key].astype(str).to_numpy(), seed)
    batches = [m.obs[task.batch_key].astype(str).to_numpy() for m in (task.train, task.test)]
    joint = follow(before, after, test, batches)
    return Fitted({"joint": (after, joint)})


def harmonise(x: np.ndarray, batch: np.ndarray, seed: int) -> np.ndarray:
    import harmonypy

    result = harmonypy.run_harmony(x, pd.DataFrame({"batch": batch}), "batch", verbose=False, random_state=seed)
    corrected = np.asarray(result.Z_corr)
    return corrected if corrected.shape == x.shape else corrected.T  # older versions have cells in columns


def follow(before, after, test, batches=None) -> np.ndarray:
    """Held-out cells, moved by the mean shift of their nearest training cells of the same batch: Harmony maps no new cells."""
    moved = np.empty_like(test)
    of_train, of_test = batches or (np.zeros(len(before)), np.zeros(len(test)))
    for batch in np.unique(of_test):
        own, asked = of_train == batch, of_test == batch
        if not own.any():  # a new batch: all training cells are asked
            own = np.ones(len(before), bool)
        anchors = nearest_training_cells(before[own], test[asked])
        moved[asked] = test[asked] + (after - before)[own][anchors].mean(1)
    return moved


def nearest_training_cells(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Their positions, ``(test cells, N_ANCHORS)``, or as many as there are."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=min(N_ANCHORS, len(train))).fit(train).kneighbors(test, return_distance=False)


METHODS = [
    Method(
        "weighted CCA + Harmony", "the joint embedding of weighted CCA, batches mixed by Harmony; a held-out cell "
        "follows its 30 nearest training cells", harmony_on_batches, packages=("harmonypy",), n_seeds=1, batches=True,
    ),
]  # fmt: skip
