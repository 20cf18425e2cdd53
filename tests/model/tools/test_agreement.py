"""Swapped pairs have a low agreement; intact cells do not."""

import mudata
import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

from scmamba_scvi import SCMAMBA
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError


def with_swapped(mdata, key, fraction, seed=0):
    """The MuData with counts of one modality rotated among ``fraction`` of its cells, and which cells these are."""
    cells = np.random.default_rng(seed).choice(mdata.n_obs, round(fraction * mdata.n_obs), replace=False)
    rows = np.arange(mdata.n_obs)
    rows[cells] = np.roll(cells, 1)
    mods = {k: v.copy() for k, v in mdata.mod.items()}
    mods[key].X = mods[key].X[rows]
    with without_pulling():
        other = mudata.MuData(mods)
    other.obs["batch"] = mdata.obs["batch"]
    return other, np.isin(np.arange(mdata.n_obs), cells)


@pytest.fixture(scope="module")
def swapped():
    """A model trained on cells of which 5 % were swapped, without knowing which."""
    mdata, truth = with_swapped(simulate_multiome(n_peaks=0, n_proteins=50, n_cells=2000, seed=4), "protein", 0.05)
    SCMAMBA.setup_mudata(mdata, batch_key="batch")
    model = SCMAMBA(mdata, encoder="linear")
    model.train(max_epochs=4, enable_progress_bar=False, accelerator="cpu")
    return model, mdata, truth


def test_swapped_cells_are_found(swapped):
    model, _, truth = swapped
    found = model.get_modality_agreement()
    auroc = {name: roc_auc_score(truth, -found[name]) for name in found}
    assert auroc["evidence"] >= 0.95 and auroc["cosine"] >= 0.93
    assert (found["evidence"][~truth] > 0).mean() > 0.9 and (found["evidence"][truth] > 0).mean() < 0.4


def test_damaged_cells_and_doublets_score_low(swapped):
    """Beside intact cells of the training data: permuted protein counts, or half the counts of each of two cells."""
    model, _, truth = swapped
    sound = np.flatnonzero(~truth)[:600]
    new = simulate_multiome(n_peaks=0, n_proteins=50, n_cells=2000, seed=4)
    doublets = sound[:60]
    others = np.random.default_rng(1).permutation(np.flatnonzero(~truth)[600:])[:60]
    x = {k: sparse.lil_matrix(new[k].X) for k in new.mod}
    for k in x:
        counts = sparse.csr_matrix(new[k].X)
        half = [c.multiply(np.random.default_rng(2).random(c.shape) < 0.5) for c in (counts[doublets], counts[others])]
        x[k][doublets] = half[0] + half[1]
    noisy = sound[60:120]
    x["protein"][noisy] = np.random.default_rng(3).permuted(
        sparse.csr_matrix(new["protein"].X)[noisy].toarray(), axis=1
    )
    for k in x:
        new[k].X = x[k].tocsr().astype(np.float32)
    found = model.get_modality_agreement(new)["evidence"].to_numpy()
    usual = np.median(found[sound[120:]])
    assert np.median(found[noisy]) < usual - 1 and (found[noisy] < 0.5).mean() > 0.7
    assert np.median(found[doublets]) < usual


def test_values_are_those_of_numpy(swapped):
    model, mdata, _ = swapped
    x, y = (model.get_latent_representation(modality=k).astype(np.float64) for k in model.kinds)
    found = model.get_modality_agreement()
    assert list(found.index) == list(mdata.obs_names)
    np.testing.assert_allclose(found["cosine"], (x * y).sum(1), atol=1e-5)
    ratio = np.exp(x @ y.T / model.match_temperatures_["rna-protein"])
    want = np.log(ratio.diagonal()) - (np.log(ratio.mean(0)) + np.log(ratio.mean(1))) / 2
    np.testing.assert_allclose(found["evidence"], want, atol=1e-3)


def test_order_of_cells_does_not_matter(swapped):
    model, mdata, _ = swapped
    rng = np.random.default_rng(0)
    with without_pulling():
        turned = mudata.MuData({k: v[rng.permutation(v.n_obs)].copy() for k, v in mdata.mod.items()})
    found = model.get_modality_agreement(turned)
    assert list(found.index) == list(turned.obs_names)
    want = model.get_modality_agreement()
    np.testing.assert_allclose(found.loc[want.index], want, atol=1e-3)


def test_cells_of_one_modality_are_nan(swapped):
    model, mdata, _ = swapped
    with without_pulling():
        mosaic = mudata.MuData({"rna": mdata["rna"][:60].copy(), "protein": mdata["protein"][20:].copy()})
    with pytest.warns(UserWarning, match="1,960 of 2,000 cells have fewer than two"):
        found = model.get_modality_agreement(mosaic)
    both = mosaic.obs_names.isin(mosaic["rna"].obs_names) & mosaic.obs_names.isin(mosaic["protein"].obs_names)
    np.testing.assert_array_equal(found.notna().all(axis=1), both)


def test_data_without_enough_pairs_are_named(trained):
    mdata = trained.adata
    with pytest.raises(ScmambaError, match="needs two modalities, found .'rna'."):
        trained.get_modality_agreement(mdata["rna"])
    with without_pulling():
        one = mudata.MuData({"rna": mdata["rna"].copy()})
        few = mudata.MuData({k: v[:5].copy() for k, v in mdata.mod.items()})
    with pytest.raises(ScmambaError, match="needs two modalities, found .'rna'."):
        trained.get_modality_agreement(one)
    few.obs["batch"] = mdata.obs["batch"].reindex(few.obs_names)
    with pytest.raises(ScmambaError, match="Fewer than 10 cells"):
        trained.get_modality_agreement(few)


def test_without_held_out_pairs_a_warning_says_that_evidence_is_not_calibrated(trained, monkeypatch):
    monkeypatch.setattr(trained, "match_temperatures_", {})
    with pytest.warns(UserWarning, match="evidence is not calibrated.*fewer than 10 cells with rna and atac"):
        trained.get_modality_agreement()
