"""A differentiation whose order is known is found again; roots and cells that cannot be used are named."""

import warnings

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from differentiation import simulate_differentiation
from scipy.stats import spearmanr

from scmamba_scvi import SCMAMBA
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import pseudotime_consistency, trajectory_conservation


@pytest.fixture(scope="module")
def path():
    mdata = simulate_differentiation(n_cells=800, n_genes=500, n_peaks=2000, seed=0)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(max_epochs=4, enable_progress_bar=False, accelerator="cpu")
    return model, mdata


def test_the_order_of_a_branching_path_is_recovered(path):
    model, mdata = path
    time = model.get_pseudotime(root="start", groupby="cell_type")
    assert list(time) == ["joint", "rna", "atac"] and list(time.index) == list(mdata.obs_names)
    true = mdata.obs["pseudotime"]
    order = {name: spearmanr(time[name], true, nan_policy="omit").statistic for name in time}
    assert order["joint"] >= 0.9
    for other in ("branch_1", "branch_2"):
        along = (mdata.obs["branch"] != other).to_numpy()  # the trunk and one branch
        assert spearmanr(time["joint"][along], true[along]).statistic >= 0.9
    assert trajectory_conservation(true.to_numpy(), time["joint"].to_numpy()) >= 0.95
    assert pseudotime_consistency(time["rna"], time["atac"]) > 0.5
    root = time.index[time["joint"] == 0]
    assert len(root) == 1 and true[root[0]] < 0.2
    np.testing.assert_allclose(
        model.get_pseudotime(root=root[0], embeddings="joint")["joint"], time["joint"], atol=1e-9
    )


def connectivities(model, mdata):
    """PAGA as the docs show it."""
    mdata = mdata.copy()
    mdata.obsm["X_scmamba"] = model.get_latent_representation()
    sc.pp.neighbors(mdata, use_rep="X_scmamba")
    sc.tl.paga(mdata, groups="cell_type")
    names = mdata.obs["cell_type"].cat.categories
    return pd.DataFrame(mdata.uns["paga"]["connectivities"].toarray(), names, names)


def test_groups_are_connected_in_the_order_of_the_path(path):
    joins = connectivities(*path)
    assert np.allclose(joins, joins.T)
    assert joins.loc["start", "fork"] > 3 * joins.loc["start", ["end_1", "end_2"]].max()
    assert min(joins.loc["fork", ["end_1", "end_2"]]) > 3 * joins.loc["end_1", "end_2"]


def test_new_cells_in_any_order_and_cells_without_a_modality(path):
    model, mdata = path
    rna = mdata["rna"][::-1].copy()
    time = model.get_pseudotime(rna, root="start", groupby="cell_type")
    assert list(time) == ["joint", "rna"] and list(time.index) == list(rna.obs_names)
    assert spearmanr(time["joint"], mdata.obs["pseudotime"].reindex(time.index)).statistic > 0.8
    with without_pulling():
        part = mudata.MuData({"rna": mdata["rna"].copy(), "atac": mdata["atac"][100:].copy()})
    part.obs["cell_type"] = mdata.obs["cell_type"].reindex(part.obs_names)
    time = model.get_pseudotime(part, root="start", groupby="cell_type")
    assert time["atac"].isna().sum() == 100 and time["joint"].notna().all()
    with pytest.raises(ScmambaError, match="lacks one of.*'atac'"):
        model.get_pseudotime(root=mdata.obs_names[0], adata=part)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"root": "nobody"}, "'nobody' is not among the 800 cells", id="no such cell"),
        pytest.param({"root": "start"}, "pass groupby='cell_type'", id="a group without its column"),
        pytest.param({"root": "rna only"}, "pass groupby='of_rna'", id="a group of a modality without its column"),
        pytest.param({"root": "strat", "groupby": "cell_type"}, "Did you mean 'start'", id="no such group"),
        pytest.param({"root": "start", "groupby": "type"}, "Unknown groupby", id="no such column"),
        pytest.param({"root": "start", "groupby": "cell_type", "n_neighbors": 900}, "900", id="too few cells for k"),
        pytest.param({"root": "start", "groupby": "cell_type", "embeddings": ["x"]}, "Unknown embedding", id="embedding"),
    ],
)  # fmt: skip
def test_roots_and_embeddings_that_cannot_be_used_are_named(path, arguments, message):
    path[1]["rna"].obs["of_rna"] = "rna only"
    with pytest.raises(ScmambaError, match=message):
        path[0].get_pseudotime(**arguments)


@pytest.fixture(scope="module")
def islands():
    """300 cells of one process and 120 of another, which share no feature, so that no path connects them."""
    parts = [simulate_differentiation(n_cells=n, n_genes=200, n_peaks=600, seed=i) for i, n in enumerate((300, 120))]
    with without_pulling():
        mods = {key: side_by_side([part[key] for part in parts]) for key in ("rna", "atac")}
        mdata = mudata.MuData(mods)
    mdata.obs["island"] = [name.split("-")[1] for name in mdata.obs_names]
    mdata.obs["pseudotime"] = np.concatenate([part.obs["pseudotime"] for part in parts])
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(max_epochs=4, enable_progress_bar=False, accelerator="cpu")
    return model, mdata


def side_by_side(parts):
    """Counts of each part in features of its own, zero in those of the other."""
    for i, part in enumerate(parts):
        part.obs_names, part.var_names = part.obs_names + f"-{i}", [f"feature {j} of {i}" for j in range(part.n_vars)]
    whole = anndata.concat(parts, join="outer", fill_value=0)
    whole.var = whole.var.assign(chrom="", start=-1, end=-1)
    return whole


@pytest.mark.parametrize(("home", "n_outside"), [("0", 120), ("1", 300)])
def test_cells_of_another_island_have_no_time_and_are_counted(islands, home, n_outside):
    model, mdata = islands
    here = (mdata.obs["island"] == home).to_numpy()
    with pytest.warns(UserWarning) as caught:
        time = model.get_pseudotime(root=home, groupby="island", n_neighbors=15)
    for name in ("joint", "rna", "atac"):
        assert time[name].isna().to_numpy().tolist() == (~here).tolist()
        assert time[name].min() == 0 and time[name].max() == 1
        (warning,) = (str(w.message) for w in caught if str(w.message).startswith(f"{name}: "))
        assert f"{n_outside} of 420 cells are not connected to the root" in warning and "NaN" in warning
    # cells of the other process do not disturb the order
    alone = mdata[here].copy()
    assert spearmanr(model.get_pseudotime(alone, root=home, groupby="island", n_neighbors=15)["joint"], time["joint"][here]).statistic > 0.95  # fmt: skip


def test_an_order_within_one_island_warns_of_nothing(islands):
    model, mdata = islands
    here = mdata[(mdata.obs["island"] == "0").to_numpy()].copy()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not connected")
        assert model.get_pseudotime(here, root="0", groupby="island", n_neighbors=15).notna().all(axis=None)
