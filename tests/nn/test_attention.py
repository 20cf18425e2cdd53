from __future__ import annotations

import math

import pytest
import torch

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.nn.attention import Attention, rotate


def tokens(n=2, c=9, d=8):
    return torch.randn(n, c, d, generator=torch.Generator().manual_seed(0))


def make(**kwargs):
    torch.manual_seed(0)
    return Attention(8, n_heads=2, **kwargs)


def test_output_is_softmax_attention_written_out():
    layer, u = make(), tokens()
    q, k, v = (u @ layer.in_proj.weight.T).split(8, -1)
    out = torch.zeros_like(u)
    for head in (slice(0, 4), slice(4, 8)):
        for t in range(u.shape[1]):
            scores = torch.einsum("nj,ncj->nc", q[:, t, head], k[:, : t + 1, head]) / math.sqrt(4)
            out[:, t, head] = torch.einsum("nc,ncj->nj", scores.softmax(-1), v[:, : t + 1, head])
    torch.testing.assert_close(layer(u), out @ layer.out_proj.weight.T, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rotary", [False, True])
def test_a_token_changes_no_output_before_it(rotary):
    layer, u = make(rotary=rotary), tokens()
    before = layer(u)
    u[:, 4] += 1
    changed = (layer(u) - before).abs().amax((0, 2)).gt(1e-7)
    assert not changed[:4].any()
    assert changed[4:].all()


def test_rotation_keeps_lengths_and_makes_products_depend_on_distance():
    q, k = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rotated_q, rotated_k = rotate(q.expand(20, 6)), rotate(k.expand(20, 6))
    torch.testing.assert_close(rotated_q.norm(dim=-1), q.norm().expand(20), rtol=1e-6, atol=0)
    products = rotated_q @ rotated_k.T
    for distance in range(-5, 6):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-5, atol=1e-6)
    assert products[0].std() > 0.01


def test_rotation_of_one_pair_is_a_turn_by_the_position():
    turned = rotate(torch.tensor([[1.0, 0.0]]).expand(4, 2))
    position = torch.arange(4.0)
    torch.testing.assert_close(turned, torch.stack([position.cos(), position.sin()], 1))


@pytest.mark.parametrize(
    ("d_model", "n_heads", "rotary", "message"),
    [
        pytest.param(8, 3, False, "d_model = 8 must be a multiple of n_heads = 3", id="heads_do_not_divide"),
        pytest.param(6, 2, True, "heads of even width", id="odd_heads_cannot_rotate"),
    ],
)
def test_impossible_shapes_are_refused(d_model, n_heads, rotary, message):
    with pytest.raises(ScmambaError, match=message):
        Attention(d_model, n_heads=n_heads, rotary=rotary)
