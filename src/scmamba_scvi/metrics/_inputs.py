"""What is scored: embeddings, labels and batches of the same cells, aligned by name.

Nothing here imports mudata: a MuData is recognised by ``mod``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd

from .._arguments import check_count
from .._columns import in_order_of, obs_column
from .._compat import explained
from .._keys import JOINT, OBSM_KEY
from ..errors import ScmambaError, UnknownNameError, written
from ._labels import Labels
from .distances import query_rows

#: What is scored where nothing is named.
DEFAULT: Final = {"scmamba-scvi": OBSM_KEY}

#: A key of ``obsm``, a matrix, or a table with names of cells.
Embedding: TypeAlias = str | np.ndarray | pd.DataFrame
Embeddings: TypeAlias = str | Mapping[str, Embedding | Mapping[str, Embedding]]
Column: TypeAlias = str | Labels | None
#: Method and part.
Key: TypeAlias = tuple[str, str]


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
        Per method and part, a mask ``(n,)`` of the cells whose row was given but is not finite.
    """

    cells: pd.Index
    methods: dict[str, dict[str, np.ndarray]]
    labels: np.ndarray
    batches: np.ndarray
    unusable: dict[Key, np.ndarray]

    def choose(self, cells: Any, max_cells: int | None, random_state: int) -> Inputs:
        """The cells asked for, and of these at most ``max_cells``, drawn at random."""
        rows = np.arange(len(self.cells)) if cells is None else _positions(self.cells, cells)
        if max_cells is not None:
            check_count("max_cells", max_cells, 2, advice=" or None (all cells)")
            rows = rows[query_rows(len(rows), max_cells, random_state)]
        methods = {name: {part: x[rows] for part, x in parts.items()} for name, parts in self.methods.items()}
        unusable = {key: mask[rows] for key, mask in self.unusable.items()}
        return Inputs(self.cells[rows], methods, self.labels[rows], self.batches[rows], unusable)


def read_inputs(data: Any, embeddings: Embeddings | None, labels_key: Column, batch_key: Column) -> Inputs:
    """Collect and align all that is scored; every fault of the input is reported here, before anything is computed."""
    given = _parts(data, embeddings)
    cells = pd.Index(data.obs_names)
    if not cells.is_unique:
        raise ScmambaError("Names of cells (obs_names) are not unique: call obs_names_make_unique() first.")
    tables = {key: _of_data(data, key, x) for key, x in given.items()}
    methods: dict[str, dict[str, np.ndarray]] = {}
    unusable = {}
    for (method, part), table in tables.items():
        bad = ~np.isfinite(table.to_numpy()).all(axis=1)
        if bad.all():
            raise ScmambaError(f"No row of the embedding {display_name(method, part)} is finite.")
        unusable[method, part] = cells.isin(table.index[bad])
        methods.setdefault(method, {})[part] = table.reindex(cells).to_numpy()
    for method, parts in methods.items():
        # the joint embedding may be in another space
        sizes = {part: x.shape[1] for part, x in parts.items() if part != JOINT}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{part} {z}" for part, z in sizes.items())
            raise ScmambaError(
                f"Modalities of {method!r} have different numbers of dimensions ({listed}), so that they are not in "
                f"one space. To score the joint embedding alone, give {{{method!r}: {{'joint': ...}}}}."
            )
    labels = _column(data, labels_key, cells, "labels_key")
    return Inputs(cells, methods, labels, _column(data, batch_key, cells, "batch_key"), unusable)


def display_name(method: str, part: str) -> str:
    """How errors and warnings name one embedding."""
    return f"{method!r} ({part})"


def _parts(data: Any, embeddings: Embeddings | None) -> dict[Key, Embedding]:
    """What was given for each method and part."""
    if not (hasattr(data, "obsm") and hasattr(data, "obs_names")):
        raise ScmambaError(
            f"data must be a MuData or an AnnData; got {type(data).__name__}. Of a model, score what "
            f"get_latent_representation() gives."
        )
    if embeddings is None:
        embeddings = DEFAULT
    elif isinstance(embeddings, str):
        embeddings = {embeddings: embeddings}
    elif not isinstance(embeddings, Mapping):
        raise ScmambaError(
            f"embeddings must be a key of obsm, or a dict from method to key or matrix; got {type(embeddings).__name__}."
        )
    if not embeddings:
        raise ScmambaError("embeddings is empty: name at least one method.")
    given: dict[Key, Embedding] = {}
    for method, parts in embeddings.items():
        if isinstance(parts, str):
            holders, key = {JOINT: data, **getattr(data, "mod", {})}, parts
            parts = {part: key for part, holder in holders.items() if key in _keys(holder)}
            if not parts:
                advice = f"integrate writes {key}: run it first, or name another embedding." if key == OBSM_KEY else ""
                raise UnknownNameError("key of obsm", key, _keys(*holders.values()), advice)
        elif not isinstance(parts, Mapping):
            parts = {JOINT: parts}
        if not parts:
            raise ScmambaError("A method without embeddings was given: name its parts, such as {'rna': x, 'atac': y}.")
        given |= {(method, part): x for part, x in parts.items()}
    return given


def _keys(*holders: Any) -> list[str]:
    """Keys of ``obsm``, without the masks in which a MuData keeps which cells have a modality."""
    return sorted({str(key) for holder in holders for key in holder.obsm if key not in getattr(holder, "mod", {})})


def _of_data(data: Any, key: Key, given: Embedding) -> pd.DataFrame:
    """One embedding by the names of its cells; a row of NaN for a cell that lacks the modality is no fault."""
    modality = getattr(data, "mod", {}).get(key[1])
    table = _by_name(data, display_name(*key), modality, given)
    return table if modality is None else table[table.notna().all(axis=1) | table.index.isin(modality.obs_names)]


def _by_name(data: Any, called: str, modality: Any, given: Embedding) -> pd.DataFrame:
    """An embedding, given as a key, a table with names, or a matrix with the rows of the data."""
    if isinstance(given, str):
        holders = [data] if modality is None else [modality, data]
        for holder in holders:
            if given in _keys(holder):
                return pd.DataFrame(_matrix(holder.obsm[given], called), holder.obs_names)
        raise UnknownNameError(f"key of obsm for {called}", given, _keys(*holders))
    if isinstance(given, pd.DataFrame):
        unknown = given.index[~given.index.isin(data.obs_names)]
        if len(unknown):
            raise ScmambaError(
                f"{len(unknown):,} of {len(given):,} cells of {called} are not in the data, such as {unknown[0]!r}."
            )
        if not given.index.is_unique:
            raise ScmambaError(f"Names of cells of the embedding {called} are not unique.")
        return pd.DataFrame(_matrix(given, called), given.index)
    x = _matrix(given, called)
    if modality is not None and any(_same(x, own) for own in modality.obsm.values()):  # in the modality's own order
        return pd.DataFrame(x, modality.obs_names)
    if len(x) != data.n_obs:
        raise ScmambaError(
            f"{called} has {len(x):,} rows for {data.n_obs:,} cells: give a row per cell of the data, NaN where a cell lacks "
            f"the modality, or a DataFrame indexed by names of cells."
        )
    return pd.DataFrame(x, data.obs_names)


def _same(x: np.ndarray, own: Any) -> bool:
    """Whether a matrix is one of ``obsm``, by its values: of a slice each access gives another object."""
    return x.shape == own.shape and np.asarray(own).dtype.kind in "biuf" and np.array_equal(x, own, equal_nan=True)


def _matrix(values: Any, called: str) -> np.ndarray:
    must = f"The embedding {called} must be a dense matrix of numbers, got"
    with explained(f"{must} {type(values).__name__}"):  # text, or a sparse matrix
        x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise ScmambaError(f"{must} {x.shape if x.ndim else type(values).__name__}.")
    return x


def _positions(names: pd.Index, cells: Any) -> np.ndarray:
    """Positions of cells given as a mask, as positions or as names; a Series that is a mask is read by its names of cells."""
    wanted, n = np.asarray(cells), len(names)
    if wanted.ndim != 1:
        raise ScmambaError(f"cells must be a list of positions or of names, or a mask; got {cells!r}.")
    if wanted.dtype == bool:
        wanted = np.asarray(in_order_of(names, cells, "The mask of cells"))
        if wanted.shape != (n,):
            raise ScmambaError(f"The mask of cells must have one entry per cell, {n:,}; got {wanted.shape}.")
        rows = np.flatnonzero(wanted)
    else:
        by_position = np.issubdtype(wanted.dtype, np.integer)
        rows = np.where(wanted < n, wanted, -1) if by_position else names.get_indexer(wanted)
        if (rows < 0).any():
            raise ScmambaError(
                f"{(rows < 0).sum():,} of the cells asked for are not in the data, such as {wanted[rows < 0][0]!r}"
                f"{f': positions run from 0 to {n - 1:,}' if by_position else ''}."
            )
    rows = np.unique(rows)
    if len(rows) < 2:
        raise ScmambaError(f"At least two cells are needed; {len(rows)} were asked for.")
    return rows


def _column(data: Any, given: Column, cells: pd.Index, name: str) -> np.ndarray:
    """Labels of the cells as objects ``(n,)``, ``None`` where missing."""
    if given is None:
        return np.full(len(cells), None, dtype=object)
    if isinstance(given, str):
        values = obs_column(data, given).astype(object).reindex(cells)
    elif isinstance(given, pd.Series) and (given.index.inferred_type == "string" or given.index.isin(cells).any()):
        if not given.index.is_unique:
            raise ScmambaError(f"{name} names some cells twice.")
        if not given.index.isin(cells).any():
            raise ScmambaError(
                f"{name} names none of the cells: it has {given.index[0]!r}, the data {cells[0]!r}. If its rows are those of "
                f"the data, pass its values, .to_numpy()."
            )
        values = given.reindex(cells)
    else:
        if np.shape(given) != (len(cells),):
            raise ScmambaError(f"{name} must hold one value for each of {len(cells):,} cells; got {np.shape(given)}.")
        # not through an array, which would turn a NaN among names into the text "nan"
        values = pd.Series(list(given), index=cells, dtype=object)
    values = values.astype(object)
    if values.isna().all():
        raise ScmambaError(f"{written(name)} is missing for every cell.")
    return values.where(values.notna(), None).to_numpy(dtype=object)
