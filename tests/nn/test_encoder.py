from __future__ import annotations

import pytest
import torch

from scmamba_scvi.config import resolve_config
from scmamba_scvi.nn.encoder import Encoder


@pytest.mark.parametrize("as_sparse", [False, True], ids=["dense", "sparse"])
def test_inputs_are_masked_in_training_only(as_sparse):
    torch.manual_seed(0)
    model = Encoder(resolve_config("small", encoder="linear", mask_rate=0.5), "rna", torch.arange(200), 8, 25)
    x = torch.rand(6, 200)
    x = x.to_sparse_csr() if as_sparse else x
    assert torch.equal(model.eval()(x), model(x))
    assert not torch.allclose(model.train()(x), model(x), atol=1e-2)
    model.mask_rate = 0.0
    assert torch.equal(model(x), model.eval()(x))


def statistics(model):
    return {name: b.clone() for name, b in model.named_buffers() if "running" in name}


def test_a_frozen_network_keeps_its_statistics_in_training_and_uses_them():
    torch.manual_seed(0)
    model = Encoder(resolve_config("small", mask_rate=0.0, dropout=0.0, gate_init=1.0), "rna", torch.arange(200), 8, 25)
    x = torch.rand(50, 200)
    model.train()(x)
    before = statistics(model)
    expected = model.eval()(x)
    for parameter in model.network_parameters():
        parameter.requires_grad_(parameter is model.gate)
    torch.testing.assert_close(model.train()(x), expected, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in statistics(model).items())


@pytest.mark.parametrize("gate", [0.0, 1.0])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_network_is_left_out_only_where_it_neither_adds_nor_learns(gate, frozen):
    torch.manual_seed(0)
    model = Encoder(resolve_config("small", gate_init=gate), "rna", torch.arange(200), 8, 25).eval()
    x, runs = torch.rand(6, 200), []
    expected = model(x)
    model.network.register_forward_hook(lambda *_: runs.append(1))
    model.gate.requires_grad_(not frozen)
    torch.testing.assert_close(model(x), expected, rtol=1e-6, atol=1e-6)
    assert bool(runs) == (gate != 0 or not frozen)


@pytest.mark.parametrize("as_sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("encoder", ["mamba", "mlp", "linear"])
def test_autocast_does_not_round_the_linear_branch(encoder, as_sparse):
    torch.manual_seed(0)
    model = Encoder(resolve_config("small", encoder=encoder), "rna", torch.arange(200), 8, 25).eval()
    x = torch.rand(6, 200, generator=torch.Generator().manual_seed(1))
    x = x.to_sparse_csr() if as_sparse else x
    exact = model(x)  # the gate is zero: nothing of the network is added
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x), exact, rtol=1e-6, atol=1e-6)


def test_autocast_rounds_neither_batch_statistics_nor_the_unit_length():
    torch.manual_seed(0)
    model = Encoder(
        resolve_config("small", mask_rate=0.0, dropout=0.0, gate_init=1.0), "rna", torch.arange(200), 8, 25
    ).train()
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.hidden(torch.rand(50, 200))
        z = model.embed(hidden)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(50), rtol=1e-6, atol=1e-6)
    pooled = hidden[:, -64:].double()
    torch.testing.assert_close(model.head.pool_norm.running_mean.double(), 0.1 * pooled.mean(0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(model.embed(hidden), z, rtol=1e-6, atol=1e-6)  # the head is not rounded either
