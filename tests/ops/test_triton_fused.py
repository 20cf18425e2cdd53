"""Kernels of the element-wise layers beside the hand-written torch ones: through triton's interpreter if there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import types
import warnings

import pytest
import torch

from scmamba_scvi.ops import fused, plain_layers
from scmamba_scvi.ops.fused import add_norm, causal_conv_silu, gated_norm, swiglu

pytest.importorskip("triton", reason="triton is not installed: its kernels are not compared with plain torch")

from scmamba_scvi.ops import triton_fused, triton_ssd

DEVICE = "cpu" if triton_ssd.INTERPRETED else "cuda"
if DEVICE == "cuda" and not torch.cuda.is_available():
    pytest.skip("triton was imported without its interpreter and there is no CUDA device", allow_module_level=True)
EPS = 1e-5


def both(x, added=None):
    return torch.stack(add_norm(x, added, EPS))


CASES = {
    "add_norm": (both, [(2, 5, 24), (2, 5, 24)]),
    "norm_of_one_term": (both, [(2, 5, 24)]),
    "add_norm_of_matrices": (both, [(7, 16), (7, 16)]),
    "gated_norm": (lambda y, z: gated_norm(y, z, EPS), [(2, 5, 24), (2, 5, 24)]),
    "swiglu": (swiglu, [(2, 5, 24)]),
    "conv": (causal_conv_silu, [(2, 70, 80), (80, 1, 4), (80,)]),
    "conv_of_fewer_tokens_than_taps": (causal_conv_silu, [(2, 2, 8), (8, 1, 4), (8,)]),
    "conv_of_several_runs": (causal_conv_silu, [(1, 131, 8), (8, 1, 4), (8,)]),
    "conv_of_one_run_to_the_last_token": (causal_conv_silu, [(1, 128, 8), (8, 1, 3), (8,)]),
    "conv_of_width_one": (causal_conv_silu, [(1, 5, 8), (8, 1, 1), (8,)]),
}
each_case = pytest.mark.parametrize(("layer", "shapes"), CASES.values(), ids=CASES)


def make_leaves(shapes, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    first, *rest = (torch.randn(shape, generator=g).to(DEVICE) for shape in shapes)
    return [t.requires_grad_() for t in (first.to(dtype), *rest)]


@pytest.fixture
def by_both(monkeypatch):
    """Results of a function with the kernels, and with plain torch."""

    def results(function):
        found = []
        for layers in (triton_fused, plain_layers):
            monkeypatch.setattr(fused, "layers_for", lambda x, width=1, layers=layers: layers)
            found.append(function())
        return zip(*found, strict=True)

    return results


def results(function, leaves):
    y = function(*leaves)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    return [y.detach(), *torch.autograd.grad(y, leaves, weights)]


@each_case
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_values_and_gradients_are_those_of_plain_torch(by_both, layer, shapes, dtype, tolerance):
    leaves = make_leaves(shapes, dtype)
    for a, b in by_both(lambda: results(layer, leaves)):
        assert a.dtype is b.dtype and a.shape == b.shape
        assert (a.float() - b.float()).norm() <= tolerance * b.float().norm()


@each_case
def test_slices_of_a_wider_tensor_and_expanded_gradients_give_the_same(by_both, layer, shapes):
    leaves = make_leaves([(*shapes[0][:-1], shapes[0][-1] + 5), *shapes[1:]])

    def of_slice():
        y = layer(leaves[0][..., 2:-3], *leaves[1:])
        return y, *torch.autograd.grad(y.sum(), leaves)

    for a, b in by_both(of_slice):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_norm_is_written_in_the_dtype_asked_for_and_gradients_in_those_of_the_terms(by_both):
    x, added = make_leaves([(2, 5, 24), (2, 5, 24)])
    added = added.detach().to(torch.bfloat16).requires_grad_()

    def of_both():
        total, normal = add_norm(x, added, EPS, torch.bfloat16)
        loss = (total * total.detach()).sum() + normal.float().square().sum()
        return total, normal, *torch.autograd.grad(loss, [x, added])

    for a, b in by_both(of_both):
        assert a.dtype is b.dtype
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("read", [0, 1])
def test_a_sum_or_a_norm_that_nothing_reads_has_no_gradient_to_add(by_both, read):
    leaves = make_leaves([(2, 5, 24), (2, 5, 24)])
    for a, b in by_both(lambda: torch.autograd.grad(add_norm(*leaves, EPS)[read].square().sum(), leaves)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_values_are_written_beside_gradients():
    """What the joined steps do, which do not keep them."""
    g = torch.Generator().manual_seed(0)
    y, z, grad = (torch.randn(2, 5, 24, generator=g).to(DEVICE) for _ in range(3))
    values, dz = torch.empty_like(y), torch.empty_like(z)
    triton_fused.gated_norm_gradients(grad, y, z, EPS, dz, values)
    torch.testing.assert_close(values, plain_layers.gated_norm_values(y, z, EPS))
    values = torch.empty(2, 5, 12, device=DEVICE)
    triton_fused.swiglu_gradient(grad[..., :12], y, values)
    torch.testing.assert_close(values, plain_layers.swiglu_values(y))


def kernels_with(**changes):
    return types.SimpleNamespace(**{**vars(triton_fused), **changes})


def no_gradient_of_bias(*arguments):
    dweight, dbias = triton_fused.conv_gradients(*arguments)
    return dweight, 0 * dbias


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_check_of_kernels_passes_right_ones_and_names_a_wrong_one(dtype):
    device = torch.device(DEVICE)
    assert fused._fault(triton_fused, triton_ssd.ssd_triton, device, dtype) == ""
    with torch.inference_mode():
        assert fused._fault(triton_fused, triton_ssd.ssd_triton, device, dtype) == ""
    wrong = kernels_with(conv_gradients=no_gradient_of_bias)
    assert "convolution gives other numbers" in fused._fault(wrong, triton_ssd.ssd_triton, device, dtype)


@pytest.mark.gpu
def test_kernels_are_used_on_a_gpu_without_a_warning():
    fused.load_kernels.cache_clear()
    fused.check_kernels.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fused.load_kernels(torch.device("cuda", 0), torch.float32) is triton_fused


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from scmamba_scvi.ops import triton_fused as T

def build(kernel, number, **constants):
    exact = {"weight_ptr", "bias_ptr", "parts_ptr", "scale_ptr", "x_ptr", "total_ptr", "dx_ptr", "dtotal_ptr"}
    exact = exact if "norm" in kernel.__name__ else exact - {"x_ptr", "dx_ptr"}
    signature = {name: "constexpr" if name in constants else "*fp32" if name in exact else
                 number if name.endswith("_ptr") else "fp32" if name == "eps" else "i32" for name in kernel.arg_names}
    positions = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    assert compile(ASTSource(kernel, signature, positions), target=GPUTarget("cuda", 90, 32)).asm["cubin"]
    print(kernel.__name__)

for number in ("*fp32", "*bf16"):
    for flag in (False, True):
        build(T._add_norm, number, d=512, D=512, R=8, ADDED=flag)
        build(T._add_norm_backward, number, d=512, D=512, R=4, TOTAL=True, ADDED=flag)
        build(T._gated_norm_backward, number, d=1024, D=1024, R=2, NORMAL=flag)
        build(T._swiglu_backward, number, d=512, D=512, R=8, Y=flag)
    build(T._gated_norm, number, d=1024, D=1024, R=4)
    build(T._conv, number, m=640, WIDTH=4, RUN=128, M=128)
    build(T._conv_backward, number, m=640, WIDTH=4, RUN=128, M=128)
    build(T._swiglu, number, d=512, D=512, R=8)
"""


@pytest.mark.slow
def test_kernels_compile_for_a_gpu():
    """For compute capability 9.0, which needs no GPU."""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    run = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    assert len(run.stdout.split()) == 24
