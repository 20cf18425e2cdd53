"""Training on cells with one modality beside cells with both; simulated, so that types and partners are known."""

import warnings

import mudata
import numpy as np
import pytest
import scvi

from scmamba_scvi import SCMAMBA
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.data import open_mudata, simulate_multiome
from scmamba_scvi.metrics import foscttm, knn_accuracy

N_PAIRED, N_SINGLE, N_TEST = 250, 400, 250
SEEDS = (0, 1, 2)


def restricted(whole, has):
    """A MuData of only those cells of each modality whose positions ``has`` names."""
    with without_pulling():
        return mudata.MuData({key: mod[np.sort(has[key])].copy() for key, mod in whole.mod.items()})


def scores(seed, n_single):
    """FOSCTTM and accuracy of paired cells that were not trained on; the training cells, and the model."""
    n = N_PAIRED + N_SINGLE + N_TEST
    whole = simulate_multiome(n_cells=n, n_genes=200, n_peaks=600, n_cell_types=5, n_batches=1, seed=seed)
    test, paired, single = np.split(np.random.default_rng(seed).permutation(n), [N_TEST, N_TEST + N_PAIRED])
    single = single[:n_single]
    train = restricted(whole, {"rna": np.r_[paired, single[::2]], "atac": np.r_[paired, single[1::2]]})
    test = restricted(whole, dict.fromkeys(whole.mod, test))
    scvi.settings.seed = seed
    SCMAMBA.setup_mudata(train)
    model = SCMAMBA(train, encoder="linear")
    model.train(max_epochs=4, enable_progress_bar=False, accelerator="cpu")
    labels = whole.obs["cell_type"].reindex(test.obs_names).to_numpy()
    x, y = (model.get_latent_representation(test, modality=key) for key in test.mod)
    return np.mean(foscttm(x, y)), knn_accuracy(model.get_latent_representation(test), labels), whole, train, model


def test_cells_with_one_modality_do_not_hurt_those_with_both():
    alone = [scores(seed, 0) for seed in SEEDS]
    mosaic = [scores(seed, N_SINGLE) for seed in SEEDS]
    (f_alone, a_alone), (f_mosaic, a_mosaic) = (np.array([s[:2] for s in found]).T for found in (alone, mosaic))
    assert f_mosaic.mean() < f_alone.mean() + f_alone.std(ddof=1)
    assert a_mosaic.mean() > a_alone.mean() - a_alone.std(ddof=1)
    # and they are placed near cells of their type, half of them by shallow accessibility alone
    _, _, whole, train, model = mosaic[0]
    labels = whole.obs["cell_type"].reindex(train.obs_names).to_numpy()
    both = np.all([train.obs_names.isin(mod.obs_names) for mod in train.mod.values()], axis=0)
    z = model.get_latent_representation()
    nearest = (z[~both] @ z[both].T).argmax(1)
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    by_chance = (shares**2).sum()  # of a random neighbour
    assert both.sum() == N_PAIRED and (labels[both][nearest] == labels[~both]).mean() > by_chance + 0.2


@pytest.mark.parametrize("kind", ["rna", "atac"])
def test_cells_with_one_modality_change_what_is_fitted_to_it(kind):
    """A model that left them out would have the same values and components with and without them."""
    few = simulate_multiome(n_cells=200, n_genes=100, n_peaks=200, n_cell_types=3, n_batches=1, seed=5)
    models = []
    for single in (slice(0, 0), slice(120, 200)):
        keep = np.r_[np.arange(120), np.arange(200)[single]]
        train = restricted(few, {k: keep if k == kind else np.arange(120) for k in few.mod})
        scvi.settings.seed = 0
        SCMAMBA.setup_mudata(train)
        model = SCMAMBA(train, encoder="linear")
        model._initialize(np.arange(train.n_obs), np.arange(0))
        models.append(model.module)
    other = "atac" if kind == "rna" else "rna"
    assert not np.allclose(models[0].values[kind].weight, models[1].values[kind].weight)
    assert np.allclose(models[0].values[other].weight, models[1].values[other].weight)
    components = [m.joint.get_buffer(f"components_{kind}").numpy() for m in models]
    assert not np.allclose(*components, atol=1e-4)


@pytest.mark.parametrize("on_disk", [False, True], ids=["in memory", "in a file"])
def test_the_start_sees_the_pairs_of_an_atlas_that_has_few(monkeypatch, tmp_path, on_disk):
    monkeypatch.setattr("scmamba_scvi.model.fitting.mixin.MAX_CELLS", 200)
    whole = simulate_multiome(n_cells=1_000, n_genes=100, n_peaks=200, n_cell_types=3, n_batches=1, seed=5)
    pairs, single = np.arange(900, 960), np.delete(np.arange(1_000), np.arange(900, 960))
    train = restricted(whole, {"rna": np.r_[pairs, single[::2]], "atac": np.r_[pairs, single[1::2]]})
    if on_disk:
        train.write_h5mu(tmp_path / "mosaic.h5mu")
        train = open_mudata(tmp_path / "mosaic.h5mu")
    SCMAMBA.setup_mudata(train)
    model = SCMAMBA(train, encoder="linear")
    chosen = model._sample(np.arange(train.n_obs), buffer_mb=100)[0]
    names = train.obs_names[chosen]
    assert len(chosen) == 200 and names.isin(whole.obs_names[pairs]).sum() == len(pairs)


@pytest.mark.parametrize("options", [{}, {"encoder": "mlp"}, {"encoder": "linear"}], ids=["mamba", "mlp", "linear"])
def test_minibatches_in_which_no_cell_has_a_modality_are_embedded(options):
    few = simulate_multiome(n_cells=60, n_genes=60, n_peaks=100, n_cell_types=3, paired_fraction=0.5, seed=5)
    SCMAMBA.setup_mudata(few)
    model = SCMAMBA(few, **options)
    model.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    one_by_one = model.get_latent_representation(batch_size=1)
    np.testing.assert_allclose(one_by_one, model.get_latent_representation(), atol=1e-5)


def test_cells_filled_with_zeros_are_said_and_can_be_taken_out(mdata):
    """As scvi-tools' `organize_multiome_anndatas` makes a mosaic for MultiVI."""
    measured = np.arange(mdata.n_obs) < 150
    mdata["atac"].X = mdata["atac"].X.multiply(measured[:, None]).tocsr()
    with pytest.warns(UserWarning, match="50 of 200 cells and .* zero throughout.* cells count as measured") as said:
        SCMAMBA.setup_mudata(mdata)
    (advice,) = (str(one.message) for one in said if "mdata.mod['atac'] = " in str(one.message))
    assert "mdata.mod['atac'] = mdata['atac'][was_measured].copy(), then mdata.update()." in advice
    mdata.mod["atac"] = mdata["atac"][measured].copy()
    with without_pulling():
        mdata.update()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*These cells count as measured")
        SCMAMBA.setup_mudata(mdata)
    np.testing.assert_array_equal(SCMAMBA(mdata).adata_manager.matrix("atac").present(np.arange(200)), measured)
