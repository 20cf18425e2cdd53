"""Arguments that cannot be used are named."""

import numpy as np
import pytest

from scmamba_scvi._arguments import check_count
from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.model.inputs.arguments import check_fraction, feature_positions


def test_whole_numbers_of_any_type_count():
    check_count("k", np.int32(3))
    check_count("max_distance", 0, 0)
    for value in (True, 2.0, "3", None):
        with pytest.raises(ScmambaError, match="k must be a whole number, got"):
            check_count("k", value)
    with pytest.raises(ScmambaError, match="k must be at least 1, got 0"):
        check_count("k", 0)


def test_fractions_end_at_one_and_may_begin_at_zero():
    check_fraction("train_size", np.float32(1), zero=False)
    check_fraction("validation_size", 0, zero=True)
    for value, zero in ((0, False), (1.01, True), (-0.1, True), (True, True), ("0.5", True), (float("nan"), True)):
        with pytest.raises(ScmambaError, match="train_size is a fraction of the cells"):
            check_fraction("train_size", value, zero=zero)


KNOWN = np.array(["CD3E", "CD4", "CD8A", "MS4A1"], dtype=object)


@pytest.mark.parametrize(("names", "found"), [(["MS4A1", "CD3E"], [3, 0]), ("CD4", [1]), (np.array(["CD8A"]), [2])])
def test_positions_are_in_the_order_of_the_names(names, found):
    assert feature_positions(KNOWN, names, "gene", "genes").tolist() == found


def test_names_that_cannot_be_used_are_named():
    with pytest.raises(UnknownNameError, match=r"Unknown gene \(1 of 2\) 'CD8'.*Did you mean 'CD8A'"):
        feature_positions(KNOWN, ["CD4", "CD8"], "gene", "genes")
    with pytest.raises(ScmambaError, match="genes names 'CD4' twice"):
        feature_positions(KNOWN, ["CD4", "CD3E", "CD4"], "gene", "genes")
    with pytest.raises(ScmambaError, match="genes is empty"):
        feature_positions(KNOWN, [], "gene", "genes")
    for no_names in ([0, 2], np.arange(len(KNOWN)) > 0):
        with pytest.raises(ScmambaError, match=r"genes must be names, as in var_names"):
            feature_positions(KNOWN, no_names, "gene", "genes")
