"""The joint embedding on simulated data: it keeps cell types, mixes batches and places cells of one modality."""

import mudata
import numpy as np
import pytest
import scvi
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scmamba_scvi import SCMAMBA
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.metrics import knn_accuracy, omics_entropy_mixing
from scmamba_scvi.model.fitting.joint_embedding import _batch_offsets

SIZES = {"n_cells": 900, "n_genes": 400, "n_peaks": 1_500, "n_cell_types": 6, "seed": 0}
QUICK = {"max_epochs": 2, "enable_progress_bar": False, "accelerator": "cpu"}


def model_of(mdata, batch_key=None, **options):
    scvi.settings.seed = 0  # without one, other cells are held out in every run
    SCMAMBA.setup_mudata(mdata, batch_key=batch_key)
    model = SCMAMBA(mdata, encoder="linear", **options)
    model.train(**QUICK)
    return model


@pytest.fixture(scope="module")
def batches():
    """Data of two batches that differ strongly, and a model that corrects for them."""
    mdata = simulate_multiome(**SIZES, batch_strength=0.8)
    return mdata, model_of(mdata, "batch")


def test_shared_alone_is_the_normalised_mean_of_the_views():
    mdata = simulate_multiome(**SIZES)
    model = model_of(mdata, joint="shared")
    assert model.module.joint is None
    mean = model.get_latent_representation(modality="rna") + model.get_latent_representation(modality="atac")
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(model.get_latent_representation(), mean, atol=1e-5)


def test_batches_are_mixed_and_types_kept(batches):
    mdata, model = batches
    labels, batch = (mdata.obs[key].to_numpy() for key in ("cell_type", "batch"))
    left = model_of(mdata.copy(), "batch", correct_batches=False).get_latent_representation()
    corrected = model.get_latent_representation()
    mixing = [omics_entropy_mixing(z, batch, n_neighbors=30) for z in (left, corrected)]
    accuracy = [knn_accuracy(z, labels) for z in (left, corrected)]
    assert mixing[0] < 0.5 and mixing[1] > 0.9
    removed = model.training_summary_["batch_variance_removed"]
    assert set(removed) == {"rna", "atac"} and all(0.01 < fraction < 0.9 for fraction in removed.values())
    assert accuracy[1] > accuracy[0] - 0.02


def test_a_type_of_one_batch_stays_apart():
    """Offsets compare cells of one cluster: a type that only one batch has is not moved onto a type that it lacks."""
    mdata = simulate_multiome(**SIZES, batch_strength=0.6)
    types, batch = (mdata.obs[key].astype(str) for key in ("cell_type", "batch"))
    lonely, absent = types.value_counts().index[:2]
    here, there = sorted(batch.unique())[:2]
    keep = ~((types == lonely) & (batch != here)) & ~((types == absent) & (batch == here))
    mdata = mdata[keep.to_numpy()].copy()
    z = model_of(mdata, "batch").get_latent_representation()
    labels = mdata.obs["cell_type"].astype(str).to_numpy()
    pair = np.isin(labels, [lonely, absent])
    assert knn_accuracy(z[pair], labels[pair]) > 0.9


def test_a_batch_of_one_type_stays_with_its_type():
    """The cells of a sorted sample lie beside cells of their type in other batches, with the correction too."""
    sorted_type = "type_2"
    mdata = simulate_multiome(**SIZES, n_batches=1)
    labels = mdata.obs["cell_type"].to_numpy()
    is_sorted = np.zeros(mdata.n_obs, dtype=bool)
    is_sorted[np.flatnonzero(labels == sorted_type)[::2]] = True
    mdata.obs["sample"] = np.where(is_sorted, "sorted", "whole")
    z = model_of(mdata, "sample").get_latent_representation()
    nearest = np.argsort(-z[is_sorted] @ z[~is_sorted].T, axis=1)[:, :15]
    assert (labels[~is_sorted][nearest] == sorted_type).mean() > 0.6


@pytest.mark.parametrize("are_apart", [False, True])
def test_offsets_are_the_smallest_least_squares_of_batch_beside_cluster(are_apart):
    rng = np.random.default_rng(0)
    batch, cluster = rng.integers(4, size=600), rng.integers(6, size=600)
    if are_apart:  # the first two batches share no cluster with the others
        cluster = np.where(batch < 2, cluster % 3, 3 + cluster % 3)
    x = rng.normal(size=(600, 5)) + rng.normal(size=(4, 5))[batch] + 3 * rng.normal(size=(6, 5))[cluster]
    is_batch, is_cluster = np.eye(4)[batch], np.eye(6)[cluster]
    of_cluster = is_cluster @ np.linalg.pinv(is_cluster)  # means of clusters
    expected, *_ = np.linalg.lstsq(is_batch - of_cluster @ is_batch, x - of_cluster @ x, rcond=1e-6)
    expected -= is_batch.mean(0) @ expected
    found = _batch_offsets(*map(torch.from_numpy, (x, batch, cluster, np.ones(600, bool))))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_batch_that_lacks_a_modality_has_no_offset_in_it():
    """What a batch does to accessibility is not known from cells without it: as for a batch that is not known at all."""
    mdata = simulate_multiome(**SIZES, n_batches=3, batch_strength=0.8)
    batch = mdata.obs["batch"].astype(str)
    last = sorted(batch.unique())[-1]
    mosaic = mudata.MuData({"rna": mdata["rna"], "atac": mdata["atac"][(batch != last).to_numpy()].copy()})
    mosaic.obs["batch"] = batch.astype("category")
    offsets = {
        kind: model_of(mosaic, "batch").module.joint.get_buffer(f"batch_offset_{kind}") for kind in ("rna", "atac")
    }
    number = sorted(batch.unique()).index(last)
    assert not offsets["atac"][number].any() and offsets["rna"][number].any()
    assert all(offsets["atac"][i].any() for i in range(number))


def test_cells_of_a_batch_of_a_few_are_left_where_they_are():
    """Their mean would be taken for the effect of the batch, and what they are be taken out with it."""
    mdata = simulate_multiome(**SIZES, batch_strength=0.8)
    batch = mdata.obs["batch"].astype(str)
    batch.iloc[:5] = "small"
    mdata.obs["batch"] = batch
    with pytest.warns(UserWarning, match=r"too small .*'small' \([1-5]\)\. .* at least 20 .* Check that 'batch'"):
        model = model_of(mdata, "batch")
    offsets = [model.module.joint.get_buffer(f"batch_offset_{kind}") for kind in ("rna", "atac")]
    of_batch = dict(zip(model.batches, zip(*offsets, strict=False), strict=False))
    assert not any(offset.any() for offset in of_batch.pop("small"))
    assert all(offset.any() for pair in of_batch.values() for offset in pair) and len(of_batch) == 2


def test_a_batch_of_which_few_cells_have_a_modality_is_left_alone_in_it_and_named():
    mdata = simulate_multiome(**SIZES, batch_strength=0.8)
    batch = mdata.obs["batch"].astype(str)
    last = sorted(batch.unique())[-1]
    lacks = np.flatnonzero(batch == last)[6:]
    mosaic = mudata.MuData(
        {"rna": mdata["rna"], "atac": mdata["atac"][np.delete(np.arange(mdata.n_obs), lacks)].copy()}
    )
    mosaic.obs["batch"] = batch.astype("category")
    with pytest.warns(UserWarning, match=rf"too small .*'{last}' \([1-6] with 'atac'\)\. "):
        model = model_of(mosaic, "batch")
    number = list(model.batches).index(last)
    assert not model.module.joint.batch_offset_atac[number].any()
    assert model.module.joint.batch_offset_rna[number].any()


def distance(z, batch):
    """Between the mean of the first batch and that of all others."""
    first = np.asarray(batch == sorted(set(batch))[0])
    return float(np.linalg.norm(z[first].mean(0) - z[~first].mean(0)))


@pytest.fixture
def of_two_batches(batches, tmp_path):
    """The data of two batches, and their model in a folder."""
    mdata, model = batches
    model.save(tmp_path / "m")
    return mdata, model, tmp_path / "m"


@pytest.mark.parametrize("left", ["batch_1", "batch_2"])
def test_batches_that_a_second_training_lacks_are_named_and_no_longer_taken_for_known(of_two_batches, left):
    mdata, model, folder = of_two_batches
    batch = mdata.obs["batch"].astype(str).to_numpy()
    gone = {"batch_1": "batch_2", "batch_2": "batch_1"}[left]
    again = SCMAMBA.load(folder, mdata[batch == left].copy())
    with pytest.warns(
        UserWarning, match=rf"no longer corrected for batches of which .* no cells: '{gone}'\. .*load_query"
    ):
        again.train(**QUICK)
    again.save(folder, overwrite=True)
    again.export(folder / "export")
    for model_again in (again, SCMAMBA.load(folder, adata=False), SCMAMBA.from_export(folder / "export")):
        n_gone = (batch == gone).sum()
        with pytest.warns(UserWarning, match=f"{n_gone} of 900 cells is not corrected for batches"):
            uncorrected = model_again.get_latent_representation(mdata)
    # as cells of a query they are compared with the clusters of the cells that were trained on
    mapped = SCMAMBA.load_query_data(mdata[batch == gone].copy(), again, accelerator="cpu")
    assert list(mapped.batches) == list(model.batches)
    corrected = uncorrected.copy()
    corrected[batch == gone] = mapped.get_latent_representation()
    assert distance(corrected, batch) < 0.6 * distance(uncorrected, batch)


@pytest.mark.filterwarnings("error:.*no longer corrected", "error:.*not corrected")
def test_a_second_training_on_all_batches_loses_none(of_two_batches):
    mdata, _, folder = of_two_batches
    again = SCMAMBA.load(folder, mdata)
    again.train(**QUICK)
    again.get_latent_representation()
    assert not any(again.unknown_offsets_.values())


def test_a_batch_of_which_no_cell_is_trained_on_is_placed_as_one_of_a_query():
    """As when one donor is left out by ``external_indexing``."""
    mdata = simulate_multiome(**SIZES, n_batches=3, batch_strength=0.8)
    batch = mdata.obs["batch"].astype(str).to_numpy()
    out, kept = np.flatnonzero(batch == "batch_1"), np.flatnonzero(batch != "batch_1")
    SCMAMBA.setup_mudata(mdata, batch_key="batch")
    models = [SCMAMBA(mdata, encoder="linear", correct_batches=corrects) for corrects in (False, True)]
    for model in models:
        scvi.settings.seed = 0
        model.train(**QUICK, datasplitter_kwargs={"external_indexing": [kept[:500], kept[500:], out]})
    uncorrected, placed = (distance(model.get_latent_representation(), batch) for model in models)
    assert placed < 0.5 * uncorrected
    query = SCMAMBA.load_query_data(mdata[out].copy(), models[1], accelerator="cpu")
    np.testing.assert_array_equal(query.module.joint.batch_offset_rna, models[1].module.joint.batch_offset_rna)


def test_labels_never_reach_the_embedding():
    """It is equal to the last bit with labels, with shuffled labels and without."""
    mdata = simulate_multiome(**SIZES, batch_strength=0.6)
    found = []
    for labels_key in (None, "cell_type", "shuffled"):
        mdata.obs["shuffled"] = np.random.default_rng(0).permutation(mdata.obs["cell_type"].to_numpy())
        scvi.settings.seed = 0
        SCMAMBA.setup_mudata(mdata, batch_key="batch", labels_key=labels_key)
        model = SCMAMBA(mdata, encoder="linear")
        model.train(**QUICK)
        found.append(model.get_latent_representation())
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_cells_of_one_modality_are_placed_beside_cells_of_their_type(batches):
    mdata, model = batches
    labels = mdata.obs["cell_type"].to_numpy()
    whole = model.get_latent_representation()
    for kind in ("rna", "atac"):
        alone = mudata.MuData({kind: mdata[kind].copy()})
        alone.obs["batch"] = mdata.obs["batch"].reindex(alone.obs_names)
        z = model.get_latent_representation(alone)[alone.obs_names.get_indexer(mdata.obs_names)]
        nearest = (z @ whole.T - 2 * np.eye(len(z))).argmax(1)  # the nearest other cell
        assert (labels[nearest] == labels).mean() > 0.75, kind


def test_a_second_training_keeps_the_components_and_fits_the_maps_again():
    mdata = simulate_multiome(**SIZES)
    model = model_of(mdata)
    components, maps = model.module.joint.components_rna.clone(), model.module.joint.map_rna_atac.clone()
    # without held-out cells the last weights are kept, so that the encoders change for certain
    model.train(**QUICK, train_size=1.0, early_stopping=False, plan_kwargs={"spectral_lr": 0.05})
    assert (model.module.joint.components_rna == components).all()
    assert not np.allclose(model.module.joint.map_rna_atac.numpy(), maps.numpy())


def test_components_of_noise_weigh_little():
    """Six types have at most five directions apart; the other components describe noise of the cells they were fitted to."""
    module = model_of(mdata := simulate_multiome(**SIZES)).module
    for kind in ("rna", "atac"):
        values = module.transform(torch.from_numpy(mdata[kind].X.toarray()), kind)
        weights = module.joint.features(values, torch.zeros(len(values), 64), kind)[:, :64].std(0)
        assert weights[10:].mean() < 0.3 * weights[:3].mean(), kind


def test_cells_of_a_single_type_are_embedded():
    mdata = simulate_multiome(**{**SIZES, "n_cells": 200, "n_cell_types": 1})
    z = model_of(mdata, "batch").get_latent_representation()
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)


class Rounded(TorchDispatchMode):
    """Within the block, ``found`` are the names of operations that give bf16."""

    def __enter__(self):
        self.found = set()
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype is torch.bfloat16:
            self.found.add(str(func))
        return result


def test_autocast_rounds_nothing_that_is_fitted(batches):
    """On a GPU the encoders compute in bf16 meanwhile; those of this model have no network."""
    model = model_of(batches[0].copy(), "batch")
    with torch.autocast("cpu", torch.bfloat16), Rounded() as rounded:
        model._fit_joint_embedding(model.train_indices)
        model._forget_offsets(slice(1))
        model._place_new_batches()
    assert not rounded.found
