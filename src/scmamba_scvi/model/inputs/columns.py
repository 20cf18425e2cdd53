"""Batches and labels as numbers, from a column of cells wherever the data have it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from mudata import MuData
from scvi.data.fields import CategoricalObsField

from ..._columns import obs_column
from ...errors import ScmambaError, written


class ColumnField(CategoricalObsField):
    """Codes of the categories of a column, in ``mdata.obs``; without a column, zero for every cell.

    ``missing`` is the category of cells without a value; `None`: every cell has one.
    """

    def __init__(self, registry_key: str, column: str | None, missing: str | float | None = None) -> None:
        super().__init__(registry_key, column)
        self.column, self.missing = column, missing

    def register_field(self, adata: MuData) -> dict:
        """Write the codes; returns what is kept of the column."""
        return super().register_field(adata) if self.column is None else self._write(adata, self.categories(adata, []))

    def transfer_field(
        self, state_registry: dict, adata_target: MuData, *, extend_categories: bool = True, **kwargs: Any
    ) -> dict:
        """Write the codes of new data.

        Categories that the model does not know come after its own; without ``extend_categories`` they all get the number after
        the last that it knows, and so do cells without a value: such data are not judged.
        """
        known = state_registry[self.CATEGORICAL_MAPPING_KEY]
        if self.column is None:
            return super().transfer_field(state_registry, adata_target, extend_categories=extend_categories, **kwargs)
        return self._write(adata_target, self.categories(adata_target, known) if extend_categories else known)

    def validate_field(self, adata: MuData) -> None:
        """Nothing: `categories` raised before anything was written."""

    def categories(self, mdata: MuData, known: Sequence[Any]) -> list[Any]:
        """The ``known`` categories, then those that only ``mdata`` has; raises if these are not to be had."""
        if self.column is None:
            return list(known)
        argument = f"{self.registry_key}_key"
        values = obs_column(mdata, self.column, argument)
        missing = values.isna().to_numpy()
        if missing.any() and self.missing is None:
            where = f"mdata.obs[{self.column!r}]"
            way_out = f"{where} = {where}.astype(str).where({where}.notna(), 'Unknown')"
            if self.column not in mdata.obs:
                way_out = f"{where} = ..., one value for every cell"
            raise ScmambaError(
                f"{written(argument, self.column)} is missing for {missing.sum():,} of {mdata.n_obs:,} cells, such as "
                f"{mdata.obs_names[missing.argmax()]!r}. Give them a batch: {way_out}."
            )
        try:
            found, _ = self._coded(values)
            sorted([*known, *found])  # raises if they cannot be compared
        except TypeError as error:
            raise ScmambaError(
                f"{written(argument, self.column)} holds values of several types, or of another type than the model knows: "
                f"make them all text, mdata.obs[{self.column!r}].astype('string'), or all numbers."
            ) from error
        return [*known, *(category for category in dict.fromkeys(found) if category not in set(known))]

    def _coded(self, values: pd.Series) -> tuple[list[Any], np.ndarray]:
        """Categories of a column and the position of each cell's; that of cells without a value is last."""
        categories, codes = _as_categories(values)
        if (codes < 0).any():
            # text cannot be compared with numbers, such as a word for cells without a label with numbers of clusters
            categories = [*(map(str, categories) if isinstance(self.missing, str) else categories), self.missing]
        return categories, codes

    def _write(self, mdata: MuData, categories: Sequence[Any]) -> dict:
        index = pd.Index(categories, dtype=object)
        found, codes = self._coded(obs_column(mdata, str(self.column)))
        numbers = index.get_indexer(pd.Index(found, dtype=object))[codes]
        mdata.obs[self.attr_key] = np.where(numbers < 0, len(index), numbers).astype(np.int64)
        return {self.CATEGORICAL_MAPPING_KEY: index.to_numpy(), self.ORIGINAL_ATTR_KEY: self.column}


def _as_categories(values: pd.Series) -> tuple[list[Any], np.ndarray]:
    """Categories of a column, and the position of each cell's, -1 for cells without a value."""
    if not isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)  # pandas cannot make categories of all types of Arrow
    # used ones only: one left over from cells that were removed would count as a batch that the model knows
    column = values.astype("category").cat.remove_unused_categories().cat
    return [as_plain(category) for category in column.categories], column.codes.to_numpy()


def as_plain(category: object) -> str | int | float | bool:
    """A category as a file can hold it: numbers stay numbers, as no cell has a batch "0"; dates and intervals become text."""
    value = category.item() if isinstance(category, np.bool_ | np.number) else category
    return value if isinstance(value, str | int) or isinstance(value, float) and math.isfinite(value) else str(value)
