"""Training on several devices: two processes on one machine, over gloo."""

import datetime
import os
import re
import subprocess
import sys
import warnings

import mudata
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from shapes import TINY, mudata_of, poisson
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler

from scmamba_scvi import SCMAMBA
from scmamba_scvi.data import convert_mudata, simulate_multiome
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.model.training.distributed import count_devices, distributed_trainer
from scmamba_scvi.model.training.splitter import PartOfMinibatch
from scmamba_scvi.nn.gradient_caching import split_minibatch

#: Nothing is drawn at random, so that gradients can be compared.
WITHOUT_CHANCE = {"mask_rate": 0.0, "dropout": 0.0}
CASES = {
    "linear": {"encoder": "linear"},
    "mlp": {"encoder": "mlp"},
    "statistics over cells": {"encoder": "mamba", "layer_scale": 1.0},
    "linear first": {"encoder": "mamba"},
    "no statistics": {"encoder": "mamba", "pool_norm": "none"},
}


# -- the loss -------------------------------------------------------------------------------------------------------


def on_rank(number, folder, names):
    # a process that waits in vain for the other ends in an error
    timeout = datetime.timedelta(seconds=30)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2, timeout=timeout)
    torch.set_num_threads(1)
    for name in names:
        module, batch = torch.load(f"{folder}/{name}.pt", weights_only=False)
        for size in (None, 24):
            found = step(module, list(split_minibatch(batch, 64))[number], size, name, wrap=DistributedDataParallel)
            torch.save(found, f"{folder}/{name}-{size}-{number}.pt")
    dist.destroy_process_group()


def step(module, batch, micro_batch_size, name, wrap=lambda module: module):
    """Loss, gradients and buffers after a training step; the module stays as it was."""
    buffers = {name: b.clone() for name, b in module.named_buffers()}
    with module.train().freezing(networks=name == "linear first"):
        wrapped = wrap(module)
        options = {"micro_batch_size": micro_batch_size, "gather": dist.is_initialized()}
        loss = wrapped(batch, inference_kwargs=options)[2].loss
        loss.backward()
    found = loss.detach(), {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
    statistics = {n: b.clone() for n, b in module.named_buffers() if "running" in n}
    module.zero_grad(set_to_none=True)
    module.load_state_dict(buffers, strict=False)
    return *found, statistics


@pytest.mark.slow
def test_loss_and_gradients_of_two_processes_with_64_cells_are_those_of_128(tmp_path):
    mdata = simulate_multiome(n_cells=128, n_genes=150, n_peaks=400, n_cell_types=3, seed=1)
    gaps = mudata.MuData({"rna": mdata["rna"][10:].copy(), "atac": mdata["atac"][:60].copy()})
    for name, options in CASES.items():
        # in one case the second process has no cell with ATAC at all
        mdata = gaps if name == "no statistics" else mdata
        SCMAMBA.setup_mudata(mdata)
        torch.manual_seed(0)
        model = SCMAMBA(mdata, n_latent=16, **WITHOUT_CHANCE, **options)
        model._initialize(np.arange(mdata.n_obs), np.arange(0))
        for encoder in model.module.encoders.values():
            if encoder.gate is not None:
                encoder.gate.data.fill_(0.0 if name == "linear first" else 0.5)
        batch = model.adata_manager.create_torch_dataset()[np.argsort(mdata.obs_names.str[5:].astype(int))]
        torch.save((model.module, batch), tmp_path / f"{name}.pt")
    compare_two_processes_with_one(tmp_path, CASES)


@pytest.mark.parametrize(
    "n_cells", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 2))], ids="cells with ATAC: {}".format
)
def test_few_cells_of_one_process_have_a_modality(tmp_path, n_cells):
    torch.manual_seed(0)
    mdata = mudata_of({kind: poisson(128, 30, seed=i) for i, kind in enumerate(("rna", "atac", "protein"))})
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, **{**TINY, **WITHOUT_CHANCE}, layer_scale=1.0, gate_init=0.5)
    model._initialize(np.arange(128), np.arange(0))
    batch = model.adata_manager.create_torch_dataset()[np.arange(128)]
    has_atac = torch.arange(128) < n_cells
    counts = batch["X_atac"].to_dense() * has_atac[:, None]
    batch |= {"present_atac": has_atac, "X_atac": counts.to_sparse_csr()}
    torch.save((model.module, batch), tmp_path / "few.pt")
    compare_two_processes_with_one(tmp_path, ["few"])


@pytest.mark.parametrize("encoder", ["mamba", "mlp", "linear"])
def test_a_process_without_a_cell_of_the_last_minibatch_takes_part_in_the_step(encoder):
    """With ``drop_last=False`` one cell may be left for two processes; each waits for a gradient of every weight from the other."""
    mdata = mudata_of({"rna": poisson(40, 30), "atac": poisson(40, 20)}, n_absent=10)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder=encoder, **TINY)
    (part,) = PartOfMinibatch(BatchSampler([7], 8, drop_last=False), rank=1, world_size=2)
    module = model.module.train()
    outputs, _, output = module(model._dataset()[part])
    assert not part and all(z.shape == (0, TINY["n_latent"]) for z in outputs["z"].values())
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in module.parameters() if parameter.requires_grad)


def compare_two_processes_with_one(folder, names):
    """Loss, gradients and statistics of the minibatches in ``folder``, divided between two processes, and in one."""
    mp.spawn(on_rank, (str(folder), list(names)), nprocs=2)
    for name in names:
        loss, gradient, statistics = step(*torch.load(folder / f"{name}.pt", weights_only=False), None, name)
        length = torch.stack([value.norm() for value in gradient.values()]).norm()
        for size in (None, 24):
            for number in (0, 1):
                found = torch.load(folder / f"{name}-{size}-{number}.pt")
                torch.testing.assert_close(found[0], loss, atol=1e-5, rtol=0)
                assert found[1].keys() == gradient.keys()
                for parameter, value in gradient.items():
                    assert float((found[1][parameter] - value).norm() / length) < 1e-5, (name, size, parameter)
                for buffer, value in statistics.items():
                    torch.testing.assert_close(found[2][buffer], value, atol=1e-6, rtol=1e-5)


# -- what Lightning is told -----------------------------------------------------------------------------------------


def test_devices_are_counted_and_strategies_that_cannot_train_are_refused():
    assert count_devices("cpu", "auto") == 1
    assert count_devices("cpu", 2, num_nodes=3, strategy="ddp_notebook") == 6
    assert count_devices("cpu", 1, strategy="fsdp") == 1  # on one device any strategy trains
    for strategy in ("fsdp", "ddp_spawn"):  # parts of the model on every device; processes that start empty
        with pytest.raises(ScmambaError, match="leave it out, or choose among .*ddp_notebook"):
            count_devices("cpu", 2, strategy=strategy)


def test_nothing_is_written_where_the_user_works():
    given = {"strategy": DDPStrategy()}
    with distributed_trainer(2, given) as (trainer, report):
        assert isinstance(trainer["strategy"], DDPStrategy) and trainer["strategy"] is not given["strategy"]
        assert trainer["log_save_dir"] and report.parent.is_dir()
    assert not report.parent.exists()
    for strategy in ("auto", "ddp", DDPStrategy()):
        with distributed_trainer(1, {"strategy": strategy}) as (trainer, report):
            assert trainer == {"strategy": "auto"} and report is None


@pytest.mark.parametrize(
    "strategy", ["ddp", DDPStrategy(), SingleDeviceStrategy("cpu")], ids=lambda strategy: type(strategy).__name__
)
def test_one_device_trains_both_stages_with_any_strategy_and_writes_nothing(strategy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mdata = simulate_multiome(n_cells=60, n_genes=30, n_peaks=40, n_cell_types=2, seed=1)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, **TINY)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "early_stopping was automatically disabled")
        model.train(max_epochs=2, accelerator="cpu", devices=1, strategy=strategy, enable_progress_bar=False)
    assert list(model.history["train_loss"].index) == [0, 1]
    assert not list(tmp_path.iterdir()) and not dist.is_initialized()


def test_buffers_are_not_sent_in_every_step_and_torch_warns_of_nothing(tmp_path):
    with distributed_trainer(2, {}) as (trainer, _):
        options = trainer["strategy"]._ddp_kwargs
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        with warnings.catch_warnings(action="error", category=FutureWarning):
            wrapped = DistributedDataParallel(torch.nn.BatchNorm1d(2), **options)
    finally:
        dist.destroy_process_group()
    assert not getattr(wrapped, "forward_sync_buffers", getattr(wrapped, "broadcast_buffers", None))


@pytest.mark.parametrize("where", [{"devices": 2}, {"devices": 1, "num_nodes": 2}, {"devices": 2, "strategy": "ddp"}])
@pytest.mark.parametrize("resume", [False, True], ids=["from the start", "resumed"])
def test_a_checkpoint_of_several_devices_is_refused_before_anything_is_written(tmp_path, where, resume):
    mdata = simulate_multiome(n_cells=60, n_genes=30, n_peaks=40, n_cell_types=2, seed=1)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, n_latent=4, encoder="linear")
    with pytest.raises(ScmambaError, match="one device, this would be on 2.*leave checkpoint_dir out"):
        model.train(checkpoint_dir=tmp_path / "run", resume=resume, accelerator="cpu", **where)
    assert not (tmp_path / "run").exists() and not dist.is_initialized() and not model.is_trained


# -- a whole training -------------------------------------------------------------------------------------------------

#: Run by one process and by two. Every step sees all training cells, so their order makes no difference.
SCRIPT = """
import sys
import numpy as np, torch
from lightning.pytorch.callbacks import Callback
from scmamba_scvi import SCMAMBA
from scmamba_scvi.data import open_mudata, simulate_multiome

devices, batch_size, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
store = sys.argv[4] if len(sys.argv) > 4 else None

class Reads(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        reads.append((not pl_module.module.encoders["rna"].runs_network, trainer.current_epoch, batch["labels"].ravel()))

reads = []
mdata = simulate_multiome(n_cells=400, n_genes=150, n_peaks=400, n_cell_types=3, seed=1)
if store is not None:
    mdata = open_mudata(store)
mdata.obs["number"] = np.arange(400).astype(str)
SCMAMBA.setup_mudata(mdata, labels_key="number")
torch.manual_seed(0)
model = SCMAMBA(mdata, n_latent=16, mask_rate=0.0, dropout=0.0)
model.train(max_epochs=6, contrastive_batch_size=360, batch_size=batch_size, devices=devices, accelerator="cpu",
            early_stopping_patience=2, callbacks=[Reads()])
rank = model.trainer.global_rank
history = {name: table.astype(float).to_numpy().ravel() for name, table in model.history.items()}
torch.save({"history": history, "summary": model.training_summary_, "reads": reads,
            "rna": model.get_latent_representation(modality="rna"), "joint": model.get_latent_representation()},
           f"{out}-{rank}.pt")
"""


def launch(folder, script, n_processes, *arguments):
    (folder / "script.py").write_text(script)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n_processes}"]
    command = [sys.executable, *(launcher if n_processes > 1 else []), "script.py", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)


def run(folder, devices, batch_size, *store):
    done = launch(folder, SCRIPT, devices, devices, batch_size, devices, *store)
    assert done.returncode == 0, done.stderr[-3000:]
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).split()), [
        torch.load(folder / f"{devices}-{i}.pt", weights_only=False) for i in range(devices)
    ]


@pytest.mark.slow
def test_two_processes_train_the_model_that_one_trains(tmp_path):
    _, (one,) = run(tmp_path, 1, 180)
    said, two = run(tmp_path, 2, 60)
    assert said.count("Training on 2 cpu devices") == 1 and "360 (60 at a time on each device)" in said
    assert {p.name for p in tmp_path.iterdir()} == {"script.py", "1-0.pt", "2-0.pt", "2-1.pt"}
    for name in ("train_loss", "foscttm_validation", "recall_at_10_validation", "modality_gap_validation"):
        np.testing.assert_allclose(two[0]["history"][name], one["history"][name], atol=2e-4)
    for of_rank in two:
        assert of_rank["summary"]["best_epoch"] == one["summary"]["best_epoch"]
        assert of_rank["summary"]["best"] == pytest.approx(one["summary"]["best"], abs=2e-4)
        for name, score in one["summary"]["start"].items():  # the loss depends on the size of the last minibatch
            assert name == "validation_loss" or of_rank["summary"]["start"][name] == pytest.approx(score, abs=1e-5)
        for embedding in ("rna", "joint"):
            np.testing.assert_allclose(of_rank[embedding], one[embedding], atol=5e-3)
    epochs = [[(linear, epoch) for linear, epoch, _ in of_rank["reads"]] for of_rank in two]
    assert epochs[0] == epochs[1] == [(linear, epoch) for linear, epoch, _ in one["reads"]]
    for (*_, first), (*_, second) in zip(two[0]["reads"], two[1]["reads"], strict=True):
        assert len(first) == len(second) == 180 and len(torch.cat([first, second]).unique()) == 360


@pytest.mark.slow
def test_two_processes_each_read_their_part_of_a_store_and_start_from_what_the_first_found(tmp_path):
    path = tmp_path / "cells.h5mu"
    simulate_multiome(n_cells=400, n_genes=150, n_peaks=400, n_cell_types=3, seed=1).write_h5mu(path)
    store = convert_mudata(path, tmp_path / "cells.zarr")
    _, (one,) = run(tmp_path, 1, 180, store)
    _, two = run(tmp_path, 2, 60, store)
    for name, score in one["summary"]["start"].items():
        for of_rank in two:  # the second process has fitted nothing itself
            assert name == "validation_loss" or of_rank["summary"]["start"][name] == pytest.approx(score, abs=1e-5)
    np.testing.assert_allclose(two[0]["history"]["train_loss"], one["history"]["train_loss"], atol=2e-4)
    np.testing.assert_allclose(two[0]["joint"], two[1]["joint"], atol=1e-5)
    for (*_, first), (*_, second) in zip(two[0]["reads"], two[1]["reads"], strict=True):
        assert len(torch.cat([first, second]).unique()) == 360


REFUSED = """
import os, sys
from scmamba_scvi import SCMAMBA
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError

mdata = simulate_multiome(n_cells=60, n_genes=30, n_peaks=40, n_cell_types=2, seed=1)
SCMAMBA.setup_mudata(mdata)
model = SCMAMBA(mdata, n_latent=4, encoder="linear")
try:
    model.train(max_epochs=2, checkpoint_dir="run", resume=True, devices=2, strategy="ddp", accelerator="cpu")
except ScmambaError as error:
    open(f"{os.environ['RANK']}.txt", "w").write(str(error))
"""


@pytest.mark.slow
def test_two_processes_are_refused_a_checkpoint_and_none_waits_for_the_other(tmp_path):
    done = launch(tmp_path, REFUSED, 2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {p.name for p in tmp_path.iterdir()} == {"script.py", "0.txt", "1.txt"}
    for rank in (0, 1):
        assert "one device" in (tmp_path / f"{rank}.txt").read_text()
