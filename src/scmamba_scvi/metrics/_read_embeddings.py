"""Embeddings in all the forms users have them, read into tables indexed by names of cells.

Nothing here imports mudata or scvi-tools: a MuData is recognised by ``mod``, a model by its methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd

from .._keys import OBSM_KEY
from ..errors import ScmambaError, UnknownNameError

#: Part of a method's embeddings that joins all modalities; every other part is a modality.
JOINT: Final = "joint"
#: Name in the table of a model's embeddings, computed or read from `OBSM_KEY`.
OURS: Final = "scMamba"

#: A key of ``obsm``, a matrix, or a table with names of cells.
Embedding: TypeAlias = str | np.ndarray | pd.DataFrame
Embeddings: TypeAlias = str | Sequence[str] | Mapping[str, Embedding | Mapping[str, Embedding]]
#: Per method and part, rows under names of cells.
Frames: TypeAlias = dict[str, dict[str, pd.DataFrame]]


def read_embeddings(data: Any, embeddings: Embeddings | None, paired: bool, own_rows: bool) -> tuple[Frames, pd.Index]:
    """Per method and part a table indexed by names of cells, and the names of all cells in order.

    Without data, row ``i`` of all matrices is one cell, unless ``own_rows``: then each modality has its own cells.
    """
    named = _as_mapping(embeddings)
    if data is None:
        if not named:
            raise ScmambaError("Without data, give embeddings such as {'method': {'rna': x, 'atac': y}}.")
        return _from_arrays(named, paired, own_rows)
    frames: Frames = {}
    if is_model(data):
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
        if isinstance(spec, str):
            frames[method] = _from_key(data, spec)
        else:
            parts = _as_parts(spec).items()
            frames[method] = {part: _frame(data, part, x, display_name(method, part)) for part, x in parts}
    if not frames:
        raise ScmambaError("embeddings is empty: name at least one method.")
    return frames, pd.Index(data.obs_names)


def is_model(data: Any) -> bool:
    """Whether ``data`` is a trained model rather than a MuData or an AnnData."""
    return hasattr(data, "get_latent_representation") and hasattr(data, "kinds")


def display_name(method: str, part: str) -> str:
    """How errors and warnings name one embedding."""
    return f"{method!r} ({part})"


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
    return {part: _table(holder.obsm[key], holder.obs_names, display_name(key, part)) for part, holder in found.items()}


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
    """Without data: tables name their cells, and rows of matrices are cells as ``own_rows`` says."""
    parts = {(method, part): x for method, spec in named.items() for part, x in _as_parts(spec).items()}
    for (method, part), x in parts.items():
        if isinstance(x, str):
            raise ScmambaError(
                f"{display_name(method, part)} is the key {x!r}, but there are no data to look it up in."
            )
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
        frames.setdefault(method, {})[part] = _table(x, index[method, part], display_name(method, part))
    return frames, cells


def _row_names(
    parts: Mapping[tuple[str, str], Any], paired: bool, own_rows: bool
) -> tuple[dict[tuple[str, str], pd.Index], pd.Index]:
    """Names for the rows of matrices: the same in all of them, or different ones in each modality."""
    sizes = {key: _n_rows(x, display_name(*key)) for key, x in parts.items()}
    if len(set(sizes.values())) == 1 and not own_rows:
        cells = pd.RangeIndex(next(iter(sizes.values())))
        return dict.fromkeys(parts, cells), cells
    if paired:
        listed = ", ".join(f"{display_name(*key)} {n:,}" for key, n in sizes.items())
        raise ScmambaError(
            f"Row i of every matrix must be the same cell, but they have different numbers of rows: {listed}. Give "
            f"tables indexed by names of cells, or say paired=False and give labels as a dict from modality."
        )
    per_part: dict[str, int] = {}
    for (method, part), n in sizes.items():
        if part == JOINT:
            raise ScmambaError(
                f"{display_name(method, part)}: without names, matrices of different cells cannot have a joint one."
            )
        if per_part.setdefault(part, n) != n:
            raise ScmambaError(
                f"{display_name(method, part)} has {n:,} rows, but {per_part[part]:,} in another method."
            )
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
