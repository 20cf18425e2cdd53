"""Gradient caching: a loss over many cells with the activations of a few."""

import gc
import re
import weakref

import mudata
import numpy as np
import pytest
import torch
from logged import logged

from scmamba_scvi import SCMAMBA
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.model.training.sizes import choose_sizes
from scmamba_scvi.nn.gradient_caching import split_minibatch
from scmamba_scvi.nn.memory import saved_bytes

DETERMINISTIC = {"mask_rate": 0.0, "dropout": 0.0}
ENCODERS = [
    pytest.param({"encoder": "linear"}, id="linear"),
    pytest.param({"encoder": "mlp"}, id="mlp"),
    # branches that start near zero pool all cells to almost the same: dividing by their spread would magnify rounding
    pytest.param({"encoder": "mamba", "layer_scale": 1.0}, id="mamba with statistics over the cells"),
    pytest.param({"encoder": "mamba", "pool_norm": "none"}, id="mamba without"),
]


def with_gaps(mdata):
    """Some cells have one modality only."""
    return mudata.MuData({"rna": mdata["rna"][:170].copy(), "atac": mdata["atac"][40:].copy()})


def module_and_batch(mdata, **options):
    SCMAMBA.setup_mudata(mdata)
    torch.manual_seed(0)
    model = SCMAMBA(mdata, n_latent=16, **options)
    model._initialize(np.arange(mdata.n_obs), np.arange(0))
    for encoder in model.module.encoders.values():
        if encoder.gate is not None:
            encoder.gate.data.fill_(0.5)
    return model.module.train(), model.adata_manager.create_torch_dataset()[np.arange(mdata.n_obs)]


def gradients(module):
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad(set_to_none=True)
    return found


def assert_same(found, expected):
    """No parameter's gradient differs by more than 1e-5 of the length of the whole gradient."""
    assert found.keys() == expected.keys() and found
    length = torch.stack([value.norm() for value in expected.values()]).norm()
    for name, value in expected.items():
        assert float((found[name] - value).norm() / length) < 1e-5, name


@pytest.mark.parametrize("options", ENCODERS)
@pytest.mark.parametrize("gaps", [False, True], ids=["all cells paired", "cells that lack modalities"])
def test_loss_gradient_and_statistics_are_those_of_one_minibatch(mdata, options, gaps):
    mdata = with_gaps(mdata) if gaps else mdata
    module, batch = module_and_batch(mdata, **DETERMINISTIC, **options)
    buffers = {name: b.clone() for name, b in module.named_buffers()}
    results = []
    for size in (None, 32, 7):
        module.load_state_dict(buffers, strict=False)
        loss = module(batch, inference_kwargs={"micro_batch_size": size})[2].loss
        loss.backward()
        statistics = {name: b.clone() for name, b in module.named_buffers() if "running" in name}
        results.append((loss.detach(), gradients(module), statistics))
    for loss, gradient, statistics in results[1:]:
        torch.testing.assert_close(loss, results[0][0], atol=1e-5, rtol=0)
        assert_same(gradient, results[0][1])
        for name, value in results[0][2].items():
            assert not torch.equal(value, buffers[name])  # updated, and below: updated once only
            torch.testing.assert_close(statistics[name], value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("options", ENCODERS)
def test_both_readings_hide_the_same_input(mdata, options):
    module, batch = module_and_batch(mdata, mask_rate=0.5, dropout=0.3, **options)
    torch.manual_seed(5)
    cached = module(batch, inference_kwargs={"micro_batch_size": 48})[2].loss
    torch.manual_seed(6)  # random draws between forward and backward pass change nothing
    cached.backward()
    found = gradients(module)
    torch.manual_seed(5)
    parts = [module._all_per_cell(part) for part in split_minibatch(batch, 48)]
    present = {kind: batch.get(f"present_{kind}") for kind in module.kinds}
    z = {k: module._across_cells(torch.cat([part[k] for part in parts]), k, here) for k, here in present.items()}
    direct = module.loss(batch, {"z": z, "present": present}, {}).loss
    direct.backward()
    torch.testing.assert_close(cached, direct)
    assert_same(found, gradients(module))


def test_only_activations_of_one_part_are_in_memory(mdata):
    module, batch = module_and_batch(mdata, **DETERMINISTIC)
    whole = saved_bytes(module, lambda: module(batch)[2].loss)
    parts = saved_bytes(module, lambda: module(batch, inference_kwargs={"micro_batch_size": 10})[2].loss)
    assert parts < whole / 5


def test_a_minibatch_is_split_into_few_nearly_equal_parts():
    batch = {"x": torch.eye(23).to_sparse_csr(), "y": torch.arange(23)[:, None]}
    parts = list(split_minibatch(batch, 10))
    assert [len(part["y"]) for part in parts] == [7, 8, 8]
    torch.testing.assert_close(torch.cat([part["x"].to_dense() for part in parts]), torch.eye(23))
    torch.testing.assert_close(torch.cat([part["y"] for part in parts]), batch["y"])


def test_training_compares_more_cells_than_it_reads_together():
    mdata = simulate_multiome(n_cells=400, n_genes=150, n_peaks=400, n_batches=2, seed=0)
    mdata = mudata.MuData({"rna": mdata["rna"][:380].copy(), "atac": mdata["atac"][20:].copy()})
    mdata.obs["donor"] = (np.arange(400) % 2).astype(str)
    SCMAMBA.setup_mudata(mdata, batch_key="donor")
    model = SCMAMBA(mdata)
    with logged() as lines:
        model.train(max_epochs=4, batch_size=32, contrastive_batch_size=128, accelerator="cpu")
    assert "minibatches of 128 (32 at a time)" in lines[0]
    assert model.training_summary_["contrastive_batch_size"] == 128
    assert model.history["train_loss"].notna().all().all()
    assert model.history["contrastive_train"].iloc[-1].item() > np.log(32)  # more negatives than a micro-batch has
    assert np.isfinite(model.get_latent_representation()).all()


def test_steps_of_more_cells_than_are_named_for_training_are_refused(mdata, quick):
    SCMAMBA.setup_mudata(mdata)
    split = {"external_indexing": [np.arange(50), np.arange(50, 80), np.arange(80, 200)]}
    with pytest.raises(ScmambaError, match="more than the 50 training cells"):
        SCMAMBA(mdata).train(batch_size=20, contrastive_batch_size=100, datasplitter_kwargs=split, **quick)


def run_short_of_memory(block, limit, where):
    """Fail as a GPU does when more than ``limit`` cells of a training step come through ``block`` at once."""

    def fail(cells, training):
        if training and len(cells) > limit:
            raise torch.cuda.OutOfMemoryError(f"out of memory in the {where} pass")

    if where == "forward":
        block.register_forward_hook(lambda module, inputs, output: fail(output[0], torch.is_grad_enabled()))
    else:
        block.register_full_backward_hook(lambda module, to_input, to_output: fail(to_output[0], True))


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize(
    ("sizes", "advice"),
    [
        pytest.param(
            {"batch_size": 80}, r"80 cells. Pass batch_size=40 and contrastive_batch_size=80", id="a minibatch"
        ),
        pytest.param(
            {"batch_size": 45, "contrastive_batch_size": 180},
            r"45 cells. Pass batch_size=22 and contrastive_batch_size=176",
            id="a minibatch in parts",
        ),
    ],
)  # fmt: skip
def test_running_out_of_memory_says_which_sizes_to_pass(mdata, quick, where, sizes, advice):
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, n_latent=16, gate_init=0.5)
    run_short_of_memory(model.module.encoders["atac"].network.blocks[0], 40, where)
    with pytest.raises(ScmambaError, match=advice + ".*checkpoint_activations"):
        model.train(**sizes, **quick)
    half, compared = (int(n) for n in re.findall(r"=(\d+)", advice))
    choose_sizes(200, 180, half, compared, None)  # raises if they do not fit
    model.train(batch_size=half, contrastive_batch_size=compared, **quick)
    assert model.is_trained


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_activations_of_the_step_that_ran_out_of_memory_are_gone_when_cells_are_embedded(
    mdata, quick, monkeypatch, where
):
    """What is fitted to the weights that are kept would run out too, and its error take the place of the message."""
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, n_latent=16, gate_init=0.5)
    block = model.module.encoders["atac"].network.blocks[0]
    run, activations, alive = block.forward, [], []

    def run_short(*args):  # torch's own hooks would keep the activations themselves
        total, added = run(*args)
        if len(total) > 40 and total.requires_grad:
            activations.append(weakref.ref(total))
            total.register_hook(fail) if where == "backward" else fail()
        return total, added

    def fail(*_):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(block, "forward", run_short)

    def embed(self, *_):
        alive.append(activations[-1]() is not None)

    monkeypatch.setattr(SCMAMBA, "_fit_joint_embedding", embed)
    gc.collect()
    gc.disable()  # a GPU does not wait for garbage to be collected
    try:
        with pytest.raises(ScmambaError, match="no memory for the activations"):
            model.train(batch_size=80, **quick)
    finally:
        gc.enable()
    assert alive == [False]
