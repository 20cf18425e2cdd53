"""A column of ``obs``, whether the MuData holds it or its modalities do."""

from __future__ import annotations

import pandas as pd
from mudata import MuData

from ...errors import UnknownNameError


def obs_column(mdata: MuData, name: str, argument: str) -> pd.Series:
    """Value of each cell in the column ``name``, missing where nothing holds one.

    A column that ``mdata.obs`` lacks is read from the modalities. Each of them knows its own cells only, so that a cell
    takes the value of the first modality that has one for it.

    Parameters
    ----------
    argument
        What ``name`` is called in the error.

    Raises
    ------
    UnknownNameError
        Neither ``mdata.obs`` nor a modality has the column.
    """
    if name in mdata.obs:
        return mdata.obs[name]
    # as objects: missing cells would turn whole numbers into fractions, and categories differ between modalities
    columns = [mod.obs[name].astype(object).reindex(mdata.obs_names) for mod in mdata.mod.values() if name in mod.obs]
    if not columns:
        known = [*mdata.obs, *(other for mod in mdata.mod.values() for other in mod.obs)]
        raise UnknownNameError(argument, name, dict.fromkeys(known))
    column = columns[0]
    for other in columns[1:]:
        column = column.where(column.notna(), other)
    return column
