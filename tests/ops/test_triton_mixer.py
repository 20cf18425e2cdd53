"""Layers that include their linear map, with kernels: the numbers are those of the same layers one by one in plain torch."""

from __future__ import annotations

import pytest
import torch

from scmamba_scvi import nn
from scmamba_scvi.nn.block import EPS
from scmamba_scvi.nn.memory import saved_bytes

pytest.importorskip("triton", reason="triton is not installed: its kernels are not compared with plain torch")

from scmamba_scvi.ops import fused as layers
from scmamba_scvi.ops import triton_fused, triton_sizes
from scmamba_scvi.ops.triton_mixer import gated_mlp
from scmamba_scvi.ops.triton_mixer import mixer as mixer_kernels
from scmamba_scvi.ops.triton_ssd import INTERPRETED

DEVICE = "cpu" if INTERPRETED else "cuda"
if DEVICE == "cuda" and not torch.cuda.is_available():
    pytest.skip("triton was imported without its interpreter and there is no CUDA device", allow_module_level=True)
DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])


def gradients(y, leaves):
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    return [y.detach(), *torch.autograd.grad(y, leaves, weights)]


def assert_near(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert (a.float() - b.float()).norm() <= tolerance * b.float().norm()


def fused(mixer, zxBCdt):
    weight = mixer.out_weight().to(zxBCdt.dtype)
    return mixer_kernels(
        zxBCdt, mixer.conv1d.weight, mixer.conv1d.bias, mixer.dt_bias, -mixer.A_log.exp(), mixer.D, weight, EPS
    )


def example(c, d_conv, dtype=torch.float32):
    torch.manual_seed(0)
    mixer = nn.Mamba2(16, d_state=16, headdim=16, d_conv=d_conv, ssd_backend="torch").to(DEVICE)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return mixer, mixer.in_proj(torch.randn(2, c, 16, device=DEVICE)).detach().to(dtype).requires_grad_()


@pytest.mark.parametrize(("c", "d_conv"), [(21, 4), (5, 2)])
@DTYPES
def test_the_mixer_is_its_layers_one_by_one(monkeypatch, c, d_conv, dtype, tolerance):
    monkeypatch.setattr(triton_sizes, "MAX_CHUNK", {2: (16, 16), 4: (16, 16)})  # 21 tokens are two chunks
    mixer, zxBCdt = example(c, d_conv, dtype)
    leaves = [zxBCdt, *(p for name, p in mixer.named_parameters() if name != "in_proj.weight")]
    plain = zxBCdt.float()  # what rounding of single steps adds is in the tolerance
    expected = gradients(torch.nn.functional.linear(mixer.hidden(plain), mixer.out_weight()), leaves)
    assert_near(gradients(fused(mixer, zxBCdt), leaves), expected, tolerance)


def test_the_mixer_keeps_its_input_and_what_it_scanned_alone():
    mixer, zxBCdt = example(21, 4)
    scanned, decays, weight = 2 * 21 * 32 * 4, 2 * 2 * 4, 16 * 32 * 4
    # of the product that makes the weight, its factors are parameters
    assert saved_bytes(mixer, lambda x: fused(mixer, x), zxBCdt) == scanned + decays + weight


@DTYPES
def test_a_gated_mlp_keeps_its_input_alone(dtype, tolerance):
    g = torch.Generator().manual_seed(0)
    leaves = [torch.randn(*shape, generator=g) for shape in ((2, 5, 7), (48, 7), (7, 24))]
    leaves = [t.to(DEVICE).to(dtype).requires_grad_() for t in leaves]
    x, in_weight, out_weight = (t.float() for t in leaves)
    a, b = (x @ in_weight.t()).chunk(2, -1)
    expected = gradients((a * torch.nn.functional.silu(b)) @ out_weight.t(), leaves)
    assert_near(gradients(gated_mlp(*leaves), leaves), expected, tolerance)
    assert saved_bytes(torch.nn.Identity(), gated_mlp, *leaves) == 0


def test_a_gated_mlp_takes_float32_under_autocast(monkeypatch):
    """Blocks hand it what autocast computes in; anybody else may not."""
    torch.manual_seed(0)
    mlp, x = nn.GatedMLP(8, 16).to(DEVICE), torch.randn(2, 5, 8, device=DEVICE, requires_grad=True)
    found = []
    for kernels in (triton_fused, None):
        monkeypatch.setattr(layers, "kernels_for", lambda x, kernels=kernels: kernels)
        with torch.autocast(DEVICE, torch.bfloat16):
            y = mlp(x)
        found.append([y, *torch.autograd.grad(y.float().square().sum(), [x, *mlp.parameters()])])
    assert [t.dtype for t in found[0]] == [t.dtype for t in found[1]]
    assert_near(*found, 3e-2)
