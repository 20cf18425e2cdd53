from __future__ import annotations

import torch
from recurrence import ssd_recurrent


def published_scan(x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, dt_softplus=False):
    """What mamba-ssm documents: x (b, l, h, p), dt (b, l, h), A (h), B and C (b, l, groups, n), D (h) or (h, p)."""
    assert B.ndim == C.ndim == 4 and B.shape[:2] == x.shape[:2] and z is None and dt_bias is None
    assert chunk_size == 64 and not dt_softplus
    heads = x.shape[2] // B.shape[2]
    B, C = (t.repeat_interleave(heads, 2) for t in (B, C))
    seg = torch.cumsum(dt * A, 1)  # (b, l, h)
    decay = torch.exp(seg[:, :, None] - seg[:, None])
    lower = torch.ones(x.shape[1], x.shape[1]).tril()[None, :, :, None]
    weights = torch.einsum("blhn,bmhn->blmh", C, B) * decay * lower * dt[:, None]
    return torch.einsum("blmh,bmhp->blhp", weights, x) + D[:, None] * x


def test_arguments_reach_the_kernel_in_its_layout(load):
    g = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(2, 10, 3, 4, generator=g), torch.rand(2, 10, 3, generator=g), -1 - torch.rand(3, generator=g),
        torch.randn(2, 10, 5, generator=g), torch.randn(2, 10, 5, generator=g), torch.randn(3, generator=g),
    )  # fmt: skip
    scan = load("harness.mamba_ssm").in_our_layout(published_scan)
    torch.testing.assert_close(scan(*inputs), ssd_recurrent(*inputs), rtol=1e-4, atol=1e-5)
