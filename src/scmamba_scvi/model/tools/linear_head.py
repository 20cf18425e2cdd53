"""A linear head on embeddings: fitted, calibrated, and kept as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from ...errors import ScmambaError

#: Inverse strength of the penalty, on embeddings of mean variance 1: among 0.01 to 10 the best, or near it, on every set.
PENALTY_C = 0.1
#: Parts of the cells, each predicted by a head that was fitted to the others, from which the temperature is chosen.
N_FOLDS = 5
#: Log probabilities below this count as this when the temperature is chosen: one cell with a wrong label must not make
#: the head unsure of all others.
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
        Above 1 where the regression alone would be overconfident.
    """

    classes: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    temperature: float

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
    def from_dict(cls, values: dict[str, Any]) -> Head:
        """Head that `to_dict` described.

        Raises
        ------
        ScmambaError
            ``values`` are not those of a head: they may come from a file of somebody else.
        """
        try:
            head = cls(
                np.asarray(values["classes"], dtype=object),
                np.asarray(values["weight"], dtype=np.float64),
                np.asarray(values["bias"], dtype=np.float64),
                float(values["temperature"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ScmambaError(f"The classifier of this model cannot be read: {error}.") from error
        if not all(isinstance(label, str) for label in head.classes.ravel()) or not np.isfinite(head.bias).all():
            raise ScmambaError(
                "The classifier of this model is damaged: a label is not text or a number is not finite."
            )
        fits = head.weight.ndim == 2 and head.weight.shape[1:] == head.bias.shape == head.classes.shape
        if not fits or not np.isfinite(head.weight).all() or not head.temperature > 0:
            raise ScmambaError("The classifier of this model is damaged: its numbers do not fit its labels.")
        return head


def fit_head(z: np.ndarray, labels: np.ndarray, balance: float, seed: int) -> Head:
    """Logistic regression with a temperature from cells held out of it.

    Parameters
    ----------
    z
        Embeddings ``(n, z)``.
    labels
        Of each cell ``(n,)``: two labels or more, every one of at least two cells.
    balance
        Cells are weighted by the frequency of their label to the power ``-balance``.
    seed
        Of the folds.
    """
    classes, codes = np.unique(labels.astype(str), return_inverse=True)
    mean, scale = z.mean(axis=0, dtype=np.float64), max(np.sqrt(z.var(axis=0, dtype=np.float64).mean()), 1e-12)
    x = (z - mean) / scale
    weight = (np.bincount(codes) / len(codes)) ** -balance
    logits = _out_of_fold(x, codes, weight, seed)
    own_label = np.arange(len(codes)), codes

    def loss(log_t: float) -> float:
        return -float(np.maximum(log_softmax(logits / np.exp(log_t), axis=1)[own_label], FLOOR).mean())

    temperature = float(np.exp(minimize_scalar(loss, bounds=(np.log(0.1), np.log(10)), method="bounded").x))
    coefficients, bias = _regression(x, codes, weight)
    coefficients = coefficients / scale  # for z itself, which is not scaled
    return Head(classes.astype(object), coefficients.T, bias - coefficients @ mean, temperature)


def _regression(x: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients ``(c, z)`` and intercepts ``(c,)``, a row for every label even where there are two."""
    from sklearn.linear_model import LogisticRegression

    found = LogisticRegression(C=PENALTY_C, max_iter=1000).fit(x, codes, sample_weight=weight[codes])
    coefficients, bias = found.coef_, found.intercept_
    if len(found.classes_) == 2:  # scikit-learn gives one row, for the second label against the first
        coefficients, bias = np.concatenate([-coefficients, coefficients]) / 2, np.concatenate([-bias, bias]) / 2
    return coefficients, bias


def _out_of_fold(x: np.ndarray, codes: np.ndarray, weight: np.ndarray, seed: int) -> np.ndarray:
    """Logits ``(n, c)`` of each cell, by a regression on the cells of the other folds."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(codes), dtype=int)
    # the cells of a label are dealt out in turn: a label of two cells is in two folds, so every regression sees it
    for code in np.unique(codes):
        cells = rng.permutation(np.flatnonzero(codes == code))
        fold[cells] = (np.arange(len(cells)) + rng.integers(N_FOLDS)) % N_FOLDS
    logits = np.empty((len(codes), len(weight)))
    for i in np.unique(fold):
        known, asked = fold != i, fold == i
        coefficients, bias = _regression(x[known], codes[known], weight)
        logits[asked] = x[asked] @ coefficients.T + bias
    return logits
