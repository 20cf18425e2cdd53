"""Values of cells by name: a mask in the order of the cells; a column, in ``mdata.obs``, in a modality's ``obs``, or in that of a single AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from .errors import ScmambaError, UnknownNameError

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def has_obs_column(data: MuData | AnnData, name: str) -> bool:
    """Whether `obs_column` finds ``name``."""
    return name in data.obs or bool(_in_modalities(data, name))


def obs_column(data: MuData | AnnData, name: str, argument: str = "column of obs") -> pd.Series:
    """Value of each cell in the column ``name``, missing where nothing holds one, in the order of ``data.obs``.

    A column of ``data.obs`` comes first. One that ``obs`` of a MuData lacks is read from its modalities: from the one that
    ``"rna:name"`` names, else from all that have it, each for its own cells, which may not contradict each other.
    ``argument`` is what ``name`` is called in errors.
    """
    if not isinstance(name, str):
        raise ScmambaError(f"{argument} must be the name of a column of obs, got {name!r}.")
    if name in data.obs:
        return data.obs[name]
    found = _in_modalities(data, name)
    if not found:
        of_modalities = [(key, column) for key, part in getattr(data, "mod", {}).items() for column in part.obs]
        known = [
            *data.obs,
            *(column for _, column in of_modalities),
            *(f"{key}:{column}" for key, column in of_modalities),
        ]
        raise UnknownNameError(argument, name, known)
    # as objects: missing cells would turn whole numbers into fractions, and categories differ between modalities
    columns = {key: column.astype(object).reindex(data.obs_names) for key, column in found.items()}
    (first, joined), *others = columns.items()
    for key, other in others:
        differs = (joined.notna() & other.notna() & (joined != other).fillna(False)).to_numpy(dtype=bool)
        if differs.any():
            at = differs.argmax()
            raise ScmambaError(
                f"{argument}={name!r}: the modalities have different values for {differs.sum():,} cells; for "
                f"{data.obs_names[at]!r}, {first!r} and {key!r} have {joined.iloc[at]!r} and {other.iloc[at]!r}. Say which: "
                f"'{first}:{name}' or '{key}:{name}'."
            )
        joined = joined.where(joined.notna(), other)
    return _as_before(joined.rename(name), [column.dtype for column in found.values()])


def mask_in_order(cells: Any, names: pd.Index) -> Any:
    """``cells``, but a mask that is a Series with names of cells in the order of ``names``."""
    if not isinstance(cells, pd.Series) or cells.dtype != bool or isinstance(cells.index, pd.RangeIndex):
        return cells
    if not cells.index.is_unique or set(cells.index) != set(names):
        raise ScmambaError(
            f"The mask of cells is a Series with names of other cells than the {len(names):,} of the data, such as "
            f"{cells.index[:1].tolist()}: make it of their obs, or pass mask.to_numpy() if its order is theirs."
        )
    return cells.reindex(names)


def _in_modalities(data: MuData | AnnData, name: str) -> dict[str, pd.Series]:
    """Columns of the modalities that ``name`` or ``"rna:name"`` names."""
    modalities = getattr(data, "mod", {})
    key, _, rest = name.partition(":")
    if key in modalities and rest in modalities[key].obs:
        return {key: modalities[key].obs[rest]}
    return {key: part.obs[name] for key, part in modalities.items() if name in part.obs}


def _as_before(column: pd.Series, dtypes: list) -> pd.Series:
    """``column`` with the type that it had in all modalities, in a form that can hold missing values."""
    if any(dtype != dtypes[0] for dtype in dtypes):
        return column
    nullable = {"i": "Int64", "u": "UInt64", "b": "boolean"}.get(dtypes[0].kind)
    return column.astype(nullable if nullable and column.isna().any() else dtypes[0])
