"""A killed training continues to the losses of one that was not killed; a failed save leaves the previous file intact."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from children import in_child, needs_fork
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from logged import logged
from shapes import TINY, mudata_of, poisson

from scmamba_scvi import SCMAMBA
from scmamba_scvi.errors import ResumeError, ScmambaError
from scmamba_scvi.model.fitting import mixin as fitting
from scmamba_scvi.model.training.callbacks import StopOnInterrupt
from scmamba_scvi.model.training.resume import read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")
TRAIN = {"max_epochs": 8, "batch_size": 12, "accelerator": "cpu", "enable_progress_bar": False}


def fresh(seed=0, **options):
    """A model whose weights follow from ``seed``, as does the random state it leaves."""
    mdata = mudata_of({"rna": poisson(64, 40, seed=1), "atac": poisson(64, 50, seed=2)}, n_absent=6)
    mdata.obs["batch"] = [f"batch {i % 2}" for i in range(mdata.n_obs)]
    SCMAMBA.setup_mudata(mdata, batch_key="batch")
    torch.manual_seed(seed)
    np.random.seed(seed)
    return SCMAMBA(mdata, **{**TINY, **options})


def result(model):
    """History and embedding."""
    history = {name: frame.to_numpy(dtype=float) for name, frame in model.history.items()}
    return history, model.get_latent_representation()


def assert_same(found, expected):
    assert found[0].keys() == expected[0].keys()
    for name, values in expected[0].items():
        np.testing.assert_allclose(found[0][name], values, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-5)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Result and summary of a training that nothing stopped."""
    model = fresh()
    model.train(**TRAIN, checkpoint_dir=tmp_path_factory.mktemp("whole"))
    return result(model), model.training_summary_


def test_a_checkpoint_changes_no_loss(uninterrupted):
    model = fresh()
    model.train(**TRAIN)
    assert_same(result(model), uninterrupted[0])


def test_nothing_is_said_of_a_save(tmp_path):
    with logged("lightning.pytorch") as lines:
        fresh().train(**{**TRAIN, "max_epochs": 2}, checkpoint_dir=tmp_path)
    assert (tmp_path / "training.ckpt").exists() and not [line for line in lines if "weights_only" in line]


class KillAt(Callback):
    """Sends SIGKILL to this process before a minibatch, counted over both stages."""

    def __init__(self, step):
        self.step, self.seen = step, 0

    def on_train_batch_start(self, *_):
        self.seen += 1
        if self.seen == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


# 64 cells, 58 of them with both modalities: 4 minibatches of 12 in an epoch, 4 epochs in each stage
@needs_fork
@pytest.mark.parametrize(
    "step",
    [pytest.param(s, marks=[] if s in (14, 24) else pytest.mark.slow) for s in (1, 3, 7, 14, 17, 19, 24, 30, 32)],
    ids=lambda s: f"step {s}",
)
def test_a_killed_training_continues_to_the_same_losses(uninterrupted, tmp_path, step):
    status = in_child(lambda: fresh().train(**TRAIN, checkpoint_dir=tmp_path, callbacks=[KillAt(step)]))
    assert os.WTERMSIG(status) == signal.SIGKILL
    model = fresh(seed=step)  # other weights and another random state must not matter
    model.train(**TRAIN, checkpoint_dir=tmp_path, resume=True)
    assert_same(result(model), uninterrupted[0])
    assert model.training_summary_ == uninterrupted[1]
    assert [p.name for p in tmp_path.iterdir()] == ["training.ckpt"]


class FailAt(KillAt):
    """Raises instead, which leaves the model in the memory of this process."""

    def on_train_batch_start(self, *_):
        self.seen += 1
        if self.seen == self.step:
            raise RuntimeError("failed on purpose")


def test_a_training_continues_in_the_model_that_it_began_with(tmp_path):
    """Its weights are no longer those that the stages of a new training would follow from."""
    train = {**TRAIN, "train_size": 1.0, "early_stopping": False}  # no score: the last weights are kept
    whole = fresh()
    whole.train(**train)
    model = fresh()
    with pytest.raises(RuntimeError, match="on purpose"):
        model.train(**train, checkpoint_dir=tmp_path, callbacks=[FailAt(33)])
    assert not model.module.has_closed_gates
    for _ in ("a failed training", "a finished one"):
        model.train(**train, checkpoint_dir=tmp_path, resume=True)
        assert_same(result(model), result(whole))
        assert model.training_summary_ == whole.training_summary_


def test_what_is_logged_by_step_is_restored_by_step(tmp_path):
    whole, cut = fresh(), fresh()
    whole.train(**TRAIN, callbacks=[LearningRateMonitor("step")])
    with pytest.raises(RuntimeError, match="on purpose"):
        cut.train(**TRAIN, checkpoint_dir=tmp_path, callbacks=[LearningRateMonitor("step"), FailAt(24)])
    cut.train(**TRAIN, checkpoint_dir=tmp_path, resume=True, callbacks=[LearningRateMonitor("step")])
    assert {frame.index.name for frame in whole.history.values()} == {"epoch", "step"}
    for name, frame in whole.history.items():
        pd.testing.assert_index_equal(cut.history[name].index, frame.index, exact=False)


@needs_fork
@pytest.mark.parametrize("moment", ["while it is written", "before it replaces"])
@pytest.mark.parametrize("save", [5, pytest.param(2, marks=pytest.mark.slow)])
def test_a_training_killed_in_the_middle_of_a_save_continues(uninterrupted, tmp_path, monkeypatch, moment, save):
    count = [0]

    def dying(function):
        def call(*arguments, **options):
            count[0] += 1
            if count[0] == save:
                if moment == "while it is written":
                    Path(arguments[1]).write_bytes(b"half a checkpoint")
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    def work():
        if moment == "while it is written":
            torch.save = dying(torch.save)
        else:
            os.replace = dying(os.replace)
        fresh().train(**TRAIN, checkpoint_dir=tmp_path)

    assert os.WTERMSIG(in_child(work)) == signal.SIGKILL
    model = fresh(seed=9)
    model.train(**TRAIN, checkpoint_dir=tmp_path, resume=True)
    assert_same(result(model), uninterrupted[0])
    assert [p.name for p in tmp_path.iterdir()] == ["training.ckpt"]


def test_resuming_a_finished_training_gives_its_result(uninterrupted, tmp_path):
    fresh().train(**TRAIN, checkpoint_dir=tmp_path)
    model = fresh(seed=3)
    model.train(**TRAIN, checkpoint_dir=tmp_path, resume=True)
    assert_same(result(model), uninterrupted[0])
    assert model.is_trained and len(model.validation_indices)


def test_resuming_without_a_checkpoint_begins_a_training(uninterrupted, tmp_path):
    model = fresh()
    model.train(**TRAIN, checkpoint_dir=tmp_path / "a" / "b", resume=True)
    assert_same(result(model), uninterrupted[0])


@needs_fork
@pytest.mark.slow
@pytest.mark.parametrize(
    "train",
    [
        pytest.param({"early_stopping": True, "early_stopping_patience": 1, "plan_kwargs": {"lr": 0.05}}, id="stops early"),
        pytest.param({"train_size": 1.0, "early_stopping": False}, id="no cells held out"),
        pytest.param({"contrastive_batch_size": 24}, id="minibatches in parts"),
        pytest.param({"datasplitter_kwargs": {"num_workers": 1, "multiprocessing_context": "fork"}}, id="a worker process"),
    ],
)  # fmt: skip
def test_killed_trainings_with_other_options_continue_to_the_same_losses(tmp_path, train):
    whole = fresh()
    whole.train(**TRAIN, **train, checkpoint_dir=tmp_path / "whole")
    n_steps = 2 * len(whole.history["train_loss"]) - 3
    status = in_child(
        lambda: fresh().train(**TRAIN, **train, checkpoint_dir=tmp_path / "cut", callbacks=[KillAt(n_steps)])
    )
    assert os.WTERMSIG(status) == signal.SIGKILL
    model = fresh(seed=4)
    model.train(**TRAIN, **train, checkpoint_dir=tmp_path / "cut", resume=True)
    assert_same(result(model), result(whole))


# -- saves that fail -------------------------------


@needs_fork
def test_a_full_disk_leaves_the_previous_checkpoint_and_training_goes_on(uninterrupted, tmp_path):
    """From the second stage on, the system lets no file grow, as on a full disk."""
    import resource

    class FillDisk(Callback):
        def on_train_epoch_start(self, trainer, plan):
            n_stages = read_checkpoint(tmp_path / "training.ckpt")["n_finished"]
            if n_stages == 1 and trainer.current_epoch == 1:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    def work():
        model = fresh()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.train(**TRAIN, checkpoint_dir=tmp_path, callbacks=[FillDisk()])
        said = [str(w.message) for w in caught if "cannot be written" in str(w.message)]
        assert_same(result(model), uninterrupted[0])
        (tmp_path / "said").write_text("\n".join(said))

    assert in_child(work) == 0
    assert "Training goes on" in (tmp_path / "said").read_text()
    state = read_checkpoint(tmp_path / "training.ckpt")
    assert (state["n_finished"], state["epoch"]) == (1, 0)
    assert not list(tmp_path.glob(".*"))
    model = fresh(seed=8)
    model.train(**TRAIN, checkpoint_dir=tmp_path, resume=True)
    assert_same(result(model), uninterrupted[0])


@needs_fork
def test_a_disk_that_is_full_from_the_start_is_an_error(tmp_path):
    import resource

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, resource.RLIM_INFINITY))
        with pytest.raises(ScmambaError, match="checkpoint_dir cannot be used: .* cannot be written"):
            fresh().train(**TRAIN, checkpoint_dir=tmp_path)

    assert in_child(work) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="folders cannot be made read-only for this user")
def test_training_goes_on_in_a_folder_that_becomes_read_only(uninterrupted, tmp_path):
    class Lock(Callback):
        def on_train_epoch_start(self, trainer, plan):
            if trainer.current_epoch == 2:
                tmp_path.chmod(0o500)

    model = fresh()
    try:
        with pytest.warns(UserWarning, match="cannot be written"):
            model.train(**TRAIN, checkpoint_dir=tmp_path, callbacks=[Lock()])
        assert read_checkpoint(tmp_path / "training.ckpt")["epoch"] == 1
    finally:
        tmp_path.chmod(0o700)
    assert_same(result(model), uninterrupted[0])


def test_a_folder_that_cannot_be_created_is_named_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    model = fresh()
    with pytest.raises(ScmambaError, match="checkpoint_dir"):
        model.train(**TRAIN, checkpoint_dir=tmp_path / "file" / "folder")
    assert not model.is_trained


# -- what is refused -------------------------------


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Folder with the checkpoint of a training."""
    folder = tmp_path_factory.mktemp("begun")
    fresh().train(**TRAIN, checkpoint_dir=folder)
    return folder


def other_counts(model):
    model.adata["rna"].X.data[3] += 1


def as_a_query(model):
    model.is_query_ = True


OTHER = {
    "query": ("whether load_query_data made the model changed", {}, {}, as_a_query),
    "model": ("configuration changed", {"dropout": 0.2}, {}, None),
    "learning rate": ("training options changed", {}, {"plan_kwargs": {"lr": 1e-2}}, None),
    "epochs": ("max_epochs changed .*8 then, 10 now", {}, {"max_epochs": 10}, None),
    "minibatch": ("batch_size", {}, {"batch_size": 10}, None),
    "patience": (
        r"train\(early_stopping_patience\) changed .*25, 7.* then, \(3, 3\) now",
        {},
        {"early_stopping_patience": 3},
        None,
    ),
    "clipping": ("gradient_clip_algorithm.* changed", {}, {"gradient_clip_algorithm": "value"}, None),
    "cells scored": ("limit_val_batches.* changed", {}, {"limit_val_batches": 1}, None),
    "last minibatch": ("drop_last changed", {}, {"datasplitter_kwargs": {"drop_last": False}}, None),
    "counts": (r"the counts of mdata\['rna'\] changed", {}, {}, other_counts),
    "cells held out": ("the cells held out", {}, {"train_size": 0.8}, None),
}


@pytest.mark.parametrize("case", OTHER)
def test_a_checkpoint_of_another_training_is_refused(begun, case):
    message, options, train, change = OTHER[case]
    model = fresh(**options)
    if change:
        change(model)
    before = (begun / "training.ckpt").read_bytes()
    with pytest.raises(ResumeError, match=message):
        model.train(**{**TRAIN, **train}, checkpoint_dir=begun, resume=True)
    assert (begun / "training.ckpt").read_bytes() == before and not model.is_trained


def test_a_resume_that_fails_before_the_weights_are_restored_leaves_the_model_as_it_was(begun):
    model = fresh(seed=3)
    with pytest.raises(ScmambaError, match="profiler"):
        model.train(**TRAIN, checkpoint_dir=begun, resume=True, profiler="nonsense")
    assert not model.is_trained and model.history is None
    with pytest.raises(ScmambaError, match="Train the model first"):
        model.get_latent_representation()
    anew = fresh(seed=3)
    for one in (model, anew):
        torch.manual_seed(5)
        one.train(**TRAIN)
    assert_same(result(model), result(anew))


def test_a_checkpoint_is_not_overwritten(begun):
    with pytest.raises(ResumeError, match="resume=True"):
        fresh().train(**TRAIN, checkpoint_dir=begun)
    with pytest.raises(ScmambaError, match="needs the folder"):
        fresh().train(**TRAIN, resume=True)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:3000] + b"\0" * 99 + b[3099:]]
)
def test_a_damaged_checkpoint_is_named(begun, tmp_path, damage):
    (tmp_path / "training.ckpt").write_bytes(damage((begun / "training.ckpt").read_bytes()))
    with pytest.raises(ResumeError, match="cannot be read|not the checkpoint"):
        fresh().train(**TRAIN, checkpoint_dir=tmp_path, resume=True)


def test_reading_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"format": "scmamba-scvi training", "x": Evil()}, tmp_path / "training.ckpt")
    with pytest.raises(ResumeError, match="cannot be read"):
        fresh().train(**TRAIN, checkpoint_dir=tmp_path, resume=True)
    assert not (tmp_path / "owned").exists()


# -- Ctrl-C -------------------------------


class PressCtrlC(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_leaves_a_usable_model_and_a_checkpoint_to_continue_from(uninterrupted, tmp_path):
    model = fresh()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.train(**TRAIN, checkpoint_dir=tmp_path, callbacks=[PressCtrlC()])
    assert any("interrupted" in str(w.message) for w in caught)
    assert model.is_trained and len(model.history["train_loss"]) == 3
    assert np.isfinite(model.get_latent_representation()).all()
    again = fresh(seed=6)
    again.train(**TRAIN, checkpoint_dir=tmp_path, resume=True)
    assert_same(result(again), uninterrupted[0])


class PressCtrlCTwice(Callback):
    def on_train_batch_end(self, *_):  # of the first minibatch: early stopping may leave no later epoch
        signal.raise_signal(signal.SIGINT)  # in this thread, so that both are handled
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def ctrl_c_interrupts():
    """A shell starts what runs in the background with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_is_one_and_leaves_a_usable_model_and_ctrl_c_as_it_was(ctrl_c_interrupts):
    """Lightning ends the process then, with Ctrl-C switched off: in a notebook nothing could be stopped any more."""
    model = fresh()
    with pytest.raises(KeyboardInterrupt, match="Training was stopped"):
        model.train(**TRAIN, callbacks=[PressCtrlCTwice()])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert model.training_summary_["interrupted"]
    assert np.isfinite(model.get_latent_representation()).all()


def test_ctrl_c_is_left_to_a_program_around_python(monkeypatch):
    """R handles it itself, and Python could not give it back: nothing in R could be stopped any more."""
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("the handler was replaced"))
    StopOnInterrupt().on_train_start(trainer=None, pl_module=None)


def test_a_training_that_a_batch_system_ends_is_no_success():
    class Terminated(Callback):
        def on_train_epoch_end(self, *_):
            os.kill(os.getpid(), signal.SIGTERM)

    model = fresh()
    with pytest.raises(SystemExit) as stopped:
        model.train(**TRAIN, callbacks=[Terminated()])
    assert stopped.value.code == 128 + signal.SIGTERM
    assert model.is_trained


def test_the_checkpoint_stays_in_its_folder_where_the_process_changes_to_another(tmp_path, monkeypatch):
    class Moves(Callback):
        def on_train_epoch_end(self, *_):
            monkeypatch.chdir(elsewhere)

    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    fresh().train(**TRAIN, checkpoint_dir="begun", callbacks=[Moves()])
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("n_before", [0, 1])
def test_a_model_whose_joint_embedding_was_not_fitted_is_not_trained(monkeypatch, n_before):
    """Its joint embedding would be zero, or that of the encoders of the training before."""
    model = fresh()
    for _ in range(n_before):
        model.train(**TRAIN)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit_joint", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.train(**TRAIN)
    with pytest.raises(ScmambaError, match="Train the model first"):
        model.get_latent_representation()
    model.train(**TRAIN)
    z = model.get_latent_representation()
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)
