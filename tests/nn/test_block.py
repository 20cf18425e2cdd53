from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scmamba_scvi.nn.attention import Attention
from scmamba_scvi.nn.block import Block, GatedMLP
from scmamba_scvi.nn.mamba2 import Mamba2

MIXERS = {
    "mamba": lambda: Mamba2(8, d_state=4, expand=1, headdim=4),
    "mamba_both_ways": lambda: Mamba2(8, d_state=4, expand=1, headdim=4, bidirectional=True),
    "attention": lambda: Attention(8, n_heads=2),
}


def make(mixer="mamba", layer_scale=None):
    torch.manual_seed(0)
    return Block(8, MIXERS[mixer](), d_mlp=16, layer_scale=layer_scale)


def tokens(n=3, c=6):
    return torch.randn(n, c, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("layer_scale", [None, 0.3])
def test_output_is_the_sum_of_the_branches(mixer, layer_scale):
    block, x = make(mixer, layer_scale=layer_scale), tokens()
    factor = 1.0 if layer_scale is None else layer_scale
    expected = x + factor * block.mixer(F.rms_norm(x, (8,), eps=1e-5))
    expected = expected + factor * block.mlp(F.rms_norm(expected, (8,), eps=1e-5))
    torch.testing.assert_close(sum(block(x)), expected, rtol=1e-4, atol=1e-6)


def test_mlp_is_a_gate_between_two_linear_maps():
    mlp, x = GatedMLP(8, 5), tokens()
    a, b = (x @ mlp.in_proj.weight.T).split(5, -1)
    torch.testing.assert_close(mlp(x), (a * b * torch.sigmoid(b)) @ mlp.out_proj.weight.T, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_block_with_zero_scale_is_the_identity_and_can_leave_it(mixer):
    block, x = make(mixer, layer_scale=0.0), tokens()
    assert torch.equal(sum(block(x)), x)
    sum(block(x)).square().sum().backward()
    assert block.scale.grad.abs().sum() > 0
    assert block.scale2.grad.abs().sum() > 0


def test_scales_exist_only_where_asked_for():
    names = {name.split(".")[0] for name, _ in make().named_parameters()}
    assert names == {"norm", "mixer", "norm2", "mlp"}
    names = {name.split(".")[0] for name, _ in make(layer_scale=0.1).named_parameters()}
    assert names == {"norm", "mixer", "scale", "norm2", "mlp", "scale2"}


def test_autocast_leaves_the_residual_in_float32():
    block, x = make(layer_scale=0.0), tokens()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sum(block(x)), x)


def values_and_gradients(function, x, parameters):
    x = x.detach().requires_grad_()
    y = function(x)
    found = torch.autograd.grad(y.square().sum(), [x, *parameters], allow_unused=True, materialize_grads=True)
    return [y.detach(), *found]


@pytest.mark.parametrize("c", [1, 2, 40])
@pytest.mark.parametrize("mixer", MIXERS)
def test_the_last_token_alone_is_that_of_the_whole_block(mixer, c):
    block = make(mixer, layer_scale=0.5).double()
    x, parameters = tokens(c=c).double(), list(block.parameters())
    alone = values_and_gradients(lambda x: sum(block(x, last_only=True)), x, parameters)
    whole = values_and_gradients(lambda x: sum(block(x))[:, -1:], x, parameters)
    for a, b in zip(alone, whole, strict=True):
        # step sizes are float32 in any case
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def kept_tokens(block, x):
    """Dtypes of what the backward pass keeps that has the shape of the tokens."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append((t.shape, t.dtype)) or t, lambda t: t):
        block(x.requires_grad_())
    return {dtype for shape, dtype in kept if shape == x.shape}


def test_under_autocast_tokens_are_kept_in_the_dtype_of_the_products_that_read_them():
    block = make()
    with torch.autocast("cpu", torch.bfloat16):
        assert kept_tokens(block, tokens()) == {torch.bfloat16}
        assert sum(block(tokens())).dtype is torch.float32
    assert kept_tokens(block, tokens()) == {torch.float32}


@pytest.mark.parametrize("mixer", MIXERS)
def test_two_terms_give_what_their_sum_gives(mixer):
    block, x, added = make(mixer, layer_scale=0.3), tokens(), 0.1 * tokens().flip(1)
    torch.testing.assert_close(sum(block(x, added)), sum(block(x + added)), rtol=1e-5, atol=1e-6)


def test_weights_of_the_norms_count():
    block, x = make(layer_scale=0.3), tokens()
    with torch.no_grad():
        for weight in (block.norm.weight, block.norm2.weight, block.mixer.norm.weight):
            weight.copy_(torch.rand_like(weight))
    plain = x + block.scale * block.mixer(block.norm(x))
    plain = plain + block.scale2 * block.mlp(block.norm2(plain))
    torch.testing.assert_close(sum(block(x)), plain, rtol=1e-5, atol=1e-6)
