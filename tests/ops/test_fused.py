from __future__ import annotations

import types
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from scmamba_scvi.nn.memory import saved_bytes
from scmamba_scvi.ops import fused, plain_layers
from scmamba_scvi.ops.fused import add_norm, causal_conv_silu, gated_norm, swiglu
from scmamba_scvi.ops.ssd import ssd_chunked

EPS = 1e-5


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def plain_norm(x, *added):
    total = sum(added, x)
    return torch.stack([total, F.rms_norm(total, x.shape[-1:], eps=EPS)])


def plain_gated(y, z):
    return F.rms_norm(y * F.silu(z), y.shape[-1:], eps=EPS)


def both(x, added=None):
    return torch.stack(add_norm(x, added, EPS))


def plain_swiglu(ab):
    a, b = ab.chunk(2, -1)
    return a * b * torch.sigmoid(b)


def plain_conv(x, weight, bias):
    y = F.conv1d(F.pad(x.transpose(1, 2), (weight.shape[-1] - 1, 0)), weight, bias, groups=weight.shape[0])
    return F.silu(y).transpose(1, 2)


CASES = [
    pytest.param(both, plain_norm, [(2, 5, 8), (2, 5, 8)], id="add_norm"),
    pytest.param(both, plain_norm, [(2, 5, 8)], id="norm_of_one_term"),
    pytest.param(both, plain_norm, [(7, 8), (7, 8)], id="add_norm_of_matrices"),
    pytest.param(lambda y, z: gated_norm(y, z, EPS), plain_gated, [(2, 5, 8), (2, 5, 8)], id="gated_norm"),
    pytest.param(swiglu, plain_swiglu, [(2, 5, 12)], id="swiglu"),
    pytest.param(causal_conv_silu, plain_conv, [(2, 9, 6), (6, 1, 4), (6,)], id="conv"),
    pytest.param(causal_conv_silu, plain_conv, [(2, 2, 6), (6, 1, 4), (6,)], id="conv_of_fewer_tokens_than_taps"),
    pytest.param(causal_conv_silu, plain_conv, [(3, 5, 6), (6, 1, 1), (6,)], id="conv_of_width_one"),
]
each_case = pytest.mark.parametrize(("fast", "plain", "shapes"), CASES)


@each_case
def test_autocast_does_not_reach_inside(fast, plain, shapes):
    """As it does not in the kernels: the gradients, which are computed without it, are those of these values."""
    tensors = [normal(*shape, seed=i, dtype=torch.float32) for i, shape in enumerate(shapes)]
    expected = fast(*tensors)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(*tensors), expected)


@each_case
def test_values_and_gradients_are_those_of_the_plain_twin(fast, plain, shapes):
    leaves = [normal(*shape, seed=i, dtype=torch.float32).requires_grad_() for i, shape in enumerate(shapes)]
    got, expected = fast(*leaves), plain(*leaves)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    weights = normal(*expected.shape, seed=9, dtype=torch.float32)
    for a, b in zip(
        torch.autograd.grad((got * weights).sum(), leaves), torch.autograd.grad((expected * weights).sum(), leaves),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@each_case
def test_gradients_agree_with_finite_differences(fast, plain, shapes):
    leaves = [normal(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    assert torch.autograd.gradcheck(fast, leaves)


@each_case
def test_inputs_and_incoming_gradients_are_left_as_they_were(fast, plain, shapes):
    leaves = [normal(*shape, seed=i, dtype=torch.float32).requires_grad_() for i, shape in enumerate(shapes)]
    copies = [t.detach().clone() for t in leaves]
    y = fast(*leaves)
    incoming = torch.ones_like(y)
    torch.autograd.grad(y, leaves, incoming, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(leaves, copies, strict=True))
    assert incoming.eq(1).all()


@each_case
def test_slices_of_a_wider_tensor_and_transposed_gradients_give_the_same(fast, plain, shapes):
    """Inputs come as slices of the projection's output, gradients as transposed or expanded views."""
    first, *rest = shapes
    wide = normal(*first[:-1], first[-1] + 3, dtype=torch.float32)
    leaves = [wide[..., 2:-1], *(normal(*shape, seed=i, dtype=torch.float32) for i, shape in enumerate(rest, 1))]
    leaves = [t.requires_grad_() if t is not leaves[0] else t.detach().requires_grad_() for t in leaves]
    for reduce in (lambda y: y.sum(), lambda y: (y.transpose(0, 1) * y.detach().transpose(0, 1)).sum()):
        for a, b in zip(
            torch.autograd.grad(reduce(fast(*leaves)), leaves), torch.autograd.grad(reduce(plain(*leaves)), leaves),
            strict=True,
        ):  # fmt: skip
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@each_case
def test_bfloat16_is_computed_in_float32(fast, plain, shapes):
    first, *rest = shapes
    x = normal(*first, dtype=torch.bfloat16).requires_grad_()
    others = [normal(*shape, seed=i, dtype=torch.float32).requires_grad_() for i, shape in enumerate(rest, 1)]
    y = fast(x, *others)
    y.float().sum().backward()
    assert y.dtype is x.grad.dtype is torch.bfloat16
    assert all(t.grad.dtype is torch.float32 for t in others)
    truth = plain(x.detach().double(), *(t.detach().double() for t in others))
    torch.testing.assert_close(y.detach().double(), truth, rtol=2**-8, atol=1e-6)


def test_a_zero_row_is_normalised_to_zero_with_finite_gradients():
    x = torch.zeros(2, 4, requires_grad=True)
    _, y = add_norm(x, None, EPS)
    y.sum().backward()
    assert y.eq(0).all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("read", [0, 1])
def test_a_sum_or_a_norm_that_nothing_reads_has_no_gradient_to_add(read):
    leaves = [normal(3, 8, seed=i, dtype=torch.float32).requires_grad_() for i in range(2)]
    results = add_norm(*leaves, EPS), plain_norm(*leaves)
    found, expected = (torch.autograd.grad(y[read].square().sum(), leaves) for y in results)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def forget_kernels():
    fused.load_kernels.cache_clear()
    fused.check_kernels.cache_clear()


def test_a_failing_kernel_is_named_once_and_not_used(monkeypatch):
    def broken(kernels, scan, device, dtype):
        raise OSError("no C compiler")

    monkeypatch.setattr(fused, "_fault", broken)
    forget_kernels()
    with pytest.warns(
        UserWarning,
        match="on cpu in torch.float32, which is slow on a GPU: .*(no C compiler|No module named 'triton')",
    ):
        assert fused.load_kernels(torch.device("cpu"), torch.float32) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fused.load_kernels(torch.device("cpu"), torch.float32) is None
    forget_kernels()


def test_a_norm_before_a_product_is_written_in_the_dtype_of_the_product_and_keeps_nothing_else():
    x = normal(3, 8, dtype=torch.float32).requires_grad_()
    added = normal(3, 8, dtype=torch.bfloat16).requires_grad_()
    total, y = add_norm(x, added, EPS, torch.bfloat16)
    (total.sum() + y.float().square().sum()).backward()
    assert (total.dtype, y.dtype) == (x.grad.dtype, added.grad.dtype) == (torch.float32, torch.bfloat16)
    kept = saved_bytes(torch.nn.Identity(), lambda *terms: add_norm(*terms, EPS, torch.bfloat16), x, added)
    assert kept == 3 * 8 * 2 + 3 * 4  # the norm, and a number per row


def no_bfloat16(ab):
    if ab.dtype == torch.bfloat16:
        raise RuntimeError("bfloat16 needs a newer GPU")
    return plain_layers.swiglu_values(ab)


def kernels_with(**changes):
    return types.SimpleNamespace(**{**vars(plain_layers), **changes})


def test_kernels_are_checked_in_the_type_that_they_are_used_in():
    kernels = kernels_with(swiglu_values=no_bfloat16)
    for dtype in (torch.float32, torch.float16):
        assert fused._fault(kernels, ssd_chunked, torch.device("cpu"), dtype) == ""
    with pytest.raises(RuntimeError, match="newer GPU"):
        fused._fault(kernels, ssd_chunked, torch.device("cpu"), torch.bfloat16)


class OffByFactor(torch.autograd.Function):
    """Right values, and a gradient that is not theirs."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        return 1.1 * dy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("changed", range(6))
def test_a_scan_with_a_wrong_gradient_is_named(dtype, changed):
    def scan(*inputs):
        return ssd_chunked(*(OffByFactor.apply(t) if i == changed else t for i, t in enumerate(inputs)))

    fault = fused._fault(plain_layers, scan, torch.device("cpu"), dtype)
    assert fault == "the kernel of the scan gives other numbers"


def test_a_scan_with_wrong_values_is_named_and_one_that_cannot_run_raises():
    def too_large(*inputs):
        raise RuntimeError("out of resource: shared memory")

    wrong = fused._fault(plain_layers, lambda *inputs: 1.1 * ssd_chunked(*inputs), torch.device("cpu"), torch.float32)
    assert wrong == "the kernel of the scan gives other numbers"
    with pytest.raises(RuntimeError, match="out of resource"):
        fused._fault(plain_layers, too_large, torch.device("cpu"), torch.float32)


def test_the_check_on_first_use_is_not_part_of_the_pass_that_it_happens_in():
    def check_kernels():
        assert fused._fault(plain_layers, ssd_chunked, torch.device("cpu"), torch.float32) == ""

    first_use = [check_kernels, check_kernels]

    def layer(x):
        if first_use:
            first_use.pop()()
        return x.sin()

    x = torch.randn(3, requires_grad=True)
    assert saved_bytes(torch.nn.Identity(), lambda x: layer(x + 0), x) == 12
    # the second pass of a checkpoint is no first use any more
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    torch.testing.assert_close(x.grad, x.detach().cos())
    assert not first_use
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        check_kernels()
