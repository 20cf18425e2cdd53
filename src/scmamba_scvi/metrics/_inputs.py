"""What is scored: embeddings, labels and batches of the same cells, aligned by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from .._columns import obs_column
from ..errors import ScmambaError
from ._labels import Labels
from ._read_embeddings import JOINT, Embeddings, display_name, is_model, read_embeddings


@dataclass(frozen=True)
class Inputs:
    """Everything in the order of ``cells``.

    Attributes
    ----------
    cells
        ``n`` unique names.
    methods
        Per method and part (``"joint"`` or a modality) a float matrix ``(n, z)``, NaN where a cell has no embedding.
    labels, batches
        Objects ``(n,)``, ``None`` where missing.
    unusable
        Per method and part, the number of rows that were given but are not finite.
    """

    cells: pd.Index
    methods: dict[str, dict[str, np.ndarray]]
    labels: np.ndarray
    batches: np.ndarray
    unusable: dict[tuple[str, str], int]

    def __getitem__(self, rows: np.ndarray) -> Inputs:
        """The cells at these positions."""
        methods = {name: {part: x[rows] for part, x in parts.items()} for name, parts in self.methods.items()}
        return replace(
            self, cells=self.cells[rows], methods=methods, labels=self.labels[rows], batches=self.batches[rows]
        )


def read_inputs(
    data: Any,
    embeddings: Embeddings | None,
    label_key: str | Labels | Mapping[str, Labels] | None,
    batch_key: str | Labels | Mapping[str, Labels] | None,
    paired: bool,
) -> Inputs:
    """Collect and align all that is scored; every fault of the input is reported here, before anything is computed."""
    own_rows = isinstance(label_key, Mapping) or isinstance(batch_key, Mapping)
    if own_rows and (paired or data is not None):
        raise ScmambaError(
            "label_key or batch_key as a dict from modality is for matrices of different cells: data=None and "
            "paired=False."
        )
    frames, cells = read_embeddings(data, embeddings, paired, own_rows)
    data = data.adata if is_model(data) else data
    methods: dict[str, dict[str, np.ndarray]] = {}
    unusable = {}
    for method, parts in frames.items():
        _check_one_space(method, parts)
        for part, frame in parts.items():
            n_bad = int((~np.isfinite(frame.to_numpy()).all(axis=1)).sum())
            if n_bad == len(frame):
                raise ScmambaError(f"No row of the embedding {display_name(method, part)} is finite.")
            if n_bad:
                unusable[method, part] = n_bad
            methods.setdefault(method, {})[part] = frame.reindex(cells).to_numpy()
    labels = _column(data, label_key, cells, "label_key")
    return Inputs(cells, methods, labels, _column(data, batch_key, cells, "batch_key"), unusable)


def choose_cells(inputs: Inputs, cells: Any, max_cells: int | None, random_state: int) -> Inputs:
    """The cells asked for, and of these at most ``max_cells``, drawn at random."""
    n = len(inputs.cells)
    rows = np.arange(n) if cells is None else _positions(inputs.cells, cells)
    if max_cells is not None:
        if max_cells < 2:
            raise ScmambaError(f"max_cells must be at least 2 or None (all cells); got {max_cells}.")
        if max_cells < len(rows):
            rows = np.sort(np.random.default_rng(random_state).choice(rows, max_cells, replace=False))
    return inputs if len(rows) == n else inputs[rows]


def _check_one_space(method: str, parts: Mapping[str, pd.DataFrame]) -> None:
    """Modalities that are compared must be embedded in one space; the joint embedding may be in another."""
    sizes = {part: frame.shape[1] for part, frame in parts.items() if part != JOINT}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{part} {z}" for part, z in sizes.items())
        raise ScmambaError(
            f"Modalities of {method!r} have different numbers of dimensions ({listed}), so that they are not in one "
            f"space. To score the joint embedding alone, give {{{method!r}: {{'joint': ...}}}}."
        )


def _positions(names: pd.Index, cells: Any) -> np.ndarray:
    """Positions of cells given as a mask, as positions or as names."""
    wanted = np.asarray(cells)
    if wanted.dtype == bool:
        if wanted.shape != (len(names),):
            raise ScmambaError(f"The mask of cells must have one entry per cell, {len(names):,}; got {wanted.shape}.")
        rows = np.flatnonzero(wanted)
    elif np.issubdtype(wanted.dtype, np.integer):
        outside = (wanted < 0) | (wanted >= len(names))
        if outside.any():
            raise ScmambaError(f"Positions of cells run from 0 to {len(names) - 1:,}; got {wanted[outside][0]}.")
        rows = wanted
    else:
        rows = names.get_indexer(wanted)
        if (rows < 0).any():
            raise ScmambaError(
                f"{int((rows < 0).sum()):,} of the cells asked for are not in the data, such as "
                f"{wanted[rows < 0][0]!r}."
            )
    rows = np.unique(rows)
    if len(rows) < 2:
        raise ScmambaError(f"At least two cells are needed; {len(rows)} were asked for.")
    return rows


def _column(data: Any, given: Any, cells: pd.Index, name: str) -> np.ndarray:
    """Labels of the cells as objects ``(n,)``, ``None`` where missing."""
    if given is None:
        return np.full(len(cells), None, dtype=object)
    if isinstance(given, str):
        if data is None:
            raise ScmambaError(f"{name}={given!r} names a column, but there are no data: give the values themselves.")
        values = obs_column(data, given).astype(object).reindex(cells)
    elif isinstance(given, Mapping):
        values = _per_modality(given, cells, name)
    elif isinstance(given, pd.Series) and given.index.isin(cells).any():
        if not given.index.is_unique:
            raise ScmambaError(f"{name} names some cells twice.")
        values = given.reindex(cells)
    else:
        if np.shape(given) != (len(cells),):
            raise ScmambaError(f"{name} must hold one value for each of {len(cells):,} cells; got {np.shape(given)}.")
        # not through an array, which would turn a NaN among names into the text "nan"
        values = pd.Series(list(given), index=cells, dtype=object)
    values = values.astype(object)
    if values.isna().all():
        raise ScmambaError(f"{name} is missing for every cell.")
    return values.where(values.notna(), None).to_numpy(dtype=object)


def _per_modality(given: Mapping[str, Labels], cells: pd.Index, name: str) -> pd.Series:
    """Labels of matrices that hold different cells."""
    values = pd.Series([None] * len(cells), index=cells, dtype=object)
    for part, labels in given.items():
        own = [f"{part}:{i}" for i in range(len(labels))]
        if not set(own) <= set(cells) or f"{part}:{len(labels)}" in cells:
            parts = list(dict.fromkeys(str(cell).rpartition(":")[0] for cell in cells))
            raise ScmambaError(
                f"{name}[{part!r}] has {len(labels):,} values: give one for each row of the matrix of that modality; "
                f"there are matrices of {parts}."
            )
        values[own] = list(labels)
    return values
