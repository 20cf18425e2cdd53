"""Do the modalities lie together in each cell type, and where do they lie apart?"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from .._arguments import listed
from .._compat import warn
from .._keys import JOINT
from ..errors import ScmambaError, written
from ._embedded import Embedded
from ._inputs import Column, Embeddings, read_inputs

#: Below this fraction of neighbours of the other modality (0.5 is a perfect mix) modalities lie apart.
APART: Final = 0.25
#: Groups of fewer cells are not judged. Groups that a sentence names.
CELLS_OF_GROUP: Final = 20
NAMED: Final = 8
#: What the percentages of `lie_apart` are.
IN_PERCENT: Final = "In percent: how many of the 15 nearest cells are of the other modality. 50% is a perfect mix"


def mixing_by_type(
    data: Any,
    embeddings: Embeddings | None = None,
    *,
    labels_key: Column,
    cells: Any = None,
    max_cells: int | None = None,
    random_state: int = 0,
) -> pd.DataFrame:
    """Fraction of the nearest cells that are of the other modality, for each cell type: where do modalities lie apart?

    The score "other modality" of :func:`evaluate_integration` is its mean over all cells, which hides a type in which the
    modalities lie apart.

    Parameters
    ----------
    data, embeddings, cells, max_cells
        As in :func:`evaluate_integration`.
    labels_key
        Cell types: a column of ``obs``, or the values themselves. Cells without one are neighbours, but are in no row.
    random_state
        Seed of all draws and of the order of ties.

    Returns
    -------
    One row for each method, two modalities and type (levels ``method``, ``modalities`` such as ``"rna, atac"``, ``type``),
    with the number of ``cells`` and the mean of :func:`other_modality` over them, or of more than 25,000 cells over a sample
    with at least 100 of each type: 0.5 is a perfect mix, below 0.25 the modalities lie apart. Neighbours are searched among
    all cells with both modalities, of any type. The mean of few cells is uncertain. Methods without embeddings of two
    modalities have no rows.

    Raises
    ------
    ScmambaError
        As :func:`evaluate_integration`; or no cell has a type, or no method has embeddings of two modalities.

    Examples
    --------
    >>> genes = mdata["rna"].X[:, :9].toarray()  # any matrices will do
    >>> apart = {"rna": genes, "atac": genes + 100}
    >>> by_type = metrics.mixing_by_type(
    ...     mdata,
    ...     {"shifted": apart},
    ...     labels_key="cell_type",
    ... )
    >>> float(by_type["other modality"].max())
    0.0
    """
    inputs = read_inputs(data, embeddings, labels_key, None).choose(cells, max_cells, random_state)
    if pd.isna(inputs.labels).all():
        raise ScmambaError(f"None of these cells has a type: name the column in {written('labels_key')}.")
    rows, reason = {}, ""
    for method, parts in inputs.methods.items():
        modalities = {part: x for part, x in parts.items() if part != JOINT}
        embedded = Embedded(None, modalities, inputs.labels, inputs.batches, random_state, None)
        try:
            mixing = embedded.mixing_of_types
        except ScmambaError as error:  # this method has no two modalities, or too few cells with both
            reason = str(error).rstrip(".")
            continue
        for pair, mixed in zip(embedded.pairs, mixing, strict=True):
            types = inputs.labels[pair.cell]
            if pd.isna(types).all():
                reason = f"no cell with {' and '.join(pair.modalities)} has a type"
                continue
            means = group_means(mixed, types)
            rows[method, ", ".join(pair.modalities)] = means.assign(count=pd.Series(types).value_counts())
    if not rows:
        raise ScmambaError(f"Nothing could be scored: {reason}.")
    by_type = pd.concat(rows, names=["method", "modalities", "type"])
    return by_type.rename(columns={"mean": "other modality", "count": "cells"})[["cells", "other modality"]]


def warn_apart(methods: Mapping[str, Embedded]) -> None:
    """Warn once of all embeddings in which two modalities lie apart, and in which types."""
    sentences = []
    for method, embedded in methods.items():
        for pair, mixed, of_types in zip(embedded.pairs, embedded.mixing, embedded.mixing_of_types, strict=True):
            if where := lie_apart(pair.modalities, mixed, {"type": embedded.labels[pair.cell]}, of_types):
                sentences.append(f"{method}: {where}.")
    if sentences:
        warn(" ".join([*sentences, f"{IN_PERCENT}. Cluster and compare such cells in a joint embedding."]))


def lie_apart(
    modalities: tuple[str, str],
    mixed: np.ndarray,
    groupings: Mapping[str, np.ndarray],
    of_groups: np.ndarray | None = None,
) -> str | None:
    """That two modalities lie apart, with the groups in which they do; ``None`` if they lie together.

    ``mixed`` ``(n,)`` is of :func:`other_modality`, ``of_groups`` the same of more cells of rare groups; ``groupings`` are from
    what a group is to the group of each cell ``(n,)``, missing for none.
    """
    if np.isfinite(mixed).sum() < CELLS_OF_GROUP:
        return None
    apart = {}
    for what, groups in groupings.items():
        means = judged(mixed if of_groups is None else of_groups, groups)
        apart[what] = means[means < APART].sort_values()
    where = [f"{what} {name_groups(means)}" for what, means in apart.items() if len(means)]
    if np.nanmean(mixed) >= APART and not where:
        return None
    over_all = f"{' and '.join(modalities)} lie apart ({np.nanmean(mixed):.0%} over all cells)"
    return f"{over_all} in {'; '.join(where)}" if where else over_all


def group_means(values: np.ndarray, groups: np.ndarray) -> pd.DataFrame:
    """``mean`` and ``count`` of the values of each group, without those that are NaN."""
    return pd.Series(values).groupby(groups).agg(["mean", "count"])


def judged(values: np.ndarray, groups: np.ndarray) -> pd.Series:
    """Mean of each group that has enough cells."""
    means = group_means(values, groups)
    return means.loc[means["count"] >= CELLS_OF_GROUP, "mean"]


def name_groups(means: pd.Series) -> str:
    """The first groups with their percentages, and how many more there are."""
    return listed([f"{name} ({value:.0%})" for name, value in means.items()], NAMED)
