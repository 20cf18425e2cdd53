"""One number for a table of scores."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import pandas as pd

from .._compat import explained
from ..errors import ScmambaError, UnknownNameError
from ._panel import METRICS

#: Columns averaged in the biology conservation score (equation 20).
BIO: Final = tuple(m.name for m in METRICS.values() if m.group == "bio" and m.in_summary)
#: Columns averaged in the omics alignment score (equation 21, whose text says "bio" twice).
OMICS: Final = tuple(m.name for m in METRICS.values() if m.group == "omics" and m.in_summary)


def overall_scores(scores: pd.DataFrame, scale: Literal["minmax"] | None = None) -> pd.DataFrame:
    """Biology conservation, omics alignment and overall score of each method (equations 19 to 22).

    Higher is better; 0 to 1 if every score is.

    Parameters
    ----------
    scores
        One row per method, one column per score, all "higher is better", below their groups or not. Used are those that
        :data:`METRICS` marks, if they have any value.
    scale
        ``None`` averages the scores as they are, so that a method's number does not depend on what it is compared
        with. ``"minmax"`` is the paper's equation 22: each score from 0 for the worst to 1 for the best method of the
        table; numbers from different tables do not compare. A score on which all methods tie (to 1e-9), for which
        the equation is 0/0, becomes 0.5 for each.

    Returns
    -------
    Columns ``bio``, ``omics`` and, of these with weights 0.6 and 0.4, ``overall``, index as in ``scores``. A method that
    lacks a score which others have gets ``NaN`` for the part and overall: averaging the remaining scores would reward a
    missing one.

    Raises
    ------
    UnknownNameError
        ``scale`` is neither of the two.
    ScmambaError
        ``scale="minmax"`` with a single method; no score of biology, or none of omics; or one that is no finite number.

    Examples
    --------
    >>> of_one = {"ARI": [0.6], "NMI": [0.8], "omics mixing": [0.5]}
    >>> scores = pd.DataFrame(of_one, index=["scmamba-scvi"])
    >>> metrics.overall_scores(scores).round(2).iloc[0].tolist()
    [0.7, 0.5, 0.62]
    """
    if scale not in (None, "minmax"):
        raise UnknownNameError("scale", scale, ("minmax", None))
    if scores.columns.nlevels > 1:
        scores = scores.droplevel(0, axis=1)
    parts = {"bio": _part(scores, "bio", BIO), "omics": _part(scores, "omics", OMICS)}
    if scale == "minmax":
        if len(scores) < 2:
            raise ScmambaError(
                f"scale='minmax' compares methods and needs at least two; got {len(scores)}: use scale=None."
            )
        parts = {name: values.apply(_minmax) for name, values in parts.items()}
    out = pd.DataFrame({name: values.mean(axis=1, skipna=False) for name, values in parts.items()})
    out["overall"] = 0.6 * out["bio"] + 0.4 * out["omics"]
    return out


def _minmax(values: pd.Series) -> pd.Series:
    """From 0 for the worst to 1 for the best; differences by rounding are ties, which must not become 0 and 1."""
    low, span = values.min(), np.ptp(values.dropna())
    return (values - low) / span if span > 1e-9 else values * 0 + 0.5


def _part(scores: pd.DataFrame, name: str, wanted: Sequence[str]) -> pd.DataFrame:
    """The columns of one part that hold any value."""
    columns = [column for column in wanted if column in scores.columns]
    text = ", ".join(map(str, scores[columns].select_dtypes(exclude="number").columns))
    with explained(f"A score of {name} is not a number, in {text}"):
        values = scores[columns].astype(float).dropna(axis=1, how="all")
    if values.shape[1] == 0:
        raise ScmambaError(f"No column of the table is a score of {name}; expected one of {', '.join(wanted)}.")
    infinite = values.columns[np.isinf(values).any()]
    if len(infinite):
        raise ScmambaError(f"A score of {name} is infinite: {', '.join(map(str, infinite))}.")
    return values
