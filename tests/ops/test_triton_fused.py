"""Kernels of the element-wise layers beside the hand-written torch ones: through triton's interpreter if there is no GPU."""

from __future__ import annotations

import itertools
import types
import warnings

import pytest
import torch
from compiled import SHARED, WITH_BFLOAT16, compiled

from scmamba_scvi.ops import fused, plain_layers
from scmamba_scvi.ops.fused import add_norm, causal_conv_silu, gated_norm, swiglu

pytest.importorskip("triton", reason="triton is not installed: its kernels are not compared with plain torch")

from scmamba_scvi.ops import triton_fused, triton_ssd

DEVICE = "cpu" if triton_ssd.INTERPRETED else "cuda"
if DEVICE == "cuda" and not torch.cuda.is_available():
    pytest.skip("triton was imported without its interpreter and there is no CUDA device", allow_module_level=True)
EPS = 1e-5


@pytest.fixture(autouse=True)
def _convolutions_in_float32(monkeypatch):
    """Torch would let a GPU round the products of those that kernels are compared with to TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


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
# exponentials and quotients of a GPU are off by some units in the last place
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.bfloat16, 1e-2)])
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


LAYERS = """
c, d, i, s, dtype = 419, 512, 1024, 128, torch.{dtype}
for n in (16, 7):  # cells; the rows of the second are no multiple of 16
    x, scale = (empty(n, c, wide, dtype=torch.float32) for wide in (d, 1))
    added, y, ab = (empty(n, c, wide, dtype=dtype) for wide in (d, i, 2 * i))
    for term in (None, added):
        layers.add_norm_values(x, term, 1e-5, dtype)
    for added_dtype in (None, dtype):
        layers.add_norm_gradients(x, added, added, scale, torch.float32, added_dtype)
    # slices of the mixer's projection
    z, xBC, _ = empty(n, c, 2 * i + 2 * s + 8, dtype=dtype).split([i, i + 2 * s, 8], -1)
    layers.gated_norm_values(y, z, 1e-5)
    layers.swiglu_values(ab)
    for values in (None, y):
        layers.gated_norm_gradients(y, y, z, 1e-5, z, values)
        layers.swiglu_gradient(y, ab, values)
    taps = [empty(*shape, dtype=torch.float32) for shape in ((i + 2 * s, 1, 4), (i + 2 * s,))]
    layers.conv_values(xBC, *taps)
    layers.conv_gradients(xBC.contiguous(), xBC, *taps, xBC)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "capability"), [*itertools.product(["bfloat16"], WITH_BFLOAT16), *itertools.product(["float32"], SHARED)]
)
def test_kernels_compile_once_for_any_number_of_rows_and_spill_nothing(capability, dtype):
    """No GPU is needed to compile."""
    found = compiled(capability, LAYERS.format(dtype=dtype))
    # the gradient of a second term is written apart if its dtype is another
    assert [kernel.kernel for kernel in found].count("_add_norm_backward") == (1 if dtype == "float32" else 2)
    assert len(found) == (11 if dtype == "float32" else 12)
    assert max(kernel.shared for kernel in found) <= 48 * 1024
    assert max(kernel.stack for kernel in found) == 0
    assert all(kernel.n_launches % 2 == 0 for kernel in found)
