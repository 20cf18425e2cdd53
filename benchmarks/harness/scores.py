"""Scores of embeddings: of held-out cells on unit length, and of all cells as given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd

from .methods import Embeddings
from .methods.linear import unit
from .sets import Truth

#: Neighbours of a cell in "other modality" and in votes on its type.
N_NEIGHBORS = 15


@dataclasses.dataclass(frozen=True)
class Score:
    """A column of the tables."""

    name: str
    about: str
    lower_is_better: bool = False
    best: float | None = None  # a value between worse ones
    counted: bool = True  # whether wins and losses count it

    def quality(self, values: pd.Series) -> pd.Series:
        """The values so that higher is better."""
        if self.best is not None:
            return -(values - self.best).abs()
        return -values if self.lower_is_better else values


SCORES = {
    s.name: s
    for s in (
        Score("FOSCTTM", "fraction of cells closer than the true match, 0.5 is chance", lower_is_better=True),
        Score("recall@10", "fraction of cells whose true match is among the 10 nearest of the other modality"),
        Score("recall@1", "fraction of cells whose true match is the nearest"),
        Score("omics mixing", "entropy of the modalities among the nearest 1 %, at least 15; 1 is a perfect mix"),
        Score("Seurat alignment", "neighbours from the other modality among the nearest 1 %, at least 15; 1 is a perfect mix"),
        Score("graph connectivity", "fraction of a cell type, of both modalities, in its largest connected part"),
        Score("omics ASW", "one minus the silhouette of the modality within each cell type"),
        Score("other modality", "fraction of the 15 nearest that are of the other modality, 0.5 is a perfect mix", best=0.5),
        Score("kNN accuracy", "cell type by vote of the 15 nearest other cells (of training cells, for held-out ones)"),
        Score("kNN, other batches", "the same by vote of the 15 nearest cells of other batches", counted=False),
        Score("ARI", "adjusted Rand index of Leiden clusters with cell types, best of 20 resolutions, mean of 5 seeds"),
        Score("NMI", "normalised mutual information, likewise"),
        Score("MAP", "mean average precision of the cell types among the nearest 1 %, at least 10"),
        Score("cell-type ASW", "silhouette of the cell types, (s + 1) / 2"),
        Score("batch mixing", "entropy of the batches among the nearest 1 %, at least 15; 1 is a perfect mix"),
        Score("batch ASW", "one minus the silhouette of the batch within each cell type"),
        Score("ARI spread", "standard deviation of ARI over the seeds of Leiden", lower_is_better=True, counted=False),
        Score("NMI spread", "likewise of NMI", lower_is_better=True, counted=False),
        Score("stage order", "Spearman's correlation of pseudotime with the stages of a lineage", counted=False),
        Score("trajectory conservation", "pseudotime against that of each modality alone, 0.5 is chance", counted=False),
        Score("pseudotime consistency", "Pearson's correlation of the pseudotimes of both modalities", counted=False),
        Score("neighbourhood overlap", "fraction of points with their true match among the nearest of both modalities, 50 for a lineage, 10 where fewer cells are matched", counted=False),
        Score("cells reached", "fraction of the lineage that is connected to its first cell", counted=False),
        Score("kNN: accuracy", "cells of new donors named rightly by the 15 nearest training cells", counted=False),
        Score("kNN: macro F1", "the same, mean over cell types", counted=False),
        Score("regression: accuracy", "named rightly by a logistic regression on the embedding", counted=False),
        Score("regression: macro F1", "the same, mean over cell types", counted=False),
        Score("kNN from RNA alone: accuracy", "such votes among embeddings of RNA, for new cells of which RNA alone is known", counted=False),
        Score("kNN from RNA alone: macro F1", "the same, mean over cell types", counted=False),
        Score("overall", "of the paper: 0.6 of cell types and 0.4 of modalities. It says who is ahead in the table, not how good a method is", counted=False),
        Score("cell types", "mean of ARI, NMI, MAP and cell-type ASW, each from 0 for the worst to 1 for the best method of the set; variants of this package are not scaled", counted=False),
        Score("modalities", "likewise of omics mixing, Seurat alignment, graph connectivity and omics ASW", counted=False),
        Score("overall, unscaled", "of the scores as they are", counted=False),
        Score("cell types, unscaled", "likewise", counted=False),
        Score("modalities, unscaled", "likewise", counted=False),
    )
}  # fmt: skip
COUNTED = tuple(s.name for s in SCORES.values() if s.counted)


def score(embeddings: Embeddings, truth: Truth) -> dict[str, float]:
    """Every score of held-out cells that the data allow, all embeddings scaled to unit length."""
    embeddings = {name: tuple(unit(part) for part in parts) for name, parts in embeddings.items()}
    stacked = [parts[1] for name, parts in embeddings.items() if name != "joint"]
    scores = _modalities(stacked, truth) if len(stacked) == 2 else {}
    train, test = embeddings["joint"]
    if truth.labels is not None:
        scores["kNN accuracy"] = _votes(train, test, truth)
    return {**scores, **_joint(test, truth, part=1)}


def matching_and_votes(embeddings: Embeddings, truth: Truth) -> dict[str, float]:
    """FOSCTTM, recall@10 and kNN accuracy of held-out cells alone: a second where `score` takes a minute."""
    from scmamba_scvi import metrics

    units = {name: tuple(unit(part) for part in parts) for name, parts in embeddings.items()}
    ranks = metrics.true_match_ranks(*(parts[1] for name, parts in units.items() if name != "joint"))
    scores = {"FOSCTTM": float(np.mean(ranks.fractions)), "recall@10": float(ranks.recall([10])[0])}
    return scores if truth.labels is None else {**scores, "kNN accuracy": _votes(*units["joint"], truth)}


def score_all(embeddings: Embeddings, truth: Truth) -> dict[str, float]:
    """Scores of the joint embedding of all cells, as the method gives it; no cell votes on its own type."""
    from scmamba_scvi import metrics

    joint, _ = embeddings["joint"]
    scores = {}
    if truth.labels is not None:
        asked = ~np.isin(truth.labels[0], truth.ignored_labels)
        scores["kNN accuracy"] = metrics.knn_accuracy(joint[asked], truth.labels[0][asked], N_NEIGHBORS)
        if truth.batches is not None and len(np.unique(truth.batches[0])) > 1:
            scores["kNN, other batches"] = _votes_of_other_batches(
                joint[asked], truth.labels[0][asked], truth.batches[0][asked]
            )
    return {**scores, **_joint(joint, truth, part=0)}


def _modalities(embedded: list[np.ndarray], truth: Truth) -> dict[str, float]:
    """Matching and mixing, the modalities of the held-out cells one below the other."""
    from scmamba_scvi import metrics

    ranks = metrics.true_match_ranks(*embedded)
    recall = ranks.recall([1, 10])
    stacked, omics = np.concatenate(embedded), np.repeat(["x", "y"], [len(v) for v in embedded])
    scores = {
        "FOSCTTM": float(np.mean(ranks.fractions)), "recall@10": float(recall[1]), "recall@1": float(recall[0]),
        **_possible("omics mixing", lambda: metrics.omics_entropy_mixing(stacked, omics)),
        "Seurat alignment": metrics.seurat_alignment(stacked, omics),
        "other modality": float(metrics.other_modality(*embedded).mean()),
    }  # fmt: skip
    if truth.labels is not None:
        labels = np.tile(truth.labels[1], 2)
        known = ~np.isin(labels, truth.ignored_labels)
        scores["graph connectivity"] = metrics.graph_connectivity(stacked[known], labels[known])
        scores["omics ASW"] = metrics.omics_asw(stacked[known], omics[known], labels[known])
    return scores


def _votes(train: np.ndarray, test: np.ndarray, truth: Truth) -> float:
    from sklearn.neighbors import KNeighborsClassifier

    of_train, of_test = truth.labels
    known, asked = (~np.isin(labels, truth.ignored_labels) for labels in (of_train, of_test))
    votes = KNeighborsClassifier(N_NEIGHBORS).fit(train[known], of_train[known])
    return float(votes.score(test[asked], of_test[asked]))


def _votes_of_other_batches(x: np.ndarray, labels: np.ndarray, batches: np.ndarray) -> float:
    """What one batch tells of another: where batches lie apart, a cell's own batch names it, and hides that they do."""
    from sklearn.neighbors import KNeighborsClassifier

    right = 0.0
    for batch in np.unique(batches):
        asked = batches == batch
        votes = KNeighborsClassifier(N_NEIGHBORS).fit(x[~asked], labels[~asked])
        right += votes.score(x[asked], labels[asked]) * asked.sum()
    return float(right / len(x))


def _joint(x: np.ndarray, truth: Truth, part: int) -> dict[str, float]:
    """Cell types and batches of a joint embedding; ``part`` says whose labels: 0 of the training cells, 1 of the others."""
    from scmamba_scvi import metrics

    scores: dict[str, float] = {}
    if truth.labels is not None:
        labels = truth.labels[part]
        known = ~np.isin(labels, truth.ignored_labels)
        clusters = metrics.leiden_ari_nmi(x[known], labels[known])
        scores = {
            "ARI": clusters.ari, "NMI": clusters.nmi,
            "MAP": metrics.mean_average_precision(x[known], labels[known]),
            "cell-type ASW": metrics.cell_type_asw(x[known], labels[known]),
            "ARI spread": clusters.ari_std, "NMI spread": clusters.nmi_std,
        }  # fmt: skip
    if truth.batches is not None:
        batches = truth.batches[part]
        scores |= _possible("batch mixing", lambda: metrics.omics_entropy_mixing(x, batches))
        if truth.labels is not None:
            scores["batch ASW"] = metrics.omics_asw(x[known], batches[known], labels[known])
    return scores


def _possible(name: str, function: Callable[[], float]) -> dict[str, float]:
    """The score, or nothing on too few cells."""
    from scmamba_scvi.errors import ScmambaError

    try:
        return {name: function()}
    except ScmambaError:
        return {}
