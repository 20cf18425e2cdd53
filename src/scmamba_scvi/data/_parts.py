"""One AnnData as its modalities: features told apart by their types, proteins taken from ``obsm``."""

import contextlib
import re
import warnings
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique
from scipy import sparse

from .._arguments import listed
from .._keys import FEATURE_TYPES, KINDS, kind_of_type
from ..errors import ScmambaError

#: Columns of ``var`` that may hold the type of a feature.
TYPE_COLUMNS: Final = ("feature_types", "feature_type", "modality")
#: Words of a name in ``obsm`` that say its columns are counts of proteins.
PROTEIN_WORDS: Final = frozenset({"protein", "proteins", "antibody", "antibodies", "adt", "adts"})


def parts_of(adata: AnnData, *, is_users: bool = False) -> dict[str, AnnData]:
    """An AnnData by the types of its features, with the proteins that its ``obsm`` holds; ``""`` for a type that is not known.

    A single type is ``adata`` itself, its features numbered, unless it ``is_users``, which stays as it is.
    """
    types = _types_of(adata.var)
    parts: dict[str, AnnData] = {}
    # files divide names by slashes, so that no modality can have one
    kinds = {value: kind_of_type(value) or value.replace("/", "_") for value in types.unique()}
    for value, name in kinds.items():
        if name in parts:
            alike = " and ".join(repr(other) for other, kind in kinds.items() if kind == name)
            raise ScmambaError(
                f"Features of types {alike} both look like {name}: leave out those of one, or make a MuData with a modality "
                f"for each."
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)  # yet
            part = adata if len(kinds) == 1 else adata[:, (types == value).to_numpy()]
            parts[name] = part.copy() if part.is_view or is_users else part
            if len(kinds) > 1 and adata.raw is not None:
                _keep_own_raw(parts[name], adata, types, value)
        # a gene and a protein may share a name, two genes may not
        parts[name].var_names = make_index_unique(parts[name].var_names)
    proteins = [key for key in adata.obsm if _names_proteins(key)]
    if proteins and "protein" not in parts:
        if len(proteins) > 1:
            raise ScmambaError(f"Several entries of obsm may hold counts of proteins, {proteins}: leave one of them.")
        if "" in parts:
            parts["rna"] = parts.pop("")
        parts["protein"] = _proteins(adata, proteins[0])
    return parts


def reason_for_one(adata: AnnData) -> str:
    """Why `parts_of` takes an AnnData for one modality of a type that is not known, and what to do if it holds several."""
    column = next((name for name in TYPE_COLUMNS if name in adata.var), None)
    if column is None:
        return f"var has no {TYPE_COLUMNS[0]!r}, obsm no proteins"
    values = [str(value) for value in adata.var[column].unique()]
    known = [*FEATURE_TYPES, *KINDS]
    says = f"var[{column!r}] holds {_listed(values)}, none of which is known; known are {_listed(known)}"
    if len(values) == 1:
        return says
    here = f"adata.var[{column!r}]"
    return f"{says}. If they are modalities, rename them: {here} = {here}.astype(str).replace({{{values[0]!r}: {known[0]!r}, ...}})"


def _types_of(var: pd.DataFrame) -> pd.Series:
    """Type of each feature, as text; ``""`` for all where no column tells it."""

    def n_kinds(column: str) -> int:
        return len({kind_of_type(str(value)) for value in var[column].unique()} - {None})

    # a column of that name may hold others than types of features, such as the biotypes of genes
    column = max((name for name in TYPE_COLUMNS if name in var), key=n_kinds, default=None)
    if column is None or not n_kinds(column):
        return pd.Series("", index=var.index)
    types = var[column].astype(str)
    without = var.index[(var[column].isna() | types.isin(["", "nan"])).to_numpy()]
    if len(without):
        raise ScmambaError(
            f"{len(without):,} of {len(var):,} features have no type in var[{column!r}], such as {without[0]!r}: write one there, "
            f"{_listed([*FEATURE_TYPES])}, or leave these features out."
        )
    return types


def _keep_own_raw(part: AnnData, adata: AnnData, types: pd.Series, value: str) -> None:
    """Of the ``raw`` of ``adata`` a part keeps the features of its type, ``value``; none where their types are not told."""
    types_of_raw = _types_of_raw(adata.raw.var, types)
    del part.raw
    if types_of_raw is not None and (types_of_raw == value).any():
        own = adata.raw[:, (types_of_raw == value).to_numpy()].to_adata()
        own.var_names = make_index_unique(own.var_names)
        part.raw = own


def _types_of_raw(var: pd.DataFrame, types: pd.Series) -> pd.Series | None:
    """Type of each feature of ``raw``, by a column of its own or by the names of the features beside it, else `None`."""
    with contextlib.suppress(ScmambaError):  # some have none
        own = _types_of(var)
        if own.isin(types).any():
            return own
    if types.index.is_unique and var.index.isin(types.index).all():
        return types.reindex(var.index)
    return None


def _listed(values: Sequence[str]) -> str:
    return listed([*map(repr, values)], 6)


def _names_proteins(key: str) -> bool:
    """Whether a name in ``obsm`` says that its columns are counts of proteins; scanpy's embeddings begin with ``X_``."""
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+", key)  # also of protein_counts and proteinCounts
    return not key.startswith("X_") and not PROTEIN_WORDS.isdisjoint(word.lower() for word in words)


def _numbers(table: pd.DataFrame, key: str) -> np.ndarray:
    """The values of a table in ``obsm``, also where their types are pandas' own."""
    others = [str(name) for name, dtype in table.dtypes.items() if not pd.api.types.is_numeric_dtype(dtype)]
    if others:
        where = f"adata.obsm[{key!r}]"
        raise ScmambaError(
            f"obsm[{key!r}] is a table of proteins with columns that are no numbers: {_listed(others)}. Leave them out, "
            f"{where} = {where}.select_dtypes('number')."
        )
    values = table.to_numpy()
    return values if values.dtype != object else table.to_numpy(dtype=np.float64, na_value=np.nan)


def _proteins(adata: AnnData, key: str) -> AnnData:
    """Proteins of ``obsm[key]`` as a modality; a table has their names, an array has them in ``uns``."""
    values = adata.obsm[key]
    if isinstance(values, pd.DataFrame):
        names = values.columns.astype(str)
        values = _numbers(values, key)
    else:
        known = [adata.uns[k] for k in (f"{key}_names", "protein_names") if k in adata.uns]
        if not known or len(known[0]) != values.shape[1]:
            raise ScmambaError(
                f"obsm[{key!r}] holds {values.shape[1]} proteins without names: make it a pandas DataFrame with the names as "
                f"columns, or put the names into uns['protein_names']."
            )
        names = pd.Index(np.asarray(known[0]).astype(str))
    var = pd.DataFrame(index=make_index_unique(names))
    return AnnData(sparse.csr_matrix(values), obs=pd.DataFrame(index=adata.obs_names), var=var)
