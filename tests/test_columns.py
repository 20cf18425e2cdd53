from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

from scmamba_scvi._columns import has_obs_column, in_order_of, obs_column
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.errors import ScmambaError, UnknownNameError


def part(cells, **columns) -> AnnData:
    obs = pd.DataFrame({name: list(values) for name, values in columns.items()}, index=list(cells))
    return AnnData(np.ones((len(obs), 1), np.float32), obs=obs, var=pd.DataFrame(index=[f"f{id(obs)}"]))


def mudata_of(**modalities) -> MuData:
    with without_pulling():
        return MuData(modalities)


@pytest.fixture
def mdata():
    return mudata_of(rna=part("abc", kind="xyx", depth=[1, 2, 3]), atac=part("cbd", kind="xyz", depth=[9, 9, 9]))


def test_a_column_of_obs_comes_first(mdata):
    mdata.obs["kind"] = "own"
    assert obs_column(mdata, "kind").tolist() == ["own"] * 4


def test_the_column_of_a_modality_is_not_an_old_copy_of_it(mdata):
    """mudata may copy rna:part into obs when the MuData is made, and leaves the copy as it was."""
    mdata["rna"].obs["part"] = "now"
    mdata.obs["rna:part"] = "before"
    assert set(obs_column(mdata, "rna:part").dropna()) == {"now"}
    assert set(obs_column(mdata, "rna:part").dropna().index) == set(mdata["rna"].obs_names)


def test_columns_of_modalities_are_joined_by_name(mdata):
    found = obs_column(mdata, "kind")
    assert found.index.equals(mdata.obs_names)
    assert found[list("abcd")].tolist() == ["x", "y", "x", "z"]


def test_one_modality_can_be_named_and_its_whole_numbers_stay_so(mdata):
    found = obs_column(mdata, "rna:depth")
    assert found[list("abc")].tolist() == [1, 2, 3] and found.isna()["d"]
    assert found.dtype == "Int64"


def test_a_key_with_a_colon_is_understood():
    mdata = mudata_of(**{"cells:gex": part("abc", kind="xyx"), "cells:peaks": part("abc", kind="zzz")})
    assert obs_column(mdata, "cells:gex:kind").tolist() == list("xyx")


def test_modalities_that_contradict_each_other_are_named_with_the_way_out(mdata):
    with pytest.raises(ScmambaError, match="different values for 2 cells.*'rna:depth' or 'atac:depth'"):
        obs_column(mdata, "depth")


def test_a_column_that_nothing_has_is_answered_with_those_there_are(mdata):
    with pytest.raises(UnknownNameError, match="labels_key 'kinds'. Did you mean 'kind'.*'rna:kind'"):
        obs_column(mdata, "kinds", "labels_key")
    with pytest.raises(ScmambaError, match="must be the name of a column of obs, got 3"):
        obs_column(mdata, 3)


@pytest.mark.parametrize(("name", "there"), [("kind", True), ("rna:kind", True), ("prot:kind", False), ("x", False)])
def test_whether_there_is_a_column(mdata, name, there):
    assert has_obs_column(mdata, name) == there


def test_an_anndata_has_its_own_columns_only():
    adata = part("ab", kind="xy")
    assert obs_column(adata, "kind").tolist() == ["x", "y"]
    with pytest.raises(UnknownNameError):
        obs_column(adata, "rna:kind")


def test_values_that_name_their_cells_are_put_into_their_order():
    names = pd.Index(["c1", "c2", "c3"])
    values = pd.Series([3, 1, 2], index=["c3", "c1", "c2"])
    assert (
        in_order_of(names, values, "x").tolist() == in_order_of(pd.Series(0, names), values, "x").tolist() == [1, 2, 3]
    )
    for unnamed in ([3, 1, 2], values.to_numpy(), values.reset_index(drop=True)):
        assert list(in_order_of(names, unnamed, "x")) == [3, 1, 2]
    for other in (values.set_axis(["c1", "c2", "c4"]), values.set_axis(["c1", "c2", "c2"]), values[:2]):
        with pytest.raises(ScmambaError, match="x names other cells: it lacks 1 of 3, such as"):
            in_order_of(names, other, "x")
    with pytest.raises(ScmambaError, match="has more, or some twice"):
        in_order_of(names, pd.concat([values, values[:1]]), "x")
