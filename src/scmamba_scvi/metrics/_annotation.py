"""Scores of predicted cell types."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from ..errors import ScmambaError, UnknownNameError
from ._labels import Labels, label_array, label_codes


def annotation_scores(
    y_true: Labels, y_pred: Labels, average: Literal["macro", "weighted"] = "macro"
) -> dict[str, float]:
    """Accuracy, precision, recall and F1 of predicted cell types.

    All 0 to 1, higher is better.

    Parameters
    ----------
    y_true, y_pred
        ``(n,)`` labels.
    average
        ``"macro"`` counts every type alike, which shows what happens to rare ones; ``"weighted"`` counts every cell
        alike. The paper does not say which it takes.

    Returns
    -------
    ``{"accuracy", "precision", "recall", "f1"}``. A type that is never predicted has precision 0; one that is predicted
    but never true has recall 0 and counts in the macro average.

    Raises
    ------
    ScmambaError
        If the lengths differ, labels are missing, or no predicted label is among the true ones, as when names are
        compared with codes.

    Examples
    --------
    >>> metrics.annotation_scores(["T", "T", "B", "B"], ["T", "B", "B", "B"])["accuracy"]
    0.75
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    if average not in ("macro", "weighted"):
        raise UnknownNameError("average", average, ("macro", "weighted"))
    true, predicted = label_array(y_true), label_array(y_pred)
    if true.ndim != 1 or true.shape != predicted.shape or not len(true):
        raise ScmambaError(
            f"y_true and y_pred must hold one label each for the same cells; got {true.shape} and {predicted.shape}."
        )
    for name, labels in (("y_true", true), ("y_pred", predicted)):
        label_codes(labels, len(labels), name, at_least=1)
    if not set(true.tolist()) & set(predicted.tolist()):
        raise ScmambaError(
            f"No predicted label is among the true ones: {predicted[0]!r} is predicted where {true[0]!r} is true. "
            f"Give both as names or both as codes."
        )
    codes = pd.factorize(np.concatenate([true.astype(object), predicted.astype(object)]))[0]
    true, predicted = np.split(codes, 2)
    precision, recall, f1, _ = precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
    accuracy = accuracy_score(true, predicted)
    return {"accuracy": float(accuracy), "precision": float(precision), "recall": float(recall), "f1": float(f1)}
