"""Row i is the same cell in every modality, whatever the order in which the modalities list their cells."""

import mudata
import numpy as np
import pytest
from shapes import mudata_of, poisson

from scmamba_scvi import SCMAMBA
from scmamba_scvi.errors import ScmambaError

pytestmark = pytest.mark.filterwarnings("ignore:mdata:UserWarning")


@pytest.fixture
def manager():
    whole = mudata_of({"rna": poisson(8, 5), "atac": poisson(8, 6, seed=1)}, n_absent=3)
    mdata = mudata.MuData({"rna": whole["rna"], "atac": whole["atac"][::-1].copy()})
    SCMAMBA.setup_mudata(mdata)
    return SCMAMBA._setup_adata_manager_store[mdata.uns["_scvi_uuid"]]


def test_minibatches_are_aligned_by_name(manager):
    mdata, cells = manager.adata, [6, 0, 4]
    batch = manager.create_torch_dataset()[cells]
    names = mdata.obs_names[cells]
    np.testing.assert_array_equal(batch["cells"], cells)
    np.testing.assert_array_equal(batch["X_rna"].to_dense(), mdata["rna"][names].X.toarray())
    np.testing.assert_array_equal(batch["present_atac"], [True, False, True])
    np.testing.assert_array_equal(batch["X_atac"].to_dense()[[0, 2]], mdata["atac"][names[[0, 2]]].X.toarray())
    assert (batch["X_atac"].to_dense()[1] == 0).all() and batch["batch"].shape == (3, 1)


def test_a_part_in_memory_knows_which_cells_it_holds(manager):
    whole = manager.create_torch_dataset()
    part = whole.loaded(np.array([7, 2, 3]))
    assert len(part) == 3
    for name, value in part[[1, 2]].items():
        want = whole[[2, 3]][name]
        np.testing.assert_array_equal(value.to_dense(), want.to_dense())


def test_features_in_any_order_are_those_of_the_model(manager):
    mdata = mudata.MuData({"rna": manager.adata["rna"][:, ::-1].copy()})
    assert manager.transfer_fields(mdata).feature_names("rna").tolist() == manager.adata["rna"].var_names.tolist()
    mdata = mudata.MuData({"rna": manager.adata["rna"].copy()})
    mdata["rna"].var_names = [*mdata["rna"].var_names[:-1], "new"]
    with pytest.raises(ScmambaError, match=r"of 5 features 1 are missing \(such as '.*'\) and 1 are not known"):
        manager.transfer_fields(mdata)
