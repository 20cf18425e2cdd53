"""Batches and labels become numbers: known categories first, missing values a category of their own or an error."""

import numpy as np
import pytest
from shapes import mudata_of, poisson

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.model.inputs.columns import ColumnField


@pytest.fixture
def small():
    return mudata_of({"rna": poisson(5, 3), "atac": poisson(5, 3)})


def test_new_categories_come_after_those_of_the_model(small):
    small.obs["donor"] = ["c", "a", "c", "b", "a"]
    field = ColumnField("batch", "donor")
    state = field.transfer_field({"categorical_mapping": np.array(["b", "z"], dtype=object)}, small)
    assert list(state["categorical_mapping"]) == ["b", "z", "a", "c"]
    np.testing.assert_array_equal(small.obs["_scvi_batch"], [3, 2, 3, 0, 2])


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["b", "new", None, "z", "b"], [0, 2, 2, 1, 0]),
        ([1, 2, 1, 2, 1], [2, 2, 2, 2, 2]),  # of another type than the model's
        ([1, "b", None, "z", 2.5], [2, 0, 2, 1, 2]),
    ],
)
def test_batches_of_data_that_nobody_set_up_are_known_or_not(small, values, numbers):
    small.obs["donor"] = np.array(values, dtype=object)
    known = np.array(["b", "z"], dtype=object)
    state = ColumnField("batch", "donor").transfer_field({"categorical_mapping": known}, small, extend_categories=False)
    assert list(state["categorical_mapping"]) == ["b", "z"]
    np.testing.assert_array_equal(small.obs["_scvi_batch"], numbers)


def test_cells_without_a_label_get_the_category_for_it_and_without_a_batch_an_error(small):
    small.obs["type"] = ["x", None, "x", "y", np.nan]
    assert list(ColumnField("labels", "type", missing="Unknown").register_field(small)["categorical_mapping"]) == [
        "x", "y", "Unknown"
    ]  # fmt: skip
    np.testing.assert_array_equal(small.obs["_scvi_labels"], [0, 2, 0, 1, 2])
    with pytest.raises(ScmambaError, match="batch_key='type' is missing for 2 of 5 cells, such as 'cell 1'"):
        ColumnField("batch", "type").categories(small, [])


def test_categories_that_no_cell_has_and_types_that_cannot_be_compared(small):
    small.obs["donor"] = ["b", "a", "a", "a", "a"]
    small.obs["donor"] = small.obs["donor"].astype("category").cat.add_categories("gone")
    assert ColumnField("batch", "donor").categories(small, []) == ["a", "b"]
    with pytest.raises(ScmambaError, match="of another type than the model knows"):
        ColumnField("batch", "donor").categories(small, [1, 2])
    assert ColumnField("batch", None).categories(small, [0]) == [0]
