from __future__ import annotations

import math

import pytest
import torch

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.nn.attention import Attention


def tokens(n=2, c=9, d=8):
    return torch.randn(n, c, d, generator=torch.Generator().manual_seed(0))


def make():
    torch.manual_seed(0)
    return Attention(8, n_heads=2)


def test_output_is_softmax_attention_written_out():
    layer, u = make(), tokens()
    q, k, v = (u @ layer.in_proj.weight.T).split(8, -1)
    out = torch.zeros_like(u)
    for head in (slice(0, 4), slice(4, 8)):
        for t in range(u.shape[1]):
            scores = torch.einsum("nj,ncj->nc", q[:, t, head], k[:, : t + 1, head]) / math.sqrt(4)
            out[:, t, head] = torch.einsum("nc,ncj->nj", scores.softmax(-1), v[:, : t + 1, head])
    torch.testing.assert_close(layer(u), out @ layer.out_proj.weight.T, rtol=1e-4, atol=1e-6)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ScmambaError, match="d_model = 8 must be a multiple of n_heads = 3"):
        Attention(8, n_heads=3)
