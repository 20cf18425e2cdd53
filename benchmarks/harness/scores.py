"""Scores of held-out cells. Every embedding is scaled to unit length first, which if anything helps the baselines."""

from __future__ import annotations

import dataclasses

import numpy as np

from .methods import Embeddings
from .sets import Truth


@dataclasses.dataclass(frozen=True)
class Score:
    """A column of the tables."""

    name: str
    about: str
    lower_is_better: bool = False


SCORES = {
    s.name: s
    for s in (
        Score("FOSCTTM", "fraction of cells closer than the true match, 0.5 is chance", lower_is_better=True),
        Score("recall@10", "fraction of cells whose true match is among the 10 nearest of the other modality"),
        Score("recall@1", "fraction of cells whose true match is the nearest"),
        Score("omics mixing", "entropy of the modalities among 100 neighbours, 1 is a perfect mix"),
        Score("omics ASW", "one minus the silhouette of the modality within each cell type"),
        Score("kNN accuracy", "cell type by vote of the 15 nearest training cells, joint embedding"),
        Score("ARI", "adjusted Rand index of Leiden clusters with cell types, best of 20 resolutions, joint embedding"),
        Score("NMI", "normalised mutual information, likewise"),
        Score("cell-type ASW", "silhouette of the cell types, (s + 1) / 2, joint embedding"),
        Score("batch mixing", "entropy of the batches among 100 neighbours, 1 is a perfect mix, joint embedding"),
        Score("batch ASW", "one minus the silhouette of the batch within each cell type, joint embedding"),
    )
}


def score(embeddings: Embeddings, truth: Truth) -> dict[str, float]:
    """Every score the data allow."""
    embeddings = {name: tuple(_unit(part) for part in parts) for name, parts in embeddings.items()}
    embedded = [parts[1] for name, parts in embeddings.items() if name != "joint"]
    scores = _matching(embedded, truth) if len(embedded) == 2 else {}
    return {**scores, **_cell_types(embeddings["joint"], truth), **_batches(embeddings["joint"][1], truth)}


def _matching(embedded: list[np.ndarray], truth: Truth) -> dict[str, float]:
    from scmamba_scvi import metrics

    ranks = metrics.true_match_ranks(*embedded)
    recall = ranks.recall([1, 10])
    stacked, omics = np.concatenate(embedded), np.repeat(["x", "y"], [len(v) for v in embedded])
    scores = {
        "FOSCTTM": float(np.mean(ranks.fractions)), "recall@10": float(recall[1]), "recall@1": float(recall[0]),
        "omics mixing": metrics.omics_entropy_mixing(stacked, omics, n_neighbors=_few(100, stacked), n_samples=None),
    }  # fmt: skip
    if truth.labels is not None:
        scores["omics ASW"] = metrics.omics_asw(stacked, omics, np.tile(truth.labels[1], 2))
    return scores


def _cell_types(joint: tuple[np.ndarray, np.ndarray], truth: Truth) -> dict[str, float]:
    if truth.labels is None:
        return {}
    from sklearn.neighbors import KNeighborsClassifier

    from scmamba_scvi import metrics

    (train, test), (of_train, of_test) = joint, truth.labels
    known, asked = (~np.isin(labels, truth.ignored_labels) for labels in (of_train, of_test))
    votes = KNeighborsClassifier(15).fit(train[known], of_train[known])
    clusters = metrics.leiden_ari_nmi(test[asked], of_test[asked])
    return {
        "kNN accuracy": float(votes.score(test[asked], of_test[asked])),
        "ARI": clusters.ari, "NMI": clusters.nmi, "cell-type ASW": metrics.cell_type_asw(test[asked], of_test[asked]),
    }  # fmt: skip


def _batches(test: np.ndarray, truth: Truth) -> dict[str, float]:
    if truth.batches is None:
        return {}
    from scmamba_scvi import metrics

    batches = truth.batches[1]
    scores = {"batch mixing": metrics.omics_entropy_mixing(test, batches, n_neighbors=_few(100, test), n_samples=None)}
    if truth.labels is not None:
        scores["batch ASW"] = metrics.omics_asw(test, batches, truth.labels[1])
    return scores


def _few(k: int, x: np.ndarray) -> int:
    """``k``, or on few cells a tenth of them: neighbours have to be near."""
    return min(k, len(x) // 10)


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
