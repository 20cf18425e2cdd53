"""A linear head on embeddings: fitted, calibrated, and kept as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from ..errors import ScmambaError

#: Inverse strength of the penalty, on embeddings of mean variance 1: of 0.01 to 10 the best or near it everywhere.
PENALTY_C = 0.1
#: Parts of the cells that are predicted in turn by a head that has not seen them, for the temperature.
N_FOLDS = 5
#: Logarithm of the least probability that counts when the temperature is chosen: one cell that was labelled wrongly must
#: not make all others unsure.
FLOOR = -8.0


@dataclass(frozen=True)
class Head:
    """Probabilities of ``c`` labels from an embedding, ``softmax((z @ weight + bias) / temperature)``.

    Attributes
    ----------
    classes
        ``(c,)`` labels.
    weight, bias
        ``(z, c)`` and ``(c,)`` float64.
    temperature
        Above 1 where the plain head is too sure of itself.
    """

    classes: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    temperature: float

    def log_proba(self, z: np.ndarray) -> np.ndarray:
        """Log probabilities ``(n, c)``."""
        return log_softmax((z.astype(np.float64) @ self.weight + self.bias) / self.temperature, axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold, to the last digit."""
        return {
            "classes": [str(c) for c in self.classes],
            "weight": self.weight.tolist(), "bias": self.bias.tolist(), "temperature": self.temperature,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Head:
        """Head of what `to_dict` gave, checked."""
        try:
            head = cls(
                np.asarray(values["classes"], dtype=object),
                *(np.asarray(values[k], dtype=np.float64) for k in ("weight", "bias")), float(values["temperature"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise ScmambaError(f"The classifier of this model cannot be read: {error}.") from error
        if not all(isinstance(label, str) for label in head.classes.ravel()) or not np.isfinite(head.bias).all():
            raise ScmambaError("The classifier of this model is damaged: its labels or numbers are none.")
        fits = head.weight.ndim == 2 and head.weight.shape[1:] == head.bias.shape == head.classes.shape
        if not fits or not np.isfinite(head.weight).all() or not head.temperature > 0:
            raise ScmambaError("The classifier of this model is damaged: its numbers do not fit its labels.")
        return head


def fit_head(z: np.ndarray, labels: np.ndarray, balance: float, seed: int) -> Head:
    """Logistic regression on ``z (n, z)``, every label at least twice, with a temperature from held-out cells.

    Parameters
    ----------
    balance
        Cells are weighted by the frequency of their label to the power ``-balance``.
    """
    classes, codes = np.unique(labels.astype(str), return_inverse=True)
    if len(classes) < 2:
        raise ScmambaError(f"A classifier needs at least two labels; all {len(labels):,} cells are {classes[0]!r}.")
    mean, scale = z.mean(axis=0, dtype=np.float64), np.sqrt(z.var(axis=0, dtype=np.float64).mean())
    x = (z - mean) / max(scale, 1e-12)
    weight = (np.bincount(codes) / len(codes)) ** -balance
    logits = _out_of_fold(x, codes, weight, seed)
    own = np.arange(len(codes)), codes

    def loss(log_t: float) -> float:
        return -float(np.maximum(log_softmax(logits / np.exp(log_t), axis=1)[own], FLOOR).mean())

    temperature = float(np.exp(minimize_scalar(loss, bounds=(np.log(0.1), np.log(10)), method="bounded").x))
    coefficients, bias = _regression(x, codes, weight)
    coefficients = coefficients / max(scale, 1e-12)
    return Head(classes.astype(object), coefficients.T, bias - coefficients @ mean, temperature)


def _regression(x: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients ``(c, z)`` and intercepts ``(c,)`` over the labels that ``codes`` hold, two labels included."""
    from sklearn.linear_model import LogisticRegression

    found = LogisticRegression(C=PENALTY_C, max_iter=1000).fit(x, codes, sample_weight=weight[codes])
    coefficients, bias = found.coef_, found.intercept_
    if len(found.classes_) == 2:  # one row, for the second label against the first
        coefficients, bias = np.concatenate([-coefficients, coefficients]) / 2, np.concatenate([-bias, bias]) / 2
    return coefficients, bias


def _out_of_fold(x: np.ndarray, codes: np.ndarray, weight: np.ndarray, seed: int) -> np.ndarray:
    """Logits ``(n, c)`` of each cell by a regression on the others' folds; labels with two cells are spread, too."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(codes), dtype=int)
    for code in np.unique(codes):  # in turn over shuffled cells: every label lies in as many folds as it can
        cells = rng.permutation(np.flatnonzero(codes == code))
        fold[cells] = (np.arange(len(cells)) + rng.integers(N_FOLDS)) % N_FOLDS
    logits = np.full((len(codes), len(weight)), -50.0)
    for i in np.unique(fold):
        known, asked = fold != i, fold == i
        seen = np.unique(codes[known])
        coefficients, bias = _regression(x[known], codes[known], weight)
        logits[np.ix_(asked, seen)] = x[asked] @ coefficients.T + bias
    return logits
