"""Scores of predicted labels, and one number for a table of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from ..errors import ScmambaError, UnknownNameError
from ._labels import Labels, label_array, label_codes

#: Scores of the biology conservation score (equation 20).
BIO = ("ari", "nmi", "map", "casw")
#: Scores of the omics alignment score (equation 21, whose text says "bio" twice).
OMICS = ("oems", "sas", "gc", "oasw")


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
    true, predicted = codes[: len(true)], codes[len(true) :]
    precision, recall, f1, _ = precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
    accuracy = accuracy_score(true, predicted)
    return {"accuracy": float(accuracy), "precision": float(precision), "recall": float(recall), "f1": float(f1)}


def overall_scores(
    scores: pd.DataFrame,
    scale: Literal["minmax"] | None = None,
    weights: tuple[float, float] = (0.6, 0.4),
    *,
    bio: Sequence[str] = BIO,
    omics: Sequence[str] = OMICS,
) -> pd.DataFrame:
    """Biology conservation, omics alignment and overall score of each method (equations 19 to 22).

    Higher is better; 0 to 1 if every score is.

    Parameters
    ----------
    scores
        One row per method, one column per score, all "higher is better". With two levels of columns the first one says
        to what a score belongs, ``"bio"`` or ``"omics"``; others are not used.
    scale
        ``None`` averages the scores as they are, so that a method's number does not depend on what it is compared
        with. ``"minmax"`` is the paper's equation 22: each score from 0 for the worst to 1 for the best method of the
        table; numbers from different tables do not compare. A score on which all methods tie (to 1e-9), for which
        the equation is 0/0, becomes 0.5 for each.
    weights
        Of biology conservation and omics alignment.
    bio, omics
        Columns of each part where columns have one level. Columns that are not there, or hold no value, are left out.

    Returns
    -------
    Columns ``bio``, ``omics``, ``overall``, index as in ``scores``. A method that lacks a score which others have gets
    ``NaN`` for the part and overall: averaging what is left would reward what is missing.

    Raises
    ------
    ScmambaError
        If a part has no score, if a score is infinite, or if ``"minmax"`` is asked of a single method.

    Examples
    --------
    >>> scores = pd.DataFrame({"ARI": [0.6], "NMI": [0.8], "omics mixing": [0.5]}, index=["scMamba"])
    >>> metrics.overall_scores(scores, bio=["ARI", "NMI"], omics=["omics mixing"]).round(2).iloc[0].tolist()
    [0.7, 0.5, 0.62]
    """
    if scale not in (None, "minmax"):
        raise UnknownNameError("scale", scale, ("minmax", None))
    if scale == "minmax" and len(scores) < 2:
        raise ScmambaError(
            f"scale='minmax' compares methods and needs at least two; got {len(scores)}: use scale=None."
        )
    parts = {}
    for name, wanted in (("bio", bio), ("omics", omics)):
        values = _part(scores, name, wanted)
        if scale == "minmax":
            values = values.apply(_minmax)
        parts[name] = values.mean(axis=1, skipna=False)
    out = pd.DataFrame(parts, index=scores.index)
    out["overall"] = weights[0] * out["bio"] + weights[1] * out["omics"]
    return out


def _minmax(values: pd.Series) -> pd.Series:
    """From 0 for the worst to 1 for the best; differences of rounding are ties, which must not become 0 and 1."""
    low, span = values.min(), np.ptp(values.dropna())
    return (values - low) / span if span > 1e-9 else values * 0 + 0.5


def _part(scores: pd.DataFrame, name: str, wanted: Sequence[str]) -> pd.DataFrame:
    """The columns of one part that hold any value."""
    if scores.columns.nlevels > 1:
        columns = [column for column in scores.columns if column[0] == name]
    else:
        columns = [column for column in wanted if column in scores.columns]
    values = scores[columns].astype(float).dropna(axis=1, how="all")
    if values.shape[1] == 0:
        raise ScmambaError(f"No column of the table is a score of {name}; needed one of {', '.join(wanted)}.")
    if np.isinf(values.to_numpy()).any():
        raise ScmambaError(
            f"A score of {name} is infinite: {', '.join(map(str, values.columns[np.isinf(values).any()]))}."
        )
    return values
