"""What SCMAMBA promises: names decide what belongs together, and a cell's embedding depends on that cell alone."""

import copy
import os
import signal
import warnings

import mudata
import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback
from logged import logged
from shapes import rebuilt

from scmamba_scvi import SCMAMBA
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.metrics import foscttm
from scmamba_scvi.model.fitting.initialization import direction_weights
from scmamba_scvi.model.inputs.matrices import iterate_blocks
from scmamba_scvi.nn.spectral import linear_initialization, truncated_svd


def plain(mdata):
    """A copy without what setup wrote into it."""
    return rebuilt(mdata)


def without_columns(mdata):
    """The same without batches and labels, in the MuData and its modalities."""
    out = plain(mdata)
    for part in (out, *out.mod.values()):
        part.obs = part.obs[[]]
    return out


@pytest.fixture(scope="module")
def reference(trained):
    """The joint embedding that the model gives its own data."""
    return trained.get_latent_representation()


# -- an embedding ----------------------------------------------------------------------------------------------------


def test_embeddings_are_unit_vectors_in_float32(trained, reference):
    assert reference.shape == (300, 64) and reference.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(reference, axis=1), 1, atol=1e-5)


def test_a_modality_is_named_by_kind_or_by_key(mdata, quick):
    renamed = mudata.MuData({"gex": mdata["rna"], "peaks": mdata["atac"]})
    SCMAMBA.setup_mudata(renamed)
    model = SCMAMBA(renamed)
    model.train(**quick)
    by_kind, by_key = (model.get_latent_representation(modality=name) for name in ("rna", "gex"))
    np.testing.assert_array_equal(by_kind, by_key)
    with pytest.raises(UnknownNameError, match="'rnaa'.*Did you mean 'rna'"):
        model.get_latent_representation(modality="rnaa")


def test_indices_come_back_in_the_order_asked_for(trained, reference):
    indices = [5, 3, 299, 0, 5]
    np.testing.assert_allclose(trained.get_latent_representation(indices=indices), reference[indices], atol=1e-5)


def test_accessibility_may_be_bool(trained):
    def binary(adata):
        adata.X = adata.X > 0
        return adata

    z = trained.get_latent_representation(rebuilt(trained.adata, atac=binary), modality="atac")
    np.testing.assert_allclose(z, trained.get_latent_representation(modality="atac"), atol=1e-5)


def test_order_of_cells_and_of_rows_within_modalities_does_not_matter(trained, reference):
    rng = np.random.default_rng(0)

    def permute(adata):
        return adata[rng.permutation(adata.n_obs)].copy()

    other = rebuilt(trained.adata, rna=permute, atac=permute)
    z = trained.get_latent_representation(other)
    order = other.obs_names.get_indexer(trained.adata.obs_names)
    np.testing.assert_allclose(z[order], reference, atol=1e-5)


def test_features_in_another_order_are_recognised(trained, reference):
    rng = np.random.default_rng(0)

    def permute(adata):
        return adata[:, rng.permutation(adata.n_vars)].copy()

    z = trained.get_latent_representation(rebuilt(trained.adata, rna=permute, atac=permute))
    np.testing.assert_allclose(z, reference, atol=1e-5)


def test_features_put_in_another_order_after_setup_keep_their_places(mdata):
    SCMAMBA.setup_mudata(mdata)
    before = SCMAMBA(mdata)
    for key in ("rna", "atac"):
        mdata.mod[key] = mdata[key][:, ::-1].copy()
    after = SCMAMBA(mdata)
    assert after.layouts == before.layouts
    for kind in ("rna", "atac"):
        np.testing.assert_array_equal(after.feature_names(kind), before.feature_names(kind))
        np.testing.assert_array_equal(after.coordinates(kind).start, before.coordinates(kind).start)


def test_layouts_of_other_features_are_refused(mdata):
    SCMAMBA.setup_mudata(mdata)
    own = SCMAMBA(mdata).layouts
    model = SCMAMBA(mdata, layouts=own)
    assert model.layouts == own and model.coordinates("rna").placed.all()  # genes have coordinates in var alone
    for given in ({"rna": own["rna"]}, {"rna": own["atac"], "atac": own["rna"]}):
        with pytest.raises(ScmambaError, match="layouts are of so many features.*the modalities have .*'atac': 400"):
            SCMAMBA(mdata, layouts=given)
    with pytest.raises(ScmambaError, match="layouts must be a dict from kind to FeatureLayout, got list"):
        SCMAMBA(mdata, layouts=list(own.values()))


def test_layouts_given_in_another_order_make_the_same_model(mdata, quick, tmp_path):
    SCMAMBA.setup_mudata(mdata)
    own = SCMAMBA(mdata).layouts
    model = SCMAMBA(mdata, layouts=dict(reversed(own.items())))
    assert list(model.layouts) == ["rna", "atac"]
    model.train(**quick)
    model.export(tmp_path / "exported")
    z = SCMAMBA.from_export(tmp_path / "exported", accelerator="cpu").get_latent_representation(mdata)
    np.testing.assert_allclose(z, model.get_latent_representation(), atol=1e-5)


def test_new_cells_need_neither_batches_nor_labels(trained):
    other = without_columns(trained.adata)
    for kind in ("rna", "atac"):
        view = trained.get_latent_representation(other, modality=kind)
        np.testing.assert_allclose(view, trained.get_latent_representation(modality=kind), atol=1e-5)
    with pytest.warns(
        UserWarning, match=r"300 of 300 cells is not corrected for batches: the data have no obs\['batch'\]"
    ):
        assert np.isfinite(trained.get_latent_representation(other)).all()


def test_batches_of_new_cells_are_read_as_they_are_now(trained, reference):
    """A name that is corrected after a first look at new data counts, though these were never set up by the user."""
    other = plain(trained.adata)
    right = other.obs["batch"].astype(str)
    for wrong in ("Batch 1", right[::-1].to_numpy()):
        other.obs["batch"] = wrong
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert not np.allclose(trained.get_latent_representation(other), reference, atol=1e-3)
        other.obs["batch"] = right
        np.testing.assert_allclose(trained.get_latent_representation(other), reference, atol=1e-5)


def test_new_cells_may_have_unseen_batches(trained, reference):
    other = plain(trained.adata)
    other.obs["batch"] = other.obs["batch"].astype(str)
    other.obs.loc[other.obs_names[:40], "batch"] = "an unseen donor"
    with pytest.warns(UserWarning, match="40 of 300 cells is not corrected for batches: it was not trained on their"):
        z = trained.get_latent_representation(other)
    np.testing.assert_allclose(z[40:], reference[40:], atol=1e-5)
    with pytest.warns(UserWarning, match="is not corrected"):
        without_batches = trained.get_latent_representation(without_columns(trained.adata))
    np.testing.assert_allclose(z[:40], without_batches[:40], atol=1e-5)


@pytest.mark.parametrize("how", ["load", "from_export"])
def test_a_model_is_loaded_with_cells_of_batches_that_it_does_not_know(trained, tmp_path, quick, how):
    """They are embedded as those that are passed to it later; the model stays of the size that it was trained in."""
    new = plain(trained.adata)
    for part in (new, *new.mod.values()):
        part.obs["batch"] = part.obs["batch"].astype(str)
        part.obs.loc[part.obs_names[:50], "batch"] = "a new one"
    trained.save(tmp_path / "load")
    trained.export(tmp_path / "from_export")
    loaded = getattr(SCMAMBA, how)(tmp_path / how, new, accelerator="cpu")
    assert list(loaded.batches) == list(trained.batches)
    with pytest.warns(UserWarning, match="50 of 300 cells is not corrected for batches: it was not trained on"):
        z = loaded.get_latent_representation()
    with pytest.warns(UserWarning, match="50 of 300 cells is not corrected"):
        np.testing.assert_allclose(z, trained.get_latent_representation(plain(new)), atol=1e-5)
    with pytest.raises(ScmambaError, match="50 cells are of batches that the model does not know, such as 'a new one'"):
        loaded.train(**quick)
    loaded.export(tmp_path / "again")
    assert list(SCMAMBA.from_export(tmp_path / "again").batches) == list(trained.batches)
    loaded.save(tmp_path / "saved")
    assert list(SCMAMBA.load(tmp_path / "saved", new, accelerator="cpu").batches) == list(trained.batches)


def test_training_again_needs_the_batches(trained, tmp_path, quick):
    trained.save(tmp_path / "m")
    other = without_columns(trained.adata)
    loaded = SCMAMBA.load(tmp_path / "m", adata=other)
    with pytest.raises(ScmambaError, match=r"has no obs\['batch'\].*correct_batches=False"):
        loaded.train(**quick)


def test_new_cells_may_be_a_view_of_a_mudata(trained, reference):
    other = plain(trained.adata)
    np.testing.assert_allclose(trained.get_latent_representation(other[:50]), reference[:50], atol=1e-5)


# -- cells without a modality ----------------------------------------------------------------------------------------


def test_new_cells_may_have_one_modality_only(trained):
    rna = mudata.MuData({"rna": trained.adata["rna"].copy()})
    view = trained.get_latent_representation(rna, modality="rna")
    np.testing.assert_allclose(view, trained.get_latent_representation(modality="rna"), atol=1e-5)
    rna.obs["batch"] = trained.adata.obs["batch"].reindex(rna.obs_names)
    np.testing.assert_allclose(np.linalg.norm(trained.get_latent_representation(rna), axis=1), 1, atol=1e-5)
    with pytest.raises(ScmambaError, match="no cells with 'atac'"):
        trained.get_latent_representation(rna, modality="atac")


def test_cells_that_lack_the_modality_get_nan_and_a_warning(trained):
    other = rebuilt(trained.adata, atac=lambda a: a[:200].copy())
    with pytest.warns(UserWarning, match="100 of 300 cells lack atac"):
        z = trained.get_latent_representation(other, modality="atac")
    lacking = ~other.obs_names.isin(other["atac"].obs_names)
    assert np.isnan(z[lacking]).all() and np.isfinite(z[~lacking]).all()
    joint = trained.get_latent_representation(other)
    rna = mudata.MuData({"rna": trained.adata["rna"].copy()})
    rna.obs["batch"] = trained.adata.obs["batch"].reindex(rna.obs_names)
    of_rna = trained.get_latent_representation(rna)[rna.obs_names.get_indexer(other.obs_names)]
    np.testing.assert_allclose(joint[lacking], of_rna[lacking], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(joint, axis=1), 1, atol=1e-5)


def test_training_with_cells_of_one_modality(quick):
    mdata = simulate_multiome(n_cells=300, n_genes=120, n_peaks=300, n_cell_types=3, paired_fraction=0.5, seed=3)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata)
    model.train(**quick)
    assert np.isfinite(model.get_latent_representation()).all()
    n = sum(mdata.obs_names.isin(m.obs_names).astype(int) for m in mdata.mod.values())
    assert (n[model.validation_indices] == 2).all()  # retrieval can be scored on every held-out cell


@pytest.mark.parametrize(
    ("fractions", "n_train", "n_val"),
    [({}, 195, 5), ({"train_size": 0.5}, 100, 5), ({"train_size": 0.5, "validation_size": 0.01}, 100, 2)],
    ids=["neither", "cells to train on", "both"],
)
def test_cells_that_are_not_held_out_are_trained_on_unless_a_fraction_is_given(mdata, quick, fractions, n_train, n_val):
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(**quick, **fractions, plan_kwargs={"max_validation_cells": 5})
    assert (len(model.train_indices), len(model.validation_indices)) == (n_train, n_val)


def test_three_modalities_are_embedded_together(quick):
    a = simulate_multiome(n_cells=200, n_genes=120, n_peaks=300, n_cell_types=3, seed=4)
    b = simulate_multiome(n_peaks=0, n_cells=200, n_genes=120, n_proteins=20, n_cell_types=3, seed=4)
    protein = b["protein"].copy()
    protein.obs_names = a.obs_names
    mdata = mudata.MuData({"rna": a["rna"], "atac": a["atac"], "adt": protein})
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata)
    model.train(**quick)
    assert list(model.kinds) == ["rna", "atac", "protein"]
    assert model.get_latent_representation().shape == (200, 64)


# -- training --------------------------------------------------------------------------------------------------------


def test_untrained_embeddings_equal_the_spectral_solution(mdata):
    """Compared by cosines between cells, which are all that retrieval reads."""
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, spectral_weights="in-sample")
    cells = np.arange(mdata.n_obs)
    model._initialize(cells, np.arange(0))
    values, svds = {}, {}
    for kind in ("rna", "atac"):
        blocks = list(iterate_blocks(model.adata_manager.matrix(kind), cells))
        x = torch.cat([model.module.values[kind](b).to_dense() for b in blocks])
        values[kind] = x
        svds[kind] = truncated_svd(lambda x=x: [x], x.shape[1], 20)
    everyone = torch.ones(mdata.n_obs, dtype=torch.bool)
    starts = linear_initialization(svds, {"rna": everyone, "atac": everyone}, 64)
    model.is_trained_ = True  # or it would refuse to embed
    for kind, start in starts.items():
        expected = torch.nn.functional.normalize((values[kind] - svds[kind].mean) @ start, dim=-1)
        found = model.get_latent_representation(modality=kind)
        np.testing.assert_allclose(found @ found.T, (expected @ expected.T).numpy(), atol=2e-3)


def test_weights_from_held_out_cells_fall_to_nearly_zero_for_chance_correlations():
    mdata = simulate_multiome(n_cells=800, n_genes=300, n_peaks=1_000, n_cell_types=6, seed=0)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, spectral_weights="held-out")
    cells = np.arange(mdata.n_obs)
    model._initialize(cells, np.arange(0))
    matrices = {kind: model.adata_manager.matrix(kind) for kind in ("rna", "atac")}
    weights = direction_weights(model.module, matrices, cells, 30, seed=0)
    assert (weights.diff() <= 0).all() and weights.min() >= 0 and weights.max() <= 1
    assert weights[0] > 0.5 and weights[-1] < 0.2


def test_a_second_training_runs_its_steps_in_training_mode(mdata, quick):
    """scvi-tools leaves a trained module in eval mode, in which nothing is masked and no statistics are learned."""
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata)
    model.train(**quick)
    modes = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, plan, *_):
            modes.append(plan.module.training)

    model.train(**quick, early_stopping=False, callbacks=[Watch()])
    assert modes and all(modes)
    assert len(model.history["train_loss"]) == 4


def test_the_same_seed_gives_the_same_model(quick):
    found = []
    for _ in range(2):
        mdata = simulate_multiome(n_cells=120, n_genes=80, n_peaks=200, n_cell_types=3, seed=5)
        scvi.settings.seed = 7
        SCMAMBA.setup_mudata(mdata)
        model = SCMAMBA(mdata)
        model.train(**quick)
        found.append(model.get_latent_representation())
    np.testing.assert_array_equal(*found)


def test_best_weights_are_kept(mdata):
    """A learning rate that destroys the embedding: the start is put back, and the summary says so."""
    scvi.settings.seed = 0
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, align=False)  # the score of an epoch is that of the encoders
    with torch.no_grad():
        model._initialize(np.arange(mdata.n_obs), np.arange(0))
    start = {k: v.clone() for k, v in model.module.encoders.state_dict().items()}
    model.train(max_epochs=3, enable_progress_bar=False, plan_kwargs={"lr": 1.0, "spectral_lr": 10.0})
    assert model.training_summary_["best_epoch"] is None
    for name, value in model.module.encoders.state_dict().items():
        torch.testing.assert_close(value, start[name])
    best = model.training_summary_["best"]
    assert best == model.training_summary_["start"]["foscttm_validation"]
    assert best < model.history["foscttm_validation"].to_numpy().min()
    held_out = model.validation_indices
    x, y = (model.get_latent_representation(modality=k, indices=held_out) for k in ("rna", "atac"))
    assert np.mean(foscttm(x, y)) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_weights_that_only_tie_with_the_start_are_no_gain(mdata, precision):
    """Steps of length 0, in effect: all scores stay equal, to the last bit, and the start is what is kept."""
    scvi.settings.seed = 3  # its FOSCTTM is no float32 number
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(
        max_epochs=1, enable_progress_bar=False, accelerator="cpu", precision=precision,
        plan_kwargs={"lr": 1e-30, "spectral_lr": 1e-30},
    )  # fmt: skip
    assert model.training_summary_["best_epoch"] is None
    assert model.training_summary_["start"] == {
        name: model.history[name].iloc[0, 0] for name in model.training_summary_["start"]
    }


def test_the_network_is_added_to_the_trained_linear_part_only_where_held_out_cells_gain(mdata):
    best = {}
    for encoder in ("linear", "mamba"):
        scvi.settings.seed = 0
        SCMAMBA.setup_mudata(mdata)
        model = SCMAMBA(mdata, encoder=encoder)
        model.train(max_epochs=4 if encoder == "linear" else 8, enable_progress_bar=False, early_stopping=False)
        best[encoder] = model.training_summary_["best"]
        assert len(model.history["train_loss"]) == (4 if encoder == "linear" else 8)
    scores = model.history["foscttm_validation"].to_numpy().ravel()
    start = model.training_summary_["start"]["foscttm_validation"]
    assert best["mamba"] == pytest.approx(min(start, scores.min()))  # over both stages, and the initialization
    epoch = model.training_summary_["best_epoch"]
    assert epoch is None or scores[epoch] == pytest.approx(best["mamba"])
    gates = [encoder.gate for encoder in model.module.encoders.values()]
    assert all(bool((gate == 0).all()) for gate in gates) == (epoch is None or epoch < 4)


def test_embeddings_of_frozen_networks_are_those_of_the_linear_branch_while_gates_are_closed(trained):
    module = copy.deepcopy(trained.module).eval()
    x = torch.rand(5, 150)
    encoder = module.encoders["rna"]
    whole = encoder(x)
    linear = torch.nn.functional.normalize(encoder.linear_branch(x @ encoder.embedding.weight), dim=1)
    assert not torch.allclose(whole, linear, atol=1e-3) and not module.has_closed_gates
    with module.freezing(networks=True):
        torch.testing.assert_close(encoder(x), whole)  # nothing is lost of a gate that is open
        for other in module.encoders.values():
            other.gate.data.zero_()
        assert module.has_closed_gates and not encoder.runs_network
        torch.testing.assert_close(encoder(x), linear)
    assert encoder.runs_network


@pytest.mark.parametrize("networks_first", [True, False])
def test_freezing_once_more_keeps_what_was_frozen(trained, networks_first):
    module = trained.module
    outer, inner = {"networks": True}, {"reference": True}
    if not networks_first:
        outer, inner = inner, outer
    before = [p.requires_grad for p in module.parameters()]
    with module.freezing(**outer):
        frozen = [p.requires_grad for p in module.parameters()]
        with module.freezing(**inner):
            named = {name for name, p in module.named_parameters() if p.requires_grad}
        assert [p.requires_grad for p in module.parameters()] == frozen
    assert [p.requires_grad for p in module.parameters()] == before
    assert named == {f"encoders.{kind}.linear_branch.bias" for kind in module.kinds}


def test_history_holds_loss_and_held_out_retrieval(trained):
    for name in ("train_loss", "validation_loss", "foscttm_validation", "recall_at_10_validation", "temperature"):
        assert len(trained.history[name]) == 2, name
    assert not any("elbo" in name for name in trained.history)


def test_ctrl_c_keeps_a_usable_model(mdata):
    class PressCtrlC(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.current_epoch == 1:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata)
    with pytest.warns(UserWarning, match="interrupted"):
        model.train(max_epochs=50, enable_progress_bar=False, callbacks=[PressCtrlC()])
    assert model.training_summary_["interrupted"] and model.is_trained
    assert len(model.history["train_loss"]) < 5
    assert np.isfinite(model.get_latent_representation()).all()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({"encoder": "linear"}, id="linear encoder"),
        pytest.param(
            {"preset": "paper", "d_model": 32, "headdim": 16, "n_layers": 3, "d_mlp": 32, "attention_heads": 2},
            id="the published shape",
        ),
        pytest.param({"attention_layers": (0,)}, id="attention"),
        pytest.param({"linear_branch": False, "spectral": False, "gate_init": 1.0}, id="no linear branch"),
    ],
)
def test_every_kind_of_network_trains(mdata, quick, overrides):
    """Others are drawn at random in training/test_finite.py."""
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, **{"preset": "small", **overrides})
    model.train(**quick)
    assert np.isfinite(model.get_latent_representation()).all()


def test_a_warm_up_of_exactly_one_step_is_possible(mdata):
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata)
    n_train = int(0.9 * mdata.n_obs)
    model.train(max_epochs=4, batch_size=n_train // 5, enable_progress_bar=False)  # two stages of 2 epochs of 5 steps
    assert model.trainer.global_step == 10  # of which warm-up takes a tenth
    assert np.isfinite(model.get_latent_representation()).all()


def test_minibatches_are_sized_by_the_cells_named_for_training(mdata, quick):
    """Fewer than the share of the cells that would be drawn: a default may not ask for more than there are."""
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata)
    parts = [np.arange(24), np.arange(24, 60), np.arange(60, 200)]
    model.train(**quick, datasplitter_kwargs={"external_indexing": parts})
    np.testing.assert_array_equal(model.train_indices, parts[0])
    assert model.training_summary_["batch_size"] == 24 // 4


def test_training_logs_what_was_chosen(mdata):
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata)
    with logged() as lines:
        model.train(max_epochs=1, enable_progress_bar=False)
    assert len(lines) == 2 and model.preset_ == "small"
    for part in ("Training on cpu: 180 cells, 20 validation cells, minibatches of 45", "full network 1"):
        assert part in lines[0]


def test_training_logs_how_many_cells_are_paired_and_what_to_do_where_few_are(mdata):
    atac = mdata["atac"].copy()
    atac.obs_names = [*atac.obs_names[:40], *(f"other {i}" for i in range(160))]
    apart = mudata.MuData({"rna": mdata["rna"], "atac": atac})
    SCMAMBA.setup_mudata(apart)
    with logged() as lines:
        SCMAMBA(apart).train(max_epochs=1, enable_progress_bar=False)
    assert "356 cells (36 of them have several modalities), 4 validation cells" in lines[0]
    assert "give them the same obs_names" in lines[0]


# -- files -----------------------------------------------------------------------------------------------------------


def test_export_replaces_an_existing_export_only_if_asked(trained, tmp_path):
    trained.export(tmp_path / "m")
    with pytest.raises(ScmambaError, match="overwrite=True"):
        trained.export(tmp_path / "m")
    (tmp_path / "m" / "other.txt").write_text("from before")
    trained.export(tmp_path / "m", overwrite=True)
    assert (tmp_path / "m" / "other.txt").read_text() == "from before"  # files that are not of an export stay
    assert len(list((tmp_path / "m").glob("weights*.safetensors"))) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]  # no unfinished files are left
    SCMAMBA.from_export(tmp_path / "m")


# -- texts -----------------------------------------------------------------------------------------------------------


def test_repr_names_preset_modalities_and_whether_it_is_trained(trained):
    text = repr(trained)
    assert "preset 'small'" in text and "trained" in text
    assert f"rna (mdata['rna'], pareto): {trained.layouts['rna'].summary()}" in text
