"""Expression and gene activity as two batches of cells: scVI, Harmony, Scanorama and SCALEX, none of which is told the pairs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import numpy as np
from anndata import AnnData, concat
from scipy import sparse

from ..sets import REAL, Task
from ._method import Embeddings, Fitted, Limit, Method, epochs_within
from .genome import genes_by_peaks
from .harmony import follow, harmonise, nearest_training_cells
from .linear import N_COMPONENTS, log_normalise

#: Most variable genes that SCALEX keeps by default.
N_VARIABLE = 2_000
#: By default; minibatches have 64 cells.
SCALEX_STEPS = 30_000

#: Of training and of held-out cells, by modality.
Pairs = dict[str, tuple[np.ndarray, np.ndarray]]


def counts_on_genes(task: Task) -> dict[str, tuple[sparse.csr_matrix, sparse.csr_matrix]]:
    """Counts of the genes that have a peak: expression, and the counts of peaks on gene bodies and promoters, summed."""
    rna, atac = (task.keys[kind] for kind in ("rna", "atac"))
    on_gene = genes_by_peaks(task.train[rna].var, task.train[atac].var)
    used = np.flatnonzero(on_gene.sum(axis=1))
    both = (task.train, task.test)
    return {
        "rna": tuple(sparse.csr_matrix(m[rna].X)[:, used] for m in both),
        "atac": tuple(sparse.csr_matrix(sparse.csr_matrix(m[atac].X) @ on_gene[used].T) for m in both),
    }


def harmony(task: Task, seed: int) -> Fitted:
    """One PCA of both; Harmony mixes the modalities."""
    before = _components(_log_counts(task), seed)
    modality = np.repeat(list(before), [len(train) for train, _ in before.values()])
    together = np.concatenate([train for train, _ in before.values()])
    after = np.split(harmonise(together, modality, seed), len(before))
    return _with_joint({
        kind: (moved, follow(train, moved, test))
        for (kind, (train, test)), moved in zip(before.items(), after, strict=True)
    })  # fmt: skip


def scanorama(task: Task, seed: int) -> Fitted:
    import scanorama

    logs = _log_counts(task)
    genes = [str(i) for i in range(logs["rna"][0].shape[1])]
    after, _ = scanorama.integrate(
        [train for train, _ in logs.values()], [genes] * len(logs), dimred=N_COMPONENTS, seed=seed, verbose=0
    )
    before = _components(logs, seed)
    return _with_joint({
        kind: (found, found[nearest_training_cells(train, test)].mean(1))
        for (kind, (train, test)), found in zip(before.items(), after, strict=True)
    })  # fmt: skip


def scvi(task: Task, seed: int) -> Fitted:
    import scvi

    scvi.settings.seed = seed
    train, test = _stacked(counts_on_genes(task))
    scvi.model.SCVI.setup_anndata(train, batch_key="modality")
    model = scvi.model.SCVI(train)
    full = int(min(round(20_000 / train.n_obs * 400), 400))
    epochs = epochs_within(full, 600_000, train.n_obs)
    model.train(max_epochs=epochs, enable_progress_bar=False)
    embedded = [model.get_latent_representation(cells) for cells in (train, test)]
    return _with_joint(_apart(embedded), {"epochs": epochs, "epochs by default": full})


def scalex(task: Task, seed: int) -> Fitted:
    """Its network and its training with its defaults, on a loader of ours: its own reads one cell at a time."""
    import torch
    from scalex.net.utils import EarlyStopping
    from scalex.net.vae import VAE
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(seed)
    scaled = _scaled_to_one(_log_counts(task))
    x = torch.as_tensor(np.concatenate([train for train, _ in scaled.values()]))
    modality = torch.arange(len(scaled)).repeat_interleave(task.train.n_obs)
    data = TensorDataset(x, modality, torch.arange(len(x)))
    model = VAE([["fc", 1024, 1, "relu"], ["fc", 10, "", ""]], [["fc", x.shape[1], 2, "sigmoid"]], n_domain=2)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loader = DataLoader(data, batch_size=64, shuffle=True, drop_last=True)
    with tempfile.TemporaryDirectory() as folder:  # where the best weights are, if it stops early
        stopping = EarlyStopping(checkpoint_file=f"{folder}/best.pt")
        model.fit(loader, max_iteration=SCALEX_STEPS, early_stopping=stopping, device=device)
    model.to("cpu").eval()
    with torch.no_grad():
        embedded = {
            kind: tuple(model.encoder(torch.as_tensor(m))[1].numpy() for m in pair) for kind, pair in scaled.items()
        }
    return _with_joint(embedded, {"steps at most": SCALEX_STEPS})


def _log_counts(task: Task) -> dict[str, tuple[sparse.csr_matrix, sparse.csr_matrix]]:
    return {kind: tuple(map(log_normalise, parts)) for kind, parts in counts_on_genes(task).items()}


def _components(logs: dict, seed: int) -> Pairs:
    """Genes standardised within each modality, then one PCA of the training cells of both."""
    from sklearn.decomposition import PCA

    scaled = {kind: _standardise(*parts) for kind, parts in logs.items()}
    together = np.concatenate([train for train, _ in scaled.values()])
    pca = PCA(min(N_COMPONENTS, together.shape[1] - 1), random_state=seed).fit(together)
    return {kind: tuple(map(pca.transform, parts)) for kind, parts in scaled.items()}


def _standardise(train, test) -> tuple[np.ndarray, np.ndarray]:
    train, test = train.toarray(), test.toarray()
    mean, spread = train.mean(0), np.maximum(train.std(0), 1e-3)
    return tuple(np.clip((m - mean) / spread, -10, 10) for m in (train, test))


def _scaled_to_one(logs: dict) -> dict:
    """The most variable genes over both modalities, each divided by its largest value in the modality, as SCALEX does."""
    from sklearn.preprocessing import MaxAbsScaler

    rank = sum(np.argsort(np.argsort(-train.toarray().var(0))) for train, _ in logs.values())
    chosen = np.sort(np.argsort(rank, kind="stable")[:N_VARIABLE])
    scaled = {}
    for kind, (train, test) in logs.items():
        scaler = MaxAbsScaler().fit(train[:, chosen])
        # held-out cells may have more than the largest value: a loss that takes parts of one allows no more
        scaled[kind] = tuple(
            scaler.transform(m[:, chosen]).toarray().clip(max=1).astype(np.float32) for m in (train, test)
        )
    return scaled


def _stacked(parts: dict) -> tuple[AnnData, AnnData]:
    """Training cells of both modalities one below the other, and held-out cells."""
    return tuple(
        concat({kind: AnnData(pair[i]) for kind, pair in parts.items()}, label="modality", index_unique="-")
        for i in (0, 1)
    )


def _apart(embedded: list[np.ndarray]) -> Pairs:
    halves = [np.split(x, 2) for x in embedded]
    return {kind: (halves[0][i], halves[1][i]) for i, kind in enumerate(("rna", "atac"))}


def _with_joint(embedded: Embeddings, notes: dict[str, object] | None = None) -> Fitted:
    """Joint is the mean of both."""
    joint = tuple((embedded["rna"][i] + embedded["atac"][i]) / 2 for i in (0, 1))
    return Fitted({**embedded, "joint": joint}, notes or {})


def _method(
    name: str, about: str, fit: Callable[[Task, int], Fitted], *packages: str, limit: Limit | None = None
) -> Method:
    return Method(name, about, fit, kinds=frozenset({"rna", "atac"}), packages=packages, n_seeds=1, limit=limit)


SLOW = Limit(
    REAL | {"multiome_weak_batches", "multiome_strong_batches"},
    "many minutes of a CPU: on real cells and two simulated sets alone",
)

METHODS = [
    _method("Harmony on gene activity", "PCA of expression and of counts summed over gene bodies and promoters, mixed by "
            "Harmony; a held-out cell follows its 30 nearest training cells", harmony, "harmonypy"),
    _method("Scanorama on gene activity", "Scanorama on the same two; a held-out cell is the mean of its 30 nearest training "
            "cells", scanorama, "scanorama"),
    _method("scVI on gene activity", "scvi-tools' SCVI on the same two, modalities as batches; on a CPU fewer epochs", scvi, limit=SLOW),
    _method("SCALEX on gene activity", "SCALEX on the same two, 2,000 variable genes", scalex, "scalex", limit=SLOW),
]  # fmt: skip
