"""The kernels beside their plain twin: on CUDA as they are, elsewhere through triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.ops.ssd import ssd_chunked

pytest.importorskip("triton", reason="triton is not installed: its kernels are not compared with plain torch")

from scmamba_scvi.ops import triton_ssd
from scmamba_scvi.ops.triton_ssd import ssd_triton

NAMES = ("y", "x", "dt", "A", "B", "C", "D")
DEVICE = "cpu" if triton_ssd.INTERPRETED else "cuda"
if DEVICE == "cuda" and not torch.cuda.is_available():
    pytest.skip("triton was imported without its interpreter and there is no CUDA device", allow_module_level=True)


def make_inputs(c, *, n=2, h=1, p=32, s=16, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=g).to(DEVICE, dtype)

    dt, A = 0.05 + 0.5 * torch.rand(n, c, h, generator=g), -(0.5 + 4 * torch.rand(h, generator=g))
    D = torch.randn(h, generator=g)
    return [normal(n, c, h, p), dt.to(DEVICE), A.to(DEVICE), normal(n, c, s), normal(n, c, s), D.to(DEVICE)]


def results(function, inputs):
    """Values and all gradients."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    y = function(*leaves)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    return [y.detach(), *torch.autograd.grad(y, leaves, weights)]


def assert_same(found, expected, tolerance):
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert a.shape == b.shape and a.isfinite().all(), name
        # the gradient of a rate is a sum in which most cancels
        room = 20 * tolerance if name == "A" else tolerance
        assert (a.double() - b.double()).norm() <= room * b.double().norm() + 1e-6, name


@pytest.mark.parametrize(
    ("c", "h", "p", "s"),
    [
        pytest.param(1, 1, 32, 16, id="one_token_one_head"),
        pytest.param(2, 3, 32, 32, id="two_tokens_three_heads"),
        pytest.param(24, 1, 64, 32, id="preset_small"),
        pytest.param(33, 2, 32, 16, id="one_token_into_the_second_chunk"),
        pytest.param(64, 1, 64, 64, id="full_chunks"),
        pytest.param(70, 2, 64, 16, id="last_chunk_padded"),
        pytest.param(45, 1, 128, 128, id="wide_head_in_two_blocks"),
        pytest.param(40, 2, 20, 5, id="sizes_that_are_no_powers_of_two"),
        pytest.param(40, 1, 80, 48, id="blocks_that_are_not_full"),
    ],
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [pytest.param(torch.float32, 2e-5, id="float32"), pytest.param(torch.bfloat16, 2e-2, id="bf16")],
)
def test_values_and_gradients_are_those_of_plain_torch(c, h, p, s, dtype, tolerance):
    inputs = make_inputs(c, h=h, p=p, s=s, dtype=dtype)
    expected = results(ssd_chunked, [t.double() for t in inputs])
    found = results(ssd_triton, inputs)
    assert [t.dtype for t in found[1:]] == [t.dtype for t in inputs]
    assert_same(found, expected, tolerance)


@pytest.mark.parametrize("longest", [16, 64])
def test_the_chunk_changes_nothing(monkeypatch, longest):
    monkeypatch.setattr(triton_ssd, "MAX_CHUNK", {4: (longest, longest)})
    inputs = make_inputs(50, h=2)
    found = results(ssd_triton, inputs)
    assert_same(found, results(ssd_chunked, inputs), 2e-5)


def test_slices_of_a_wider_tensor_and_expanded_gradients_give_the_same():
    """The mixer hands over slices of its projection; a mean over tokens hands back one vector for all."""
    p, s, (wide, dt, A, *_, D) = 32, 16, make_inputs(40, h=2, p=48)
    wide = wide.flatten(2).requires_grad_()  # (n, c, 96)

    def of_slices(function):
        x, B, C = wide.split([2 * p, s, s], -1)
        y = function(x.unflatten(-1, (2, p)), dt, A, B, C, D)
        return y, *torch.autograd.grad(y.sum(), wide)

    for a, b in zip(of_slices(ssd_triton), of_slices(ssd_chunked), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_both_directions_are_those_of_plain_torch():
    x, dt, A, B, C, D = make_inputs(40, h=2)

    def both(scan):
        def function(x, dt, A, B, C, D):
            back = scan(x.flip(1), dt.flip(1), A, B.flip(1), C.flip(1), D)
            return (scan(x, dt, A, B, C, D) + back.flip(1)) / 2

        return function

    inputs = (x, dt, A, B, C, D)
    assert_same(results(both(ssd_triton), inputs), results(both(ssd_chunked), inputs), 2e-5)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        pytest.param(1e3, 1e3, id="everything_is_forgotten_at_once"),
        pytest.param(0.0, 1e-6, id="nothing_is_forgotten_and_some_steps_are_zero"),
        pytest.param(1e-6, 1e3, id="tokens_of_both_kinds"),
    ],
)
def test_extreme_decays_are_finite_and_right(low, high):
    x, dt, _, B, C, D = make_inputs(40, h=2)
    dt = torch.where(dt < dt.median(), low, high)
    inputs = (x, dt, -torch.ones(2, device=DEVICE), B, C, D)
    assert_same(results(ssd_triton, inputs), results(ssd_chunked, [t.double() for t in inputs]), 1e-3)


def test_only_the_inputs_are_kept_for_the_backward_pass():
    kept = []
    inputs = [t.requires_grad_() for t in make_inputs(70, h=2)]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ssd_triton(*inputs)
    assert {t.data_ptr() for t in kept} == {t.data_ptr() for t in inputs}


def test_results_are_the_same_every_time():
    inputs = make_inputs(70, n=1, h=2)
    assert all(torch.equal(a, b) for a, b in zip(results(ssd_triton, inputs), results(ssd_triton, inputs), strict=True))


def test_float64_is_refused():
    with pytest.raises(ScmambaError, match="float32, bfloat16 or float16, got torch.float64"):
        ssd_triton(*(t.double() for t in make_inputs(5)))


@pytest.fixture
def matmul():
    """Switches of torch for products of float32, put back afterwards."""
    switches, before = torch.backends.cuda.matmul, getattr(torch.backends.cuda.matmul, "fp32_precision", None)
    yield switches
    torch.set_float32_matmul_precision("highest")
    if before is not None:
        switches.fp32_precision = before


@pytest.mark.parametrize(("asked", "precision"), [("highest", "tf32x3"), ("high", "tf32"), ("medium", "tf32")])
def test_products_are_rounded_where_torch_rounds_its_own(matmul, asked, precision):
    torch.set_float32_matmul_precision(asked)
    x, _, _, B, *_ = make_inputs(5)
    assert triton_ssd._sizes(x, B, backward=False)["PRECISION"] == precision


@pytest.mark.parametrize(("asked", "precision"), [("none", "tf32x3"), ("ieee", "tf32x3"), ("tf32", "tf32")])
def test_the_switch_may_have_its_newer_name(matmul, asked, precision):
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("this torch has the older name alone")
    matmul.fp32_precision = asked
    x, _, _, B, *_ = make_inputs(5)
    assert triton_ssd._sizes(x, B, backward=False)["PRECISION"] == precision


COMPILE = """
import torch
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from scmamba_scvi.ops import triton_ssd as T

def build(kernel, c, p, s, dtype, backward, **more):
    sizes = T._sizes(torch.empty(1, c, 8, p, dtype=dtype), torch.empty(1, c, s), backward=backward)
    options = {key: sizes.pop(key) for key in ("num_warps", "num_stages")}
    constants = {name: size for name, size in (sizes | more).items() if name in kernel.arg_names}
    number = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}[dtype]
    exact = {"dt_ptr", "A_ptr", "D_ptr", "ddt_ptr", "dA_ptr", "dD_ptr", "d_log_decay_ptr", "kept_ptr"}
    signature = {name: "constexpr" if name in constants else "*fp32" if name in exact else
                 number if name.endswith("_ptr") else "i32" for name in kernel.arg_names}
    positions = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    built = compile(ASTSource(kernel, signature, positions), target=GPUTarget("cuda", 90, 32), options=options)
    assert built.asm["cubin"]
    wide = "wgmma" in built.asm["ptx"]
    assert wide or dtype is torch.float32 or c < 64, f"{kernel.__name__} does not use the tensor cores' wide instruction"
    print(built.metadata.shared)

for c, p, s in ((24, 64, 32), (256, 64, 64), (419, 128, 128)):
    for dtype in (torch.float32, torch.bfloat16):
        build(T._forward, c, p, s, dtype, False)
        for reverse in (False, True):
            build(T._states, c, p, s, dtype, True, REVERSE=reverse)
        build(T._gradients_of_reading, c, p, s, dtype, True)
        build(T._gradients_of_bringing, c, p, s, dtype, True)
"""


@pytest.mark.slow
def test_kernels_of_the_presets_compile_for_a_gpu_and_fit():
    """Compiled for compute capability 9.0, which needs no GPU; shared memory of a program ends at 227 KiB."""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    run = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    shared = [int(line) for line in run.stdout.split()]
    assert len(shared) == 30
    assert max(shared) <= 227 * 1024
