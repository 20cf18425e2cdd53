"""Embeddings, labels and batches in all the forms users have them, aligned by the names of cells.

Nothing here imports mudata or scvi-tools: a MuData is recognised by ``mod``, a model by its methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd

from .._keys import OBSM_KEY
from ..errors import ScmambaError, UnknownNameError
from ._labels import Labels

#: Part of a method's embeddings that joins all modalities; every other part is a modality.
JOINT: Final = "joint"
#: Name in the table of a model's embeddings, computed or read from `OBSM_KEY`.
OURS: Final = "scMamba"

#: A key of ``obsm``, a matrix, or a table with names of cells.
Embedding: TypeAlias = str | np.ndarray | pd.DataFrame
Embeddings: TypeAlias = str | Sequence[str] | Mapping[str, Embedding | Mapping[str, Embedding]]


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
    own_rows = False  # whether the matrices of two modalities hold different cells, each with labels of its own
    for name, given in (("label_key", label_key), ("batch_key", batch_key)):
        if isinstance(given, Mapping):
            if paired or data is not None:
                raise ScmambaError(
                    f"{name} as a dict from modality is for matrices of different cells: data=None, paired=False."
                )
            own_rows = True
    frames, cells = _frames(data, embeddings, paired, own_rows)
    data = data.adata if _is_model(data) else data
    methods: dict[str, dict[str, np.ndarray]] = {}
    unusable = {}
    for method, parts in frames.items():
        _check_one_space(method, parts)
        for part, frame in parts.items():
            n_bad = int((~np.isfinite(frame.to_numpy()).all(axis=1)).sum())
            if n_bad == len(frame):
                raise ScmambaError(f"No row of the embedding {_called(method, part)} is finite.")
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
                f"{int((rows < 0).sum()):,} of the cells asked for are not in the data, such as {wanted[rows < 0][0]!r}."
            )
    rows = np.unique(rows)
    if len(rows) < 2:
        raise ScmambaError(f"At least two cells are needed; {len(rows)} were asked for.")
    return rows


# -- embeddings ---------------------------------------------------------------------------------------------------

Frames: TypeAlias = dict[str, dict[str, pd.DataFrame]]


def _frames(data: Any, embeddings: Embeddings | None, paired: bool, own_rows: bool) -> tuple[Frames, pd.Index]:
    """Per method and part a table indexed by names of cells, and the names of all cells in order."""
    named = _as_mapping(embeddings)
    if data is None:
        if not named:
            raise ScmambaError("Without data, give embeddings such as {'method': {'rna': x, 'atac': y}}.")
        return _from_arrays(named, paired, own_rows)
    frames: Frames = {}
    if _is_model(data):
        if OURS in named:
            raise ScmambaError(f"The model's own embeddings are called {OURS!r}: give the other method another name.")
        frames[OURS], data = _of_model(data), data.adata
    elif not hasattr(data, "obsm"):
        raise ScmambaError(f"data must be a MuData, an AnnData, a trained model or None; got {type(data).__name__}.")
    elif embeddings is None:
        named = {OURS: OBSM_KEY}
    if not data.obs_names.is_unique:
        raise ScmambaError("Names of cells (obs_names) are not unique: call obs_names_make_unique() first.")
    for method, spec in named.items():
        frames[method] = _from_key(data, spec) if isinstance(spec, str) else {
            part: _frame(data, part, value, _called(method, part)) for part, value in _as_parts(spec).items()
        }  # fmt: skip
    if not frames:
        raise ScmambaError("embeddings is empty: name at least one method.")
    return frames, pd.Index(data.obs_names)


def _is_model(data: Any) -> bool:
    return hasattr(data, "get_latent_representation") and hasattr(data, "kinds")


def _as_mapping(embeddings: Embeddings | None) -> Mapping[str, Any]:
    if embeddings is None:
        return {}
    if isinstance(embeddings, str):
        return {embeddings: embeddings}
    if isinstance(embeddings, Mapping):
        return embeddings
    if not isinstance(embeddings, Iterable) or not all(isinstance(key, str) for key in embeddings):
        raise ScmambaError(
            f"embeddings must be keys of obsm, or a dict from method to key or matrix; got {type(embeddings).__name__}."
        )
    return {key: key for key in embeddings}


def _as_parts(spec: Embedding | Mapping[str, Embedding]) -> Mapping[str, Embedding]:
    if isinstance(spec, Mapping):
        if not spec:
            raise ScmambaError("A method without embeddings was given: name its parts, such as {'rna': x, 'atac': y}.")
        return spec
    return {JOINT: spec}


def _called(method: str, part: str) -> str:
    return f"{method!r} ({part})"


def _of_model(model: Any) -> dict[str, pd.DataFrame]:
    """The joint embedding, and for each modality that of the cells which have it."""
    mdata = model.adata
    parts = {JOINT: pd.DataFrame(model.get_latent_representation(), index=mdata.obs_names)}
    for key in model.kinds.values():
        names = mdata.mod[key].obs_names
        rows = mdata.obs_names.get_indexer(names)
        parts[key] = pd.DataFrame(model.get_latent_representation(modality=key, indices=rows.tolist()), index=names)
    return parts


def _from_key(data: Any, key: str) -> dict[str, pd.DataFrame]:
    """``obsm[key]`` of the data, and of every modality that has it."""
    holders = {JOINT: data, **getattr(data, "mod", {})}
    found = {part: holder for part, holder in holders.items() if key in holder.obsm}
    if not found:
        raise UnknownNameError("key of obsm", key, _keys(*holders.values()))
    return {part: _table(holder.obsm[key], holder.obs_names, _called(key, part)) for part, holder in found.items()}


def _keys(*holders: Any) -> list[str]:
    """Keys of ``obsm``, without the masks in which a MuData keeps which cells have a modality."""
    return sorted({str(key) for holder in holders for key in holder.obsm if key not in getattr(holder, "mod", {})})


def _frame(data: Any, part: str, spec: Embedding, called: str) -> pd.DataFrame:
    """One part of a method, given as a key, a table with names, or a matrix with the rows of the data or modality."""
    modality = getattr(data, "mod", {}).get(part)
    if isinstance(spec, str):
        holders = [holder for holder in (modality, data) if holder is not None]
        for holder in holders:
            if spec in holder.obsm:
                return _table(holder.obsm[spec], holder.obs_names, called)
        raise UnknownNameError(f"key of obsm for {called}", spec, _keys(*holders))
    if isinstance(spec, pd.DataFrame):
        _check_known(spec.index, data.obs_names, called)
        return _table(spec, spec.index, called)
    n = _n_rows(spec, called)
    of_data, of_modality = n == data.n_obs, modality is not None and n == modality.n_obs
    if modality is not None and of_data and of_modality and not data.obs_names.equals(modality.obs_names):
        raise ScmambaError(
            f"{called} has {n:,} rows, and the data and the modality {part!r} both have that many cells, in different "
            f"orders: give a DataFrame indexed by names of cells, or put the matrix into obsm."
        )
    if not of_data and not of_modality:
        sizes = f"{data.n_obs:,}" + ("" if modality is None else f" (or {modality.n_obs:,} for {part!r})")
        raise ScmambaError(f"{called} has {n:,} rows for {sizes} cells: one row per cell is needed.")
    return _table(spec, data.obs_names if modality is None or of_data else modality.obs_names, called)


def _from_arrays(named: Mapping[str, Any], paired: bool, own_rows: bool) -> tuple[Frames, pd.Index]:
    """Without data: tables name their cells; row ``i`` of every matrix is one cell, or each matrix has its own cells."""
    parts = {(method, part): x for method, spec in named.items() for part, x in _as_parts(spec).items()}
    for (method, part), x in parts.items():
        if isinstance(x, str):
            raise ScmambaError(f"{_called(method, part)} is the key {x!r}, but there are no data to look it up in.")
    index = {key: x.index for key, x in parts.items() if isinstance(x, pd.DataFrame)}
    if index and len(index) < len(parts):
        raise ScmambaError(
            "Some embeddings are tables with names of cells and some are matrices: give all in one form."
        )
    if index:
        cells = pd.Index(list(dict.fromkeys(name for names in index.values() for name in names)))
    else:
        index, cells = _row_names(parts, paired, own_rows)
    frames: Frames = {}
    for (method, part), x in parts.items():
        frames.setdefault(method, {})[part] = _table(x, index[method, part], _called(method, part))
    return frames, cells


def _row_names(
    parts: Mapping[tuple[str, str], Any], paired: bool, own_rows: bool
) -> tuple[dict[tuple[str, str], pd.Index], pd.Index]:
    """Names for the rows of matrices: the same in all of them, or different ones in each modality."""
    sizes = {key: _n_rows(x, _called(*key)) for key, x in parts.items()}
    if len(set(sizes.values())) == 1 and not own_rows:
        cells = pd.RangeIndex(next(iter(sizes.values())))
        return dict.fromkeys(parts, cells), cells
    if paired:
        listed = ", ".join(f"{_called(*key)} {n:,}" for key, n in sizes.items())
        raise ScmambaError(
            f"Row i of every matrix must be the same cell, but they have different numbers of rows: {listed}. Give "
            f"tables indexed by names of cells, or say paired=False and give labels as a dict from modality."
        )
    per_part: dict[str, int] = {}
    for (method, part), n in sizes.items():
        if part == JOINT:
            raise ScmambaError(
                f"{_called(method, part)}: without names, matrices of different cells cannot have a joint one."
            )
        if per_part.setdefault(part, n) != n:
            raise ScmambaError(f"{_called(method, part)} has {n:,} rows, but {per_part[part]:,} in another method.")
    names = {part: pd.Index([f"{part}:{i}" for i in range(n)]) for part, n in per_part.items()}
    cells = pd.Index([name for own in names.values() for name in own])
    return {(method, part): names[part] for method, part in parts}, cells


def _n_rows(values: Any, called: str) -> int:
    try:
        return len(values)
    except TypeError as error:  # a number, or a sparse matrix
        raise ScmambaError(
            f"The embedding {called} must be a dense matrix of numbers, got {type(values).__name__}."
        ) from error


def _table(values: Any, names: pd.Index, called: str) -> pd.DataFrame:
    """Floats ``(m, z)`` under unique names."""
    try:
        x = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ScmambaError(f"The embedding {called} must be a matrix of numbers: {error}") from error
    if x.ndim != 2 or 0 in x.shape:
        raise ScmambaError(f"The embedding {called} must be a matrix (cells, dimensions), not empty; got {x.shape}.")
    if len(x) != len(names):
        raise ScmambaError(f"The embedding {called} has {len(x):,} rows for {len(names):,} cells.")
    if not names.is_unique:
        raise ScmambaError(f"Names of cells of the embedding {called} are not unique.")
    return pd.DataFrame(x, index=names)


def _check_known(names: pd.Index, cells: pd.Index, called: str) -> None:
    unknown = names[~names.isin(cells)]
    if len(unknown):
        raise ScmambaError(
            f"{len(unknown):,} of {len(names):,} cells of {called} are not in the data, such as {unknown[0]!r}."
        )


def _check_one_space(method: str, parts: Mapping[str, pd.DataFrame]) -> None:
    """Modalities that are compared must be embedded in one space; the joint embedding may be in another."""
    sizes = {part: frame.shape[1] for part, frame in parts.items() if part != JOINT}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{part} {z}" for part, z in sizes.items())
        raise ScmambaError(
            f"Modalities of {method!r} have different numbers of dimensions ({listed}), so that they are not in one "
            f"space. To score the joint embedding alone, give {{{method!r}: {{'joint': ...}}}}."
        )


# -- labels -------------------------------------------------------------------------------------------------------


def _column(data: Any, given: Any, cells: pd.Index, name: str) -> np.ndarray:
    """Labels of the cells as objects ``(n,)``, ``None`` where missing."""
    if given is None:
        return np.full(len(cells), None, dtype=object)
    if isinstance(given, str):
        if data is None:
            raise ScmambaError(f"{name}={given!r} names a column, but there are no data: give the values themselves.")
        values = _of_obs(data, given).reindex(cells)
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


def _of_obs(data: Any, name: str) -> pd.Series:
    """Column of ``obs``, or of one modality (``"rna:name"``), or for each cell the first value that a modality has."""
    if name in data.obs:
        return data.obs[name].astype(object)
    modalities = getattr(data, "mod", {})
    key, _, rest = name.partition(":")
    if key in modalities and rest in modalities[key].obs:
        return modalities[key].obs[rest].astype(object)
    columns = [part.obs[name].astype(object) for part in modalities.values() if name in part.obs]
    if not columns:
        of_modalities = [(key, column) for key, part in modalities.items() for column in part.obs]
        known = [*data.obs, *(column for _, column in of_modalities), *(f"{k}:{column}" for k, column in of_modalities)]
        raise UnknownNameError("column of obs", name, dict.fromkeys(known))
    first = columns[0].reindex(data.obs_names)
    for column in columns[1:]:
        first = first.where(first.notna(), column.reindex(data.obs_names))
    return first


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
