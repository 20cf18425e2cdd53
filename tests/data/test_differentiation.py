from __future__ import annotations

import numpy as np
import pytest

from scmamba_scvi.data import simulate_differentiation
from scmamba_scvi.data._differentiation import FORK
from scmamba_scvi.errors import ScmambaError


def test_time_branch_and_stage_of_a_cell_agree():
    obs = simulate_differentiation(n_cells=400, n_genes=60, n_peaks=80).obs
    assert obs["pseudotime"].between(0, 1).all()
    assert ((obs["branch"] == "trunk") == (obs["pseudotime"] < FORK)).all()
    for branch, end in (("branch_1", "end_1"), ("branch_2", "end_2")):
        stages = obs.loc[obs["branch"] == branch].sort_values("pseudotime")["cell_type"].astype(str)
        assert set(stages) == {"fork", end}
        assert stages.iloc[0] == "fork" and stages.iloc[-1] == end


def test_the_arguments_in_uns_give_the_same_data_again():
    mdata = simulate_differentiation(n_cells=40, n_genes=30, n_peaks=50, seed=3, paired_fraction=0.5)
    again = simulate_differentiation(**mdata.uns["simulation"])
    assert again.obs.equals(mdata.obs)
    np.testing.assert_array_equal(again["atac"].X.toarray(), mdata["atac"].X.toarray())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"n_cells": 19}, "19 cells are too few", id="few_cells"),
        pytest.param({"n_peaks": 0}, "n_peaks must be at least 1", id="no_peaks"),
        pytest.param({"n_batches": 3000}, "1500 cells do not fill 3000 batches", id="more_batches_than_cells"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ScmambaError, match=message):
        simulate_differentiation(**arguments)
