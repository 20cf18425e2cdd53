"""A linear classifier of embeddings: fitted, calibrated, and kept as plain numbers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from ...errors import ScmambaError

#: Inverse strengths of the penalty, on embeddings of mean variance 1, from the strongest.
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
#: Parts of the cells, each predicted by a classifier that was fitted to the others, to choose penalty and temperature.
N_FOLDS = 5
#: Log probabilities below this count as this when the temperature is chosen: one cell with a wrong label must not make
#: the classifier unsure of all others.
FLOOR = -8.0


@dataclass(frozen=True)
class LinearClassifier:
    """Probabilities of ``c`` labels from an embedding, ``softmax((z @ weight + bias) / temperature)``."""

    classes: np.ndarray  # (c,) labels
    weight: np.ndarray  # (z, c) float64
    bias: np.ndarray  # (c,) float64
    temperature: float  # above 1 where the regression alone would be overconfident

    def log_proba(self, z: np.ndarray) -> np.ndarray:
        """Log probabilities ``(n, c)``."""
        return log_softmax((z.astype(np.float64) @ self.weight + self.bias) / self.temperature, axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold without loss."""
        return {
            "classes": [str(c) for c in self.classes],
            "weight": self.weight.tolist(), "bias": self.bias.tolist(), "temperature": self.temperature,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LinearClassifier:
        """What `to_dict` described, which may come from a file of somebody else; a `ValueError` where it does not fit."""
        classes = np.asarray(values["classes"], dtype=object)
        weight, bias = (np.asarray(values[name], dtype=np.float64) for name in ("weight", "bias"))
        found = cls(classes, weight, bias, float(values["temperature"]))
        fits = weight.ndim == 2 and weight.shape[1:] == bias.shape == classes.shape and found.temperature > 0
        if not fits or not np.isfinite(weight).all() or not np.isfinite(bias).all():
            raise ScmambaError(
                "The classifier of this model is damaged: its numbers are not finite or do not fit its labels."
            )
        return found


def fit_linear_classifier(z: np.ndarray, labels: np.ndarray, seed: int) -> LinearClassifier:
    """Logistic regression of ``labels`` ``(n,)`` on embeddings ``(n, z)``.

    Penalty and temperature are those with the least loss on cells held out of it. There are two labels or more, every one of at
    least two cells. Cells are weighted by one over the root of the frequency of their label; ``seed`` is that of the folds.
    """
    classes, codes, counts = np.unique(labels.astype(str), return_inverse=True, return_counts=True)
    mean, scale = z.mean(axis=0, dtype=np.float64), max(np.sqrt(z.var(axis=0, dtype=np.float64).mean()), 1e-12)
    x = (z - mean) / scale
    weight = np.sqrt(len(codes) / counts)[codes]
    folds = _folds(codes, seed)

    def fit(penalty: float, cells: np.ndarray | slice) -> LinearClassifier:
        found = LogisticRegression(C=penalty, max_iter=1000).fit(x[cells], codes[cells], sample_weight=weight[cells])
        coefficients, bias = found.coef_, found.intercept_
        if len(classes) == 2:  # scikit-learn gives one row, for the second label against the first
            coefficients, bias = (np.concatenate([-half, half]) / 2 for half in (coefficients, bias))
        return LinearClassifier(classes.astype(object), coefficients.T, bias, 1.0)

    best = np.inf, PENALTIES[0], 1.0
    for penalty in PENALTIES:
        log_proba = np.empty((len(codes), len(classes)))
        for known, asked in folds:
            log_proba[asked] = fit(penalty, known).log_proba(x[asked])
        loss, temperature = _calibrated(log_proba, codes)
        if loss >= best[0]:  # a weaker penalty is no better either
            break
        best = loss, penalty, temperature
    _, penalty, temperature = best
    classifier = fit(penalty, slice(None))
    coefficients = classifier.weight / scale  # for z itself, which is not scaled
    return LinearClassifier(classifier.classes, coefficients, classifier.bias - mean @ coefficients, temperature)


def _folds(codes: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions of the cells to fit and of those to predict, for every part of the cells with labels ``codes``."""
    folds = StratifiedKFold(min(N_FOLDS, np.bincount(codes).max()), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # its cells are in different folds all the same
        return list(folds.split(codes, codes))


def _calibrated(log_proba: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """Loss of held-out cells at the temperature that suits them best, and this temperature."""
    own_label = np.arange(len(codes)), codes

    def loss(log_t: float) -> float:
        return -float(np.maximum(log_softmax(log_proba / np.exp(log_t), axis=1)[own_label], FLOOR).mean())

    found = minimize_scalar(loss, bounds=(np.log(0.1), np.log(10)), method="bounded")
    return float(found.fun), float(np.exp(found.x))
