from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scmamba_scvi.config import resolve_config
from scmamba_scvi.nn import sequence
from scmamba_scvi.nn.sequence import SequenceNetwork

SIZES = {"d_model": 16, "headdim": 8, "d_state": 8, "d_mlp": 32, "n_layers": 2, "n_latent": 4, "d_head": 0, "linear_branch": False,
         "d_feature": 8, "layer_scale": 0.5, "gate_init": 1.0}  # fmt: skip


def make(**options):
    torch.manual_seed(0)
    return SequenceNetwork(resolve_config("small", **{**SIZES, **options}), "rna", 20).eval()


def tokens(n=3, c=20):
    return torch.randn(n, c, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("attention_layers", [(), (1,)], ids=["mamba_last", "attention_last"])
@pytest.mark.parametrize("pooling", ["mean", "last", "mean+last"])
def test_pooling_is_that_of_all_tokens_of_all_blocks(pooling, attention_layers):
    network, h = make(pooling=pooling, attention_layers=attention_layers), tokens()
    expected = h
    for block in network.blocks:
        expected = sum(block(expected))
    expected = network.norm(expected)
    pooled = {"mean": expected.mean(1), "last": expected[:, -1], "mean+last": expected.mean(1) + expected[:, -1]}[
        pooling
    ]
    torch.testing.assert_close(network(h), pooled, rtol=1e-4, atol=1e-6)


def test_slices_change_neither_values_nor_gradients(monkeypatch):
    network, results = make(), []
    one_cell = tokens(n=1).numel()
    for size in (100 * one_cell, 2 * one_cell, 1):  # all cells, two cells, one cell at a time
        monkeypatch.setattr(sequence, "CPU_SLICE_SIZE", size)
        h = tokens(n=5).requires_grad_()
        pooled = network(h)
        parameters = list(network.parameters())
        found = torch.autograd.grad(pooled.square().sum(), [h, *parameters], allow_unused=True, materialize_grads=True)
        results.append([pooled, *found])
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def flops(network):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(tokens())
    return counter.get_total_flops()


@pytest.mark.parametrize("n_layers", [1, 3])
def test_the_last_block_computes_only_what_is_pooled(n_layers):
    per_block = flops(make(n_layers=2)) - flops(make(n_layers=1))
    assert flops(make(n_layers=n_layers, pooling="last")) < flops(make(n_layers=n_layers)) - per_block / 2
