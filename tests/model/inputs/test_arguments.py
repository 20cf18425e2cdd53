"""Arguments that cannot be used are named."""

import numpy as np
import pytest

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.model.inputs.arguments import check_count, check_fraction


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
