"""Linear methods, written with scikit-learn and scipy alone, so that they share no line with the package."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ..sets import Task
from ._method import Fitted, Method
from .genome import genes_by_peaks

N_COMPONENTS = 50
RIDGE = 1e-2


def single_modality(kinds: tuple[str, ...]):
    """Components of one modality alone, the first of ``kinds`` that the set has: an integration should not be worse."""

    def fit(task: Task, seed: int) -> Fitted:
        kind = next(k for k in kinds if k in task.keys)
        return Fitted({"joint": components(task, kind, seed)})

    return fit


def cca(weighted: bool, lsi: str, near: bool = False):
    """Ridge CCA between the modalities' components; each variate times its correlation if ``weighted``.

    ``lsi`` is that of `values`. With ``near``, `gene_activity` is added to the components of accessibility.
    """

    def fit(task: Task, seed: int) -> Fitted:
        parts = {kind: components(task, kind, seed, lsi=lsi) for kind in task.keys}
        if near:
            parts["atac"] = tuple(
                np.hstack(pair) for pair in zip(parts["atac"], gene_activity(task, seed), strict=True)
            )
        (kind_a, (a, a_test)), (kind_b, (b, b_test)) = parts.items()
        whiten_a, whiten_b = _inverse_sqrt(a), _inverse_sqrt(b)
        u, correlations, vt = np.linalg.svd(whiten_a @ (a.T @ b / len(a)) @ whiten_b)
        weights = correlations if weighted else np.ones_like(correlations)
        to_a, to_b = (m[:, : len(weights)] * weights for m in (whiten_a @ u, whiten_b @ vt.T))
        embedded = {kind_a: (unit(a @ to_a), unit(a_test @ to_a)), kind_b: (unit(b @ to_b), unit(b_test @ to_b))}
        return Fitted({**embedded, "joint": _sum(embedded)})

    return fit


def gene_activity(task: Task, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """50 centred components of unit-length tf-idf summed over the peaks of each gene, scaled to the variance of the LSI."""
    from sklearn.decomposition import TruncatedSVD

    on_gene = genes_by_peaks(*(task.train[task.keys[kind]].var for kind in ("rna", "atac")))
    used = np.asarray(on_gene.sum(1)).ravel() > 0
    train, test = (m @ on_gene[used].T for m in values(task, "atac"))
    svd = TruncatedSVD(min(N_COMPONENTS, train.shape[1] - 1), random_state=seed).fit(train)
    scores, scores_test = svd.transform(train), svd.transform(test)
    mean, size = scores.mean(0), np.sqrt((scores - scores.mean(0)).var(0).sum())
    size_of_lsi = np.sqrt(components(task, "atac", seed)[0].var(0).sum())
    return (scores - mean) * size_of_lsi / size, (scores_test - mean) * size_of_lsi / size


def components(task: Task, kind: str, seed: int, lsi: str = "unit") -> tuple[np.ndarray, np.ndarray]:
    """50 centred components of one modality, fitted on the training cells: PCA, for accessibility LSI."""
    from sklearn.decomposition import TruncatedSVD

    train, test = values(task, kind, lsi)
    # without scaling to unit length the first component of tf-idf is the depth of the cell
    dropped = 1 if kind == "atac" and lsi == "plain" else 0
    n = min(N_COMPONENTS + dropped, train.shape[1] - 1)
    if kind == "atac":
        svd = TruncatedSVD(n, random_state=seed).fit(train)
        scores, scores_test = (svd.transform(m)[:, dropped:] for m in (train, test))
    else:
        from sklearn.decomposition import PCA

        pca = PCA(n, svd_solver="arpack" if sparse.issparse(train) else "full", random_state=seed).fit(train)
        scores, scores_test = pca.transform(train), pca.transform(test)
    mean = scores.mean(0)
    return scores - mean, scores_test - mean


def values(task: Task, kind: str, lsi: str = "unit"):
    """Training and held-out values: log-normalised RNA, tf-idf of accessibility, centred log-ratio of protein.

    ``lsi="unit"`` scales the tf-idf of each cell to unit length, ``"plain"`` takes its logarithm.
    """
    train, test = (sparse.csr_matrix(m[task.keys[kind]].X, dtype=np.float64) for m in (task.train, task.test))
    if kind == "protein":
        return tuple(_centred_log_ratio(m.toarray()) for m in (train, test))
    if kind == "rna":
        return tuple(map(log_normalise, (train, test)))
    present = np.asarray((train > 0).sum(0)).ravel()
    idf = sparse.diags(np.log1p(train.shape[0] / np.maximum(present, 1)))
    if lsi == "unit":
        weighted = [(m > 0).astype(np.float64) @ idf for m in (train, test)]
        return tuple(sparse.diags(1 / np.sqrt(_sums(m.multiply(m)))) @ m for m in weighted)
    return tuple((sparse.diags(1e4 / _sums(m)) @ m @ idf).log1p() for m in (train, test))


def log_normalise(counts) -> sparse.csr_matrix:
    """Counts as parts of 10,000 per cell, then the logarithm of one plus these."""
    counts = sparse.csr_matrix(counts, dtype=np.float64)
    return sparse.csr_matrix(sparse.diags(1e4 / _sums(counts)) @ counts).log1p()


def _centred_log_ratio(x: np.ndarray) -> np.ndarray:
    logs = np.log1p(x)
    return logs - logs.mean(1, keepdims=True)


def _sums(x) -> np.ndarray:
    sums = np.asarray(x.sum(1)).ravel()
    return np.where(sums > 0, sums, 1.0)


def _inverse_sqrt(scores: np.ndarray) -> np.ndarray:
    covariance = scores.T @ scores / len(scores)
    covariance += RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    eigenvalues, vectors = np.linalg.eigh(covariance)
    return vectors / np.sqrt(eigenvalues) @ vectors.T


def unit(x: np.ndarray) -> np.ndarray:
    """Rows scaled to unit length, in float64."""
    x = np.asarray(x, dtype=np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _sum(embedded: dict) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.sum([parts[i] for parts in embedded.values()], axis=0) for i in (0, 1))


METHODS = [
    Method("RNA PCA", "50 principal components of log-normalised RNA", single_modality(("rna",)), n_seeds=1),
    Method(
        "ATAC LSI / protein PCA",
        "the other modality alone: 50 components of unit-length tf-idf, or 50 principal components of the centred "
        "log-ratio",
        single_modality(("atac", "protein")), n_seeds=1,
    ),
    Method("CCA", "ridge CCA of those components", cca(weighted=False, lsi="unit"), n_seeds=1),
    Method(
        "weighted CCA", "the same, each variate times its canonical correlation", cca(weighted=True, lsi="unit"),
        n_seeds=1,
    ),
    Method(
        "weighted CCA + gene activity", "the same, accessibility having 50 components of its sums over gene bodies and "
        "promoters besides", cca(weighted=True, lsi="unit", near=True), kinds=frozenset({"rna", "atac"}), n_seeds=1,
    ),
    Method(
        "weighted CCA, plain LSI", "the same on components 2 to 51 of the logarithm of tf-idf, cells not scaled to unit length",
        cca(weighted=True, lsi="plain"), kinds=frozenset({"rna", "atac"}), n_seeds=1,
    ),
]  # fmt: skip
