"""Harmony: on RNA and gene activity, and on the joint weighted CCA for batches."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from ..sets import Task
from ._method import Fitted, Method
from .genome import genes_by_peaks
from .linear import N_COMPONENTS, cca, values

#: Nearest training cells whose mean correction a held-out cell gets.
N_ANCHORS = 30


def harmony_on_gene_activity(task: Task, seed: int) -> Fitted:
    """Expression and gene activity in one PCA; Harmony mixes the modalities as if they were batches."""
    from sklearn.decomposition import PCA

    rna, atac = (task.keys[k] for k in ("rna", "atac"))
    on_gene = genes_by_peaks(task.train[rna].var, task.train[atac].var)
    used = np.asarray(on_gene.sum(1)).ravel() > 0
    activity = Task(
        *(_with_activity(m, rna, atac, on_gene) for m in (task.train, task.test)), {"rna": "activity"}, task.batch_key
    )
    (x, x_test), (y, y_test) = (tuple(m[:, used] for m in values(t, "rna")) for t in (task, activity))
    x, x_test, y, y_test = _standardise(x, x_test) + _standardise(y, y_test)
    pca = PCA(min(N_COMPONENTS, x.shape[1] - 1), random_state=seed).fit(np.concatenate([x, y]))
    before = [pca.transform(m) for m in (x, y)]
    modality = np.repeat(["rna", "atac"], [len(x), len(y)])
    after = np.split(harmonise(np.concatenate(before), modality, seed), [len(x)])
    embedded = {
        kind: (after[i], _follow(before[i], after[i], pca.transform(test)))
        for i, (kind, test) in enumerate((("rna", x_test), ("atac", y_test)))
    }
    joint = tuple((embedded["rna"][i] + embedded["atac"][i]) / 2 for i in (0, 1))
    return Fitted({**embedded, "joint": joint}, {"genes with peaks": int(used.sum())})


def harmony_on_batches(task: Task, seed: int) -> Fitted:
    """The joint embedding of weighted CCA, batches mixed by Harmony."""
    before, test = cca(weighted=True, lsi="unit")(task, seed).embeddings["joint"]
    after = harmonise(before, task.train.obs[task.batch_key].astype(str).to_numpy(), seed)
    batches = [m.obs[task.batch_key].astype(str).to_numpy() for m in (task.train, task.test)]
    joint = _follow(before, after, test, batches)
    return Fitted({"joint": (after, joint)})


def _with_activity(mdata, rna: str, atac: str, on_gene: sparse.csr_matrix) -> dict[str, AnnData]:
    x = sparse.csr_matrix(mdata[atac].X) @ on_gene.T
    return {"activity": AnnData(sparse.csr_matrix(x), var=mdata[rna].var[[]])}


def _standardise(train, test) -> tuple[np.ndarray, np.ndarray]:
    train, test = train.toarray(), test.toarray()
    mean, spread = train.mean(0), np.maximum(train.std(0), 1e-3)
    return tuple(np.clip((m - mean) / spread, -10, 10) for m in (train, test))


def harmonise(x: np.ndarray, batch: np.ndarray, seed: int) -> np.ndarray:
    import harmonypy

    result = harmonypy.run_harmony(x, pd.DataFrame({"batch": batch}), "batch", verbose=False, random_state=seed)
    corrected = np.asarray(result.Z_corr)
    return corrected if corrected.shape == x.shape else corrected.T  # older versions have cells in columns


def _follow(before, after, test, batches=None) -> np.ndarray:
    """Held-out cells, moved by the mean shift of their nearest training cells of the same batch: Harmony maps no new cells."""
    from sklearn.neighbors import NearestNeighbors

    moved = np.empty_like(test)
    of_train, of_test = batches or (np.zeros(len(before)), np.zeros(len(test)))
    for batch in np.unique(of_test):
        own, asked = of_train == batch, of_test == batch
        nearest = NearestNeighbors(n_neighbors=N_ANCHORS).fit(before[own])
        anchors = nearest.kneighbors(test[asked], return_distance=False)
        moved[asked] = test[asked] + (after - before)[own][anchors].mean(1)
    return moved


METHODS = [
    Method(
        "Harmony on gene activity", "PCA of expression and of counts summed over gene bodies and promoters, mixed by "
        "Harmony; a held-out cell follows its 30 nearest training cells", harmony_on_gene_activity,
        kinds=frozenset({"rna", "atac"}), packages=("harmonypy",), n_seeds=1,
    ),
    Method(
        "weighted CCA + Harmony", "the joint embedding of weighted CCA, batches mixed by Harmony; a held-out cell "
        "follows its 30 nearest training cells", harmony_on_batches, packages=("harmonypy",), n_seeds=1, batches=True,
    ),
]  # fmt: skip
