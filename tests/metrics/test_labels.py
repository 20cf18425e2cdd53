from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics._labels import label_codes


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(["b", "a", "b"], id="list"),
        pytest.param(np.array(["b", "a", "b"]), id="array"),
        pytest.param(pd.Series(["b", "a", "b"], index=[7, 8, 9]), id="series"),
        pytest.param(pd.Categorical(["b", "a", "b"], categories=["unused", "a", "b"]), id="categorical"),
        pytest.param([2.5, 1, 2.5], id="numbers"),
        pytest.param([True, False, True], id="bool"),
    ],
)
def test_every_form_of_labels_becomes_codes_without_gaps(labels):
    codes = label_codes(labels, 3, "cell_type")
    assert codes.tolist() == [0, 1, 0] and codes.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param(["a", "b"], r"cell_type .* 3 rows of x; got shape \(2,\)", id="too_few"),
        pytest.param([["a", "b", "c"]], r"got shape \(1, 3\)", id="matrix"),
        pytest.param(["a", np.nan, "b"], "missing .* for 1 of 3", id="nan_among_names"),
        pytest.param(["a", None, None], "missing .* for 2 of 3", id="none"),
        pytest.param(np.array(["a"] * 3), "all 3 cells are 'a'", id="all_the_same_in_an_array"),
        pytest.param(["a", "a", "a"], "at least 2 different labels; all 3 cells are 'a'", id="all_the_same"),
    ],
)
def test_labels_that_no_score_can_use_are_refused(labels, message):
    with pytest.raises(ScmambaError, match=message):
        label_codes(labels, 3, "cell_type")


def test_one_label_is_enough_where_a_score_says_so():
    assert label_codes(["a"] * 3, 3, "cell_type", at_least=1).tolist() == [0, 0, 0]
