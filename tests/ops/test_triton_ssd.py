"""The kernels beside their plain twin: on CUDA as they are, elsewhere through triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from compiled import SHARED, WITH_BFLOAT16, compiled

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.ops.ssd import ssd_chunked

pytest.importorskip("triton", reason="triton is not installed: its kernels are not compared with plain torch")

from scmamba_scvi.ops import fused, triton_sizes, triton_ssd
from scmamba_scvi.ops.triton_sizes import tile_sizes
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
    ("c", "h", "p", "s", "dtype"),
    [
        pytest.param(1, 1, 32, 16, torch.float32, id="one_token_one_head"),
        pytest.param(2, 3, 32, 32, torch.float32, id="two_tokens_three_heads"),
        pytest.param(33, 2, 32, 16, torch.float32, id="one_token_into_the_second_chunk"),
        pytest.param(64, 1, 64, 64, torch.float32, id="full_chunks"),
        pytest.param(70, 2, 64, 16, torch.float32, id="last_chunk_padded"),
        pytest.param(45, 1, 128, 128, torch.float32, id="wide_head_in_two_blocks"),
        pytest.param(40, 2, 20, 5, torch.float32, id="sizes_that_are_no_powers_of_two"),
        pytest.param(40, 1, 80, 48, torch.float32, id="blocks_that_are_not_full"),
        pytest.param(1, 3, 32, 16, torch.bfloat16, id="bf16_one_token"),
        pytest.param(24, 1, 64, 32, torch.bfloat16, id="bf16_preset_small"),
        pytest.param(70, 2, 64, 16, torch.bfloat16, id="bf16_last_chunk_padded"),
        pytest.param(45, 1, 80, 128, torch.bfloat16, id="bf16_blocks_that_are_not_full"),
    ],
)
def test_values_and_gradients_are_those_of_plain_torch(c, h, p, s, dtype):
    inputs = make_inputs(c, h=h, p=p, s=s, dtype=dtype)
    expected = results(ssd_chunked, [t.double() for t in inputs])
    found = results(ssd_triton, inputs)
    assert [t.dtype for t in found[1:]] == [t.dtype for t in inputs]
    assert_same(found, expected, 2e-5 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize(
    ("capability", "s"), [(7, 16), (8, 128), (10, 16)], ids=["old", "many_states", "no_long_chunks"]
)
def test_the_smaller_programs_of_other_gpus_give_the_same(monkeypatch, capability, s):
    monkeypatch.setattr(triton_sizes, "capability", lambda device: capability)
    inputs = make_inputs(45, p=128, s=s, dtype=torch.bfloat16)
    sizes = tile_sizes(inputs[0], inputs[3], backward=False)
    assert (sizes["Q"], sizes["P"], sizes["num_warps"]) == (32, 64, 8)
    assert_same(results(ssd_triton, inputs), results(ssd_chunked, [t.double() for t in inputs]), 2e-2)


@pytest.mark.parametrize("longest", [16, 64])
def test_the_chunk_changes_nothing(monkeypatch, longest):
    monkeypatch.setattr(triton_sizes, "MAX_CHUNK", {4: (longest, longest)})
    inputs = make_inputs(50, h=2)
    found = results(ssd_triton, inputs)
    assert_same(found, results(ssd_chunked, inputs), 2e-5)


@pytest.mark.parametrize("n", [1, 3])
def test_the_states_of_some_cells_at_a_time_give_the_same(n):
    """With these sizes there are four parts, of which some have no cell."""
    inputs = make_inputs(40, n=n, h=2, s=128)
    sizes = tile_sizes(inputs[0], inputs[3], backward=True)
    assert (sizes["S"], sizes["Q"]) == (128, 16)
    assert_same(results(ssd_triton, inputs), results(ssd_chunked, [t.double() for t in inputs]), 2e-5)


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
    assert tile_sizes(x, B, backward=False)["PRECISION"] == precision


@pytest.mark.parametrize(("asked", "precision"), [("none", "tf32x3"), ("ieee", "tf32x3"), ("tf32", "tf32")])
def test_the_switch_may_have_its_newer_name(matmul, asked, precision):
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("this torch has the older name alone")
    matmul.fp32_precision = asked
    x, _, _, B, *_ = make_inputs(5)
    assert tile_sizes(x, B, backward=False)["PRECISION"] == precision


@pytest.mark.parametrize(
    ("version", "capability", "dtype", "is_refused"),
    [
        ("3.2.0", 9, torch.bfloat16, True), ("3.3.1", 9, torch.float16, True), ("3.3.1", 9, torch.float32, False),
        ("3.3.1", 8, torch.bfloat16, False), ("3.10.0+git1", 9, torch.bfloat16, False),
    ],
)  # fmt: skip
def test_a_compiler_that_fails_is_not_tried(monkeypatch, version, capability, dtype, is_refused):
    monkeypatch.setattr(triton_sizes.triton, "__version__", version)
    monkeypatch.setattr(triton_sizes, "capability", lambda device: capability)
    monkeypatch.setattr(fused, "_fault", lambda *arguments: "")
    reason = fused.check_kernels.__wrapped__(torch.device(DEVICE), dtype)[1]
    assert reason.startswith(f"triton {version} does not compile" if is_refused else "") and bool(reason) is is_refused


SCAN = """
dtype = torch.{dtype}
for n, c, h, p, s in {shapes}:
    # as the mixer has them, side by side
    parts = [empty(n, c, h * p + 2 * s, dtype=dtype).split([h * p, s, s], -1) for _ in range(2)]
    (x, B, C), into = ((x.unflatten(-1, (h, p)), *others) for x, *others in parts)
    dt, A, D = (empty(*shape, dtype=torch.float32) for shape in ((n, c, h), (h,), (h,)))
    y = scan.scan(x, dt, A, B, C, D)
    scan.scan_gradients(y, x, dt, A, B, C, D, into)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "dtype", "stack"),
    [
        *((capability, "bfloat16", 1024) for capability in WITH_BFLOAT16),
        (75, "float16", 8192),
        *((capability, "float32", 1536) for capability in (75, 80, 90)),
    ],
)
def test_kernels_of_the_presets_compile_fit_and_spill_little(capability, dtype, stack):
    """No GPU is needed to compile; a kernel that spills much has several KB, as those of half precision do before A100."""
    of_presets = (64, 24, 1, 64, 32), (64, 256, 8, 64, 64), (64, 419, 8, 128, 128)  # small, base and paper
    found = compiled(capability, SCAN.format(dtype=dtype, shapes=of_presets))
    # where chunks are long enough, the first shape is one, which has no states
    assert len(found) == (15 if (capability, dtype) == (75, "float32") else 13)
    assert max(kernel.shared for kernel in found) <= SHARED[capability]
    assert max(kernel.stack for kernel in found) <= stack
    if capability == 90 and dtype == "bfloat16":
        assert all(kernel.is_wide for kernel in found[3:])  # the chunk of the first is too short


@pytest.mark.slow
def test_kernels_are_compiled_once_for_any_number_of_cells():
    """Of an odd number of cells and tokens, few tensors are as aligned as those of sixteen cells."""
    found = compiled(90, SCAN.format(dtype="bfloat16", shapes=[(n, 25, 1, 64, 32) for n in (16, 7)]))
    assert [kernel.n_launches for kernel in found] == [2, 2, 2]
