"""What `train` promises of its arguments, of errors, of scores that cannot be computed, and of what it says."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import mudata
import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback, StochasticWeightAveraging, Timer
from lightning.pytorch.callbacks import EarlyStopping as Lightnings
from logged import logged
from scvi.train import SaveCheckpoint
from shapes import mudata_of, poisson

from scmamba_scvi import SCMAMBA
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import NonFiniteError, ScmambaError, UnknownNameError

HERE = Path(__file__).parent
TINY = {"d_model": 16, "headdim": 16, "d_mlp": 16, "d_feature": 16, "n_latent": 8}


def fresh(seed=0, **options):
    scvi.settings.seed = seed
    mdata = simulate_multiome(n_cells=120, n_genes=60, n_peaks=80, n_cell_types=3, seed=2)
    SCMAMBA.setup_mudata(mdata)
    return SCMAMBA(mdata, **{**TINY, **options})


class Watch(Callback):
    """Notes the stopping rule and the clipping of each stage, and how many epochs it had."""

    def __init__(self):
        self.rules, self.clips, self.epochs, self.asked = [], [], [], 0

    def on_train_start(self, trainer, plan):
        self.rules += [c for c in trainer.callbacks if isinstance(c, Lightnings)]
        self.clips.append(trainer.gradient_clip_val)

    def on_train_end(self, trainer, plan):
        self.epochs.append(trainer.current_epoch)


# -- arguments -------------------------------------------------------------------------------------------------------


def test_early_stopping_and_clipping_are_what_the_user_gives():
    watch, model = Watch(), fresh()
    model.train(
        max_epochs=40, early_stopping_patience=2, early_stopping_monitor="recall_at_10_validation",
        early_stopping_mode="max", early_stopping_min_delta=1.0, gradient_clip_val=0.3, enable_progress_bar=False,
        callbacks=[watch],
    )  # fmt: skip
    assert watch.epochs == [3, 3]  # no recall is better by 1, so patience ends after the first epoch and two more
    for rule in watch.rules:
        assert (rule.monitor, rule.mode, rule.patience, abs(rule.min_delta)) == (
            "recall_at_10_validation",
            "max",
            2,
            1.0,
        )
    assert watch.clips == [0.3, 0.3] and model.training_summary_["monitor"] == "recall_at_10_validation"


def test_what_scvi_tools_records_of_a_training_are_the_options_that_were_used():
    model = fresh()
    model.train(max_epochs=2, enable_progress_bar=False, plan_kwargs={"lr": 3e-4, "weight_decay": 0.02})
    plan = model.trainer.lightning_module
    used = model.trainer.optimizers[0].defaults
    assert (plan.lr, plan.weight_decay, plan.eps) == (3e-4, 0.02, used["eps"])


def test_the_defaults_are_those_documented():
    watch = Watch()
    fresh().train(max_epochs=2, enable_progress_bar=False, callbacks=[watch])
    assert watch.clips == [1.0, 1.0] and {rule.monitor for rule in watch.rules} == {"foscttm_validation"}


@pytest.mark.parametrize(
    ("train", "says"),
    [
        pytest.param({"lr": 0.1}, r"pass it as train\(plan_kwargs={'lr': \.\.\.}\)", id="learning rate"),
        pytest.param({"dropout": 0.1}, r"pass it as SCMAMBA\(mdata, dropout=\.\.\.\)", id="option of the network"),
        pytest.param({"num_workers": 2}, r"pass it as train\(datasplitter_kwargs={'num_workers': ", id="loader"),
        pytest.param({"early_stoping": False}, "Did you mean 'early_stopping'", id="typing error"),
        pytest.param({"plan_kwargs": {"learning_rate": 1}}, "Unknown training option", id="unknown option"),
        pytest.param({"early_stopping_monitor": "foscttm_validatoin"}, "Did you mean 'foscttm_validation'", id="monitor"),
        pytest.param({"early_stopping_mode": "max"}, "would wait for a worse foscttm_validation", id="mode"),
        pytest.param({"early_stopping_patience": 0}, "early_stopping_patience must be at least 1", id="patience"),
        pytest.param({"fast_dev_run": True}, "Leave fast_dev_run out", id="dev run"),
        pytest.param({"limit_val_batches": 0}, "pass validation_size=0", id="no score"),
        pytest.param({"max_steps": 0}, "max_steps must be at least 1", id="steps"),
        pytest.param({"check_val_every_n_epoch": 0}, "check_val_every_n_epoch must be at least 1", id="validation"),
        pytest.param({"datasplitter_kwargs": {"foo": 1}}, "Unknown entry of datasplitter_kwargs 'foo'", id="splitter"),
        pytest.param({"datasplitter_kwargs": {"train_size": 1.5}}, r"pass train\(train_size=\.\.\.\)", id="own argument"),
        pytest.param(
            {"datasplitter_kwargs": {"persistent_workers": True}},
            "datasplitter_kwargs cannot be used: persistent_workers option needs num_workers",
            id="workers",
        ),
        pytest.param({"shuffle_set_split": "no"}, "shuffle_set_split must be True or False, got 'no'", id="shuffle"),
        pytest.param({"num_nodes": 0}, "num_nodes must be at least 1", id="nodes"),
        pytest.param({"enable_checkpointing": True}, "Leave enable_checkpointing out: .*checkpoint_dir", id="checkpoints"),
        pytest.param({"callbacks": SaveCheckpoint("x")}, "Leave SaveCheckpoint out: .*checkpoint_dir", id="saves"),
        pytest.param({"callbacks": [StochasticWeightAveraging(1e-3)]}, "Leave StochasticWeightAveraging out", id="averages"),
        pytest.param({"callbacks": "x"}, "callbacks must be a callback of lightning.pytorch.*got 'x'", id="callbacks"),
        pytest.param({"num_sanity_val_steps": 2}, "Leave num_sanity_val_steps out", id="sanity"),
        pytest.param({"use_distributed_sampler": True}, "Leave use_distributed_sampler out", id="sampler"),
        pytest.param({"accumulate_grad_batches": 0}, "accumulate_grad_batches must be at least 1", id="accumulate"),
        pytest.param({"early_stopping_min_delta": "x"}, "early_stopping_min_delta must be a number", id="delta"),
        pytest.param({"early_stopping_warmup_epochs": -1}, "warmup_epochs must be at least 0", id="warm-up"),
        pytest.param({"trainer_kwargs": {"max_steps": 1}}, "Unknown argument of train 'trainer_kwargs'", id="kwargs"),
    ],
)  # fmt: skip
def test_an_argument_that_cannot_be_used_is_answered_with_what_to_type(train, says):
    model = fresh()
    with pytest.raises(ScmambaError, match=says) as error:
        model.train(max_epochs=1, enable_progress_bar=False, **train)
    assert not model.is_initialized_ and len(str(error.value)) < 400


def train_on(model, cells):
    """Train on these cells of 120, and hold out the others."""
    parts = [list(cells), np.setdiff1d(np.arange(120), cells).tolist(), []]
    model.train(max_epochs=1, enable_progress_bar=False, datasplitter_kwargs={"external_indexing": parts})


def test_the_cells_to_train_on_may_be_named_in_lists():
    model = fresh()
    train_on(model, range(100))
    np.testing.assert_array_equal(model.train_indices, range(100))
    np.testing.assert_array_equal(model.validation_indices, range(100, 120))


def test_named_training_cells_must_show_the_modalities_and_how_they_relate():
    mdata = three_modalities()
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, **TINY)
    has_protein = mdata.obs_names.isin(mdata["adt"].obs_names)
    without, others = np.flatnonzero(~has_protein), np.flatnonzero(has_protein)
    for cells, message in (
        (others[:9], "9 of 9 training cells have two modalities; at least 10"),
        (without, "0 of 40 training cells have the modality 'adt'; at least 10"),
        (np.append(without, others[:1]), "1 of 41 training cells have the modality 'adt'"),
    ):
        with pytest.raises(ScmambaError, match=message):
            train_on(model, cells)
    assert not model.is_initialized_
    with pytest.raises(ScmambaError, match=r"have two modalities; .* Hold out fewer cells \(validation_size\)"):
        model.train(max_epochs=1, train_size=0.05, validation_size=0.9)
    train_on(model, np.append(without, others[:10]))
    assert model.is_trained


@pytest.mark.parametrize(("size", "is_said"), [(4, True), (24, False)])
def test_minibatches_with_hardly_a_paired_cell_are_said(size, is_said):
    """Nothing is learned of one cell alone, and the training loss looks small."""
    mdata = mudata_of({"rna": poisson(120, 30), "atac": poisson(120, 20)}, n_absent=90)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear", **TINY)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.train(max_epochs=1, batch_size=size, enable_progress_bar=False, accelerator="cpu")
    found = [str(one.message) for one in said if "in most steps nothing is learned" in str(one.message)]
    assert len(found) == is_said and all(one.startswith("Of 4 cells of a minibatch, 0.9 have") for one in found)


def test_a_training_that_does_not_begin_leaves_what_the_one_before_found():
    model = fresh()
    model.train(max_epochs=1, enable_progress_bar=False)
    before = dict(model.training_summary_)
    assert before["best"] is not None
    with pytest.raises(ScmambaError, match=r"cannot make a trainer of these arguments: .*val_check_interval"):
        model.train(max_epochs=1, enable_progress_bar=False, val_check_interval="x")
    assert model.training_summary_ == before


def test_the_size_of_the_network_is_the_same_on_every_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    mdata = simulate_multiome(n_cells=5_000, n_genes=30, n_peaks=40, n_cell_types=3, seed=2)
    SCMAMBA.setup_mudata(mdata)
    assert SCMAMBA(mdata).preset_ == "small"


# -- scores ----------------------------------------------------------------------------------------------------------


def three_modalities():
    """MuData in which every two modalities share 40 cells, and no cell has all three."""
    a = simulate_multiome(n_cells=120, n_genes=60, n_peaks=80, n_cell_types=3, seed=4)
    protein = simulate_multiome(n_peaks=0, n_cells=120, n_genes=60, n_proteins=20, n_cell_types=3, seed=4)[
        "protein"
    ].copy()
    protein.obs_names = a.obs_names
    rows = np.arange(120)
    mods = {"rna": a["rna"][rows < 80], "atac": a["atac"][(rows < 40) | (rows >= 80)], "adt": protein[rows >= 40]}
    return mudata.MuData({key: part.copy() for key, part in mods.items()})


@pytest.mark.parametrize("monitor", ["foscttm_validation", "validation_loss"])
@pytest.mark.parametrize("case", ["one held-out pair", "no two held-out cells with the same two modalities"])
def test_training_works_where_no_score_can_be_computed(case, monitor):
    """The loss of a single pair is 0 before the first step: it says nothing either."""
    if case == "one held-out pair":
        model, held_out = fresh(), [7]
    else:
        mdata = three_modalities()
        SCMAMBA.setup_mudata(mdata)
        model, held_out = SCMAMBA(mdata, **TINY), None
        n = [mdata.obs_names.get_indexer(mdata[key].obs_names) for key in mdata.mod]
        pairs = [np.intersect1d(n[i], n[j])[0] for i, j in ((0, 1), (0, 2), (1, 2))]
        held_out = pairs
    parts = [np.setdiff1d(np.arange(120), held_out), np.array(held_out), np.array([], dtype=int)]
    with pytest.warns(UserWarning, match=f"No score can be computed from {len(held_out)} validation cell"):
        model.train(
            max_epochs=4, enable_progress_bar=False, early_stopping_monitor=monitor, datasplitter_kwargs={"external_indexing": parts},
        )  # fmt: skip
    assert model.is_trained and len(model.history["train_loss"]) == 4 and model.training_summary_["best"] is None
    assert np.isfinite(model.get_latent_representation()).all()


def test_the_loss_before_the_first_step_of_each_stage_counts():
    """A second stage that only makes the loss worse leaves the weights of the first."""
    model = fresh()

    class Spoil(Callback):
        """A lower temperature makes the loss of embeddings that match badly larger."""

        def on_validation_start(self, trainer, plan):
            if not trainer.sanity_checking and plan.module.encoders["rna"].runs_network:
                plan.module.temperature.log.data -= 2

    model.train(
        max_epochs=6, enable_progress_bar=False, early_stopping_monitor="validation_loss", early_stopping=False,
        callbacks=[Spoil()],
    )  # fmt: skip
    losses = model.history["validation_loss"].to_numpy().ravel()
    summary = model.training_summary_
    assert losses[3:].min() > losses[:3].min()
    assert summary["best"] == pytest.approx(min(summary["start"]["validation_loss"], losses[:3].min()), rel=1e-6)
    assert model.module.temperature.log.item() > -4  # each spoiled one is below -4.6


def test_scores_before_the_first_step_are_those_of_all_held_out_cells():
    model = fresh(encoder="linear")
    model.train(max_epochs=1, batch_size=10, enable_progress_bar=False, plan_kwargs={"lr": 1e-30, "spectral_lr": 1e-30})
    start = model.training_summary_["start"]
    assert set(start) == {"foscttm_validation", "recall_at_10_validation", "modality_gap_validation", "validation_loss"}
    assert start == {name: model.history[name].iloc[0, 0] for name in start}


@pytest.mark.parametrize(
    ("every", "epochs"),
    [
        pytest.param(2, [1, 2, 4, 5], id="every second"),
        pytest.param(10, [2, 5], id="more rarely than a stage has epochs"),
        pytest.param(None, range(6), id="as scvi-tools says it by default"),
    ],
)
def test_the_end_of_a_stage_is_scored_however_rarely_validation_is_asked_for(every, epochs):
    model = fresh()
    model.train(max_epochs=6, check_val_every_n_epoch=every, early_stopping=False, enable_progress_bar=False)
    assert list(model.history["foscttm_validation"].index) == list(epochs)
    assert model.training_summary_["start"]


def test_a_stop_that_waits_for_the_least_number_of_epochs_does_not_change_when_is_scored():
    model = fresh(encoder="linear")
    model.train(
        max_epochs=20, min_epochs=8, early_stopping_patience=1, early_stopping_min_delta=0.5, check_val_every_n_epoch=3,
        enable_progress_bar=False,
    )  # fmt: skip
    assert list(model.history["foscttm_validation"].index) == [2, 5, 7]


@pytest.mark.parametrize("least", [{}, {"min_epochs": 3}, {"min_steps": 3}], ids=str)
def test_a_stage_that_steps_end_within_an_epoch_is_scored(least):
    model = fresh(encoder="linear")
    model.train(max_steps=2, check_val_every_n_epoch=10, early_stopping=False, enable_progress_bar=False, **least)
    assert list(model.history["foscttm_validation"].index) == [0]


# -- limits -----------------------------------------------------------------------------------------------------------


class Steps(Callback):
    """Counts the steps of each stage."""

    def __init__(self):
        self.counts = []

    def on_train_start(self, trainer, plan):
        self.counts.append(0)

    def on_train_batch_end(self, *_):
        self.counts[-1] += 1


@pytest.mark.parametrize(("limit", "counts"), [(7, [4, 3]), (1, [1])])
def test_the_limit_of_steps_is_for_both_stages_together(limit, counts):
    steps, model = Steps(), fresh()
    model.train(max_steps=limit, enable_progress_bar=False, callbacks=[steps])
    assert steps.counts == counts and model.is_trained


def test_the_limit_of_time_is_for_both_stages_together():
    limits = []

    class Limits(Callback):
        def on_train_start(self, trainer, plan):
            limits.extend(c.time_remaining() + c.time_elapsed() for c in trainer.callbacks if isinstance(c, Timer))

    fresh().train(max_time={"seconds": 8}, max_epochs=2, enable_progress_bar=False, callbacks=[Limits()])
    assert limits == pytest.approx([4, 4])


# -- errors and callbacks --------------------------------------------------------------------------------------------


class Poison(Callback):
    def on_train_batch_start(self, trainer, plan, batch, batch_idx):
        if trainer.current_epoch == 1:
            batch["X_rna"].values()[:] = torch.nan


@pytest.mark.parametrize("train", [{}, {"train_size": 1.0}], ids=["held out", "no cells held out"])
def test_after_an_error_in_the_first_stage_the_model_can_be_used(train, tmp_path):
    model = fresh()
    with pytest.raises(NonFiniteError):
        model.train(max_epochs=8, enable_progress_bar=False, callbacks=[Poison()], **train)
    assert model.is_trained and np.isfinite(model.get_latent_representation()).all()
    assert len(model.validation_indices) == (0 if train else 12)
    model.save(tmp_path / "m")
    model.train(max_epochs=2, enable_progress_bar=False)
    assert len(model.history["train_loss"]) == 3


def test_weights_in_less_than_float32_are_refused():
    """The model would be left with them, and nothing else could be computed with it."""
    model = fresh()
    for precision in ("bf16-true", "16-true", "64-true"):
        with pytest.raises(UnknownNameError, match="Unknown precision .*'32-true', 'bf16-mixed', '16-mixed'"):
            model.train(max_epochs=1, enable_progress_bar=False, precision=precision)
    model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu", precision=32)
    assert model.precision_ == "32-true"


def test_each_stage_has_its_patience():
    watch, model = Watch(), fresh()
    model.train(batch_size=10, early_stopping_min_delta=1.0, enable_progress_bar=False, callbacks=[watch])
    assert [rule.patience for rule in watch.rules] == [n - 1 for n in watch.epochs]
    assert watch.rules[0].patience > watch.rules[1].patience


def test_patience_that_the_first_stage_used_up_does_not_end_the_second():
    watch, rule = Watch(), Lightnings("foscttm_validation", patience=2, min_delta=1.0)
    fresh().train(max_epochs=12, early_stopping=False, enable_progress_bar=False, callbacks=[rule, watch])
    assert watch.epochs == [3, 3]


class Counted(Callback):
    """Its state can be set only once it was in a training, as that of callbacks that copy the model."""

    def __init__(self):
        self.n, self.seen = None, []

    def on_fit_start(self, trainer, plan):
        self.n = self.n or 0

    def on_train_end(self, trainer, plan):
        self.n += 1
        self.seen.append(self.n)

    def state_dict(self):
        return {"n": 0}

    def load_state_dict(self, state):
        self.n = self.n * 0 + state["n"]


def test_the_state_of_callbacks_begins_anew_after_a_stage_and_not_before_the_first():
    counted = Counted()
    fresh().train(max_epochs=2, enable_progress_bar=False, callbacks=[counted])
    assert counted.seen == [1, 1]


def test_a_callback_that_cannot_begin_anew_is_answered():
    class Once(Counted):
        def load_state_dict(self, state):
            raise TypeError("no second time")

    with pytest.raises(ScmambaError, match="callbacks cannot begin anew .*: no second time"):
        fresh().train(max_epochs=2, enable_progress_bar=False, callbacks=[Once()])


# -- threads and output ----------------------------------------------------------------------------------------------


def in_process(code, **environment):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), *sys.path])), **environment}
    done = subprocess.run([sys.executable, "-W", "ignore:mdata:UserWarning", "-c", code], env=environment,
                          capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done


TRAINING = """
import scanpy as sc, torch
from test_mixin import fresh
model = fresh(encoder="linear")
"""


@pytest.mark.parametrize("setting", [{"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "2", "LOKY_MAX_CPU_COUNT": "1"}])
def test_neither_neighbors_of_scanpy_nor_absent_cpus_raise_the_number_of_threads(setting):
    code = (
        TRAINING
        + """
mdata = model.adata
sc.pp.neighbors(mdata["rna"], use_rep="X")
raised = torch.get_num_threads()
seen = []
model.module.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
model.train(max_epochs=1, enable_progress_bar=False)
encode = model.module.embed_jointly
model.module.embed_jointly = lambda *given: (seen.append(torch.get_num_threads()), encode(*given))[1]
model.get_latent_representation()
print("threads", raised, *set(seen), len(seen) > 4)
"""
    )
    said = in_process(code, **setting, NUMBA_NUM_THREADS="2").stdout
    assert said.split("threads ")[1].split() == ["2", "1", "True"]


@pytest.mark.parametrize("bar", [True, False])
def test_a_terminal_shows_two_lines_and_a_bar_for_each_stage(bar):
    done = in_process(
        TRAINING.replace('encoder="linear"', "") + f"model.train(max_epochs=4, enable_progress_bar={bar})"
    )
    said = done.stdout + done.stderr
    assert said.count("INFO") == 2 and said.count("100%") >= 2 * bar
    for noise in (
        "GPU",
        "TPU",
        "litlogger",
        "LeafSpec",
        "v_num",
        "log_every_n_steps",
        "eval mode",
        "anity",
        "Monitored",
    ):
        assert noise not in said
    if not bar:
        assert "epoch 1" not in said and "Seed set to 0" in done.stderr
        # an old zarr makes numcodecs warn of a package that it uses itself
        assert len([line for line in done.stderr.splitlines() if "numcodecs" not in line]) == 1


def test_the_verbosity_of_scvi_tools_decides():
    scvi.settings.verbosity = 30
    with logged() as lines:
        fresh(encoder="linear").train(max_epochs=1, enable_progress_bar=False)
    assert lines == []
