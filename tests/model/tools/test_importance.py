"""Known markers of simulated types rank above other features; what the features add sums to the whole."""

import numpy as np
import pytest
import scvi
import torch
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from scmamba_scvi import SCMAMBA, pl
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.nn.attribution import integrated_gradients
from scmamba_scvi.ops.csr import is_csr, with_values


@pytest.fixture(scope="module")
def typed():
    mdata = simulate_multiome(n_cells=1000, n_genes=400, n_peaks=1500, n_cell_types=3, seed=0, rare_fraction=0.1)
    scvi.settings.seed = 3  # over seeds the mean is 0.90, with a spread of 0.02
    SCMAMBA.setup_mudata(mdata, batch_key="batch")
    model = SCMAMBA(mdata, encoder="linear")
    model.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    return model, mdata


@pytest.mark.parametrize("kind", ["rna", "atac"])
def test_importance_ranks_known_markers_above_others(typed, kind):
    model, mdata = typed
    table = model.get_region_importance(groupby="cell_type", modality=kind, n_steps=2, max_cells=1000)
    marker_of = mdata[kind].var["marker_of"].reindex(table["name"]).to_numpy()
    of_group = table.groupby("group")
    auroc = np.mean([roc_auc_score(marker_of[part.index] == group, part["importance"]) for group, part in of_group])
    assert auroc >= 0.9


@pytest.mark.parametrize("kind", ["rna", "atac"])
def test_coordinates_and_order_are_those_of_the_genome(typed, kind):
    model, mdata = typed
    table = model.get_region_importance(groupby="cell_type", modality=kind, n_steps=1, max_cells=50)
    var = mdata[kind].var.loc[table["name"]]
    assert (table["chrom"].to_numpy() == var["chrom"].astype(str).to_numpy()).all()
    for column in ("start", "end"):
        assert (table[column].to_numpy() == var[column].to_numpy()).all()
    first = table[(table["group"] == table["group"][0]) & (table["chrom"] == "chr1")]
    assert first["start"].is_monotonic_increasing


def test_names_are_parsed_once_for_all_groups(typed, monkeypatch):
    """A million peaks whose coordinates were not kept take seconds each time."""
    model, _ = typed
    asked = []
    coordinates = SCMAMBA.coordinates
    monkeypatch.setattr(SCMAMBA, "coordinates", lambda self, kind: asked.append(kind) or coordinates(self, kind))
    table = model.get_region_importance(groupby="cell_type", modality="atac", n_steps=1, max_cells=5)
    assert table["group"].nunique() > 1 and asked == ["atac"]


def test_contributions_sum_to_the_position_along_the_direction(trained):
    """Completeness, through blocks and normalisation of the network, for sparse and dense values alike."""
    module = trained.module.eval()
    direction = torch.nn.functional.normalize(torch.randn(64, generator=torch.Generator().manual_seed(0)), dim=0)
    for kind in trained.kinds:
        values = module.values[kind](trained.adata_manager.matrix(kind).read(np.arange(10))).detach()

        def position(x, kind=kind):
            return module.encoders[kind](x) @ direction

        shares = integrated_gradients(position, values, 16)
        assert is_csr(shares) == is_csr(values)
        with torch.no_grad():
            expected = position(values) - position(with_values(values, values.values() * 0))
        np.testing.assert_allclose(shares.to_dense().sum(1), expected, atol=1e-4)
        np.testing.assert_allclose(integrated_gradients(position, values.to_dense(), 16), shares.to_dense(), atol=1e-5)


def test_importance_sums_to_how_far_a_group_lies_from_the_others(typed):
    model, mdata = typed
    table = model.get_region_importance(groupby="cell_type", modality="rna", max_cells=mdata.n_obs)
    values = model.module.values["rna"](model.adata_manager.matrix("rna").read(np.arange(mdata.n_obs)))
    with torch.no_grad():
        position = model._position("rna")(values).numpy()
    types = mdata.obs["cell_type"].to_numpy()
    for group, part in table.groupby("group"):
        apart = position[types == group].mean(0) - position[types != group].mean(0)
        assert part["importance"].sum() == pytest.approx(np.linalg.norm(apart), rel=1e-3)


def test_patches_sum_their_features_and_the_order_of_cells_does_not_matter(typed):
    model, mdata = typed
    asked = {"groups": "type_1", "n_steps": 1, "max_cells": 2000}
    features = model.get_region_importance(groupby="cell_type", modality="rna", **asked)
    patches = model.get_region_importance(groupby="cell_type", modality="rna", level="patches", **asked)
    assert list(patches["name"]) == list(model.layouts["rna"].patch_names) and patches["n_features"].sum() == 400
    by_patch = features.groupby("patch")["importance"].sum()
    np.testing.assert_allclose(patches.set_index("patch")["importance"], by_patch, atol=1e-6)
    documented = {"group", "name", "chrom", "start", "end", "importance", "patch"}
    assert {*features} == documented and {*patches} == documented | {"n_features", "top_feature"}
    turned = mdata["rna"][::-1].copy()
    np.testing.assert_allclose(
        model.get_region_importance(turned, groupby="cell_type", modality="rna", **asked)["importance"],
        features["importance"],
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"groupby": "type"}, "Unknown groupby", id="column"),
        pytest.param({"groupby": "cell_type", "groups": ["type_9"]}, "Unknown group", id="group"),
        pytest.param({"groupby": "cell_type", "groups": []}, "groups is empty", id="no group"),
        pytest.param({"groupby": "cell_type", "level": "genes"}, "Unknown level", id="level"),
        pytest.param({"groupby": "one"}, "has 1 groups", id="nothing to compare with"),
        pytest.param({"groupby": "few", "groups": ["a"]}, "Group 'a' of 'few' has 1 cells", id="a label with one cell"),
        pytest.param({"groupby": "few"}, "No group of 'few' can be explained", id="one cell beside one group"),
        pytest.param({"groupby": "cell"}, "No group of 'cell' can be explained", id="a label for each cell"),
    ],
)
def test_what_cannot_be_explained_is_named(typed, arguments, message):
    model, mdata = typed
    new = mdata["rna"].copy()
    new.obs["one"], new.obs["cell"] = "x", new.obs_names
    new.obs["few"] = np.where(np.arange(new.n_obs) == 0, "a", "b")
    with pytest.raises(ScmambaError, match=message):
        model.get_region_importance(new, modality="rna", **arguments)


def test_a_rare_type_does_not_keep_the_others_from_being_explained(typed):
    model, mdata = typed
    new = mdata["rna"].copy()
    new.obs["rare"] = np.where(np.arange(new.n_obs) < 3, "ILC", mdata.obs["cell_type"].astype(str))
    asked = {"groupby": "rare", "n_steps": 1, "max_cells": 20, "level": "patches"}
    with pytest.warns(UserWarning, match=r"not explained: 'ILC' \(3 cells\). A mean needs 5") as warned:
        found = model.get_region_importance(new, **asked)
    assert len([given for given in warned if "not explained" in str(given.message)]) == 1
    groups = ["type_1", "type_2", "type_3"]
    assert found["group"].unique().tolist() == groups
    assert found.equals(model.get_region_importance(new, groups=groups, **asked))


def test_a_group_named_twice_or_by_its_number_is_explained_once(typed):
    model, mdata = typed
    new = mdata["rna"].copy()
    new.obs["cluster"] = np.arange(new.n_obs) % 2
    asked = {"groupby": "cluster", "modality": "rna", "level": "patches", "n_steps": 1, "max_cells": 20}
    once = model.get_region_importance(new, groups=["1"], **asked)
    for groups in (1, [1, "1"]):
        assert model.get_region_importance(new, groups=groups, **asked).equals(once)


def test_the_figure_has_axes_of_each_group_and_names_its_highest(typed):
    model, _ = typed
    table = model.get_region_importance(groupby="cell_type", modality="atac", n_steps=1, max_cells=50)
    axes = pl.region_importance(table[table["group"].isin(["type_1", "type_3"])], figure=Figure())
    assert [ax.get_ylabel() for ax in axes] == ["type_1", "type_3"]
    assert axes[1].get_xticklabels()[0].get_text() == "1" and len(axes[0].texts) == 3
    with pytest.raises(ScmambaError, match="lacks"):
        pl.region_importance(table.drop(columns="importance"), figure=Figure())
    with pytest.raises(ScmambaError, match="No feature of the table has coordinates"):
        pl.region_importance(table.assign(chrom=""), figure=Figure())


@pytest.mark.parametrize("name", ["max_cells", "n_steps", "batch_size"])
@pytest.mark.parametrize("count", [0, "all"])
def test_counts_that_cannot_be_used_are_named(typed, name, count):
    with pytest.raises(ScmambaError, match=f"{name} must be"):
        typed[0].get_region_importance(groupby="cell_type", **{name: count})
