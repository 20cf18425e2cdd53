"""Where a column of cells is, in ``mdata.obs`` or in a modality's ``obs``, and which cell each of its values belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from .errors import ScmambaError, UnknownNameError, written

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def has_obs_column(data: MuData | AnnData, name: str) -> bool:
    """Whether `obs_column` finds ``name``."""
    return name in data.obs or bool(_in_named_modality(data, name) or _in_modalities(data, name))


def obs_column(data: MuData | AnnData, name: str, argument: str = "column of obs") -> pd.Series:
    """Value of each cell in the column ``name``, missing where nothing holds one, in the order of ``data.obs``.

    ``"rna:name"`` is the column of this modality: mudata may keep an older copy of it, of the same name, in ``obs`` of the
    MuData. Otherwise a column of ``data.obs`` comes first, and one that it lacks is read from all modalities that have it,
    each for its own cells, which may not contradict each other.
    ``argument`` is what ``name`` is called in errors.
    """
    if not isinstance(name, str):
        raise ScmambaError(f"{written(argument)} must be the name of a column of obs, got {name!r}.")
    found = _in_named_modality(data, name)
    if not found and name in data.obs:
        return data.obs[name]
    found = found or _in_modalities(data, name)
    if not found:
        of_modalities = [(key, column) for key, part in getattr(data, "mod", {}).items() for column in part.obs]
        known = [
            *data.obs,
            *(column for _, column in of_modalities),
            *(f"{key}:{column}" for key, column in of_modalities),
        ]
        raise UnknownNameError(written(argument), name, known)
    # as objects: missing cells would turn whole numbers into fractions, and categories differ between modalities
    columns = {key: column.astype(object).reindex(data.obs_names) for key, column in found.items()}
    (first, joined), *others = columns.items()
    for key, other in others:
        differs = (joined.notna() & other.notna() & (joined != other).fillna(False)).to_numpy(dtype=bool)
        if differs.any():
            at = differs.argmax()
            raise ScmambaError(
                f"{written(argument, name)}: the modalities have different values for {differs.sum():,} cells; for "
                f"{data.obs_names[at]!r}, {first!r} and {key!r} have {joined.iloc[at]!r} and {other.iloc[at]!r}. Say which: "
                f"'{first}:{name}' or '{key}:{name}'."
            )
        joined = joined.where(joined.notna(), other)
    return _as_before(joined.rename(name), [column.dtype for column in found.values()])


def in_order_of(cells: Any, values: Any, argument: str) -> Any:
    """``values``, called ``argument`` in errors, in the order of ``cells``: of names, or of a column with names as its index.

    Values without names (an array, a list, a column whose rows pandas has numbered) are in that order, whatever it is.
    """
    names = cells.index if isinstance(cells, pd.Series) else cells
    named = isinstance(names, pd.Index) and names.inferred_type == "string" and isinstance(values, pd.Series)
    if not named or values.index.inferred_type != "string" or values.index.equals(names):
        return values
    lacking = names.difference(values.index)
    if len(lacking) or len(values) != len(names) or not values.index.is_unique:
        some = "has more, or some twice"
        example = f"lacks {len(lacking):,} of {len(names):,}, such as {lacking[0]!r}" if len(lacking) else some
        raise ScmambaError(f"{argument} names other cells: it {example}.")
    return values.reindex(names)


def _in_named_modality(data: MuData | AnnData, name: str) -> dict[str, pd.Series]:
    """The column of one modality that ``"rna:name"`` names, if there is one."""
    # a key may hold a colon itself
    named = {key: name.removeprefix(f"{key}:") for key in getattr(data, "mod", {}) if name.startswith(f"{key}:")}
    return {key: data.mod[key].obs[column] for key, column in named.items() if column in data.mod[key].obs}


def _in_modalities(data: MuData | AnnData, name: str) -> dict[str, pd.Series]:
    """Columns called ``name`` of all modalities that have one."""
    return {key: part.obs[name] for key, part in getattr(data, "mod", {}).items() if name in part.obs}


def _as_before(column: pd.Series, dtypes: list) -> pd.Series:
    """``column`` with the type that it had in all modalities, in a form that can hold missing values."""
    if any(dtype != dtypes[0] for dtype in dtypes):
        return column
    nullable = {"i": "Int64", "u": "UInt64", "b": "boolean"}.get(dtypes[0].kind)
    return column.astype(nullable if nullable and column.isna().any() else dtypes[0])
