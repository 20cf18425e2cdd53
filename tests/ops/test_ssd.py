from __future__ import annotations

import pytest
import torch
from recurrence import ssd_recurrent

from scmamba_scvi.nn.memory import saved_bytes
from scmamba_scvi.ops.ssd import choose_chunk_size, ssd_chunked

NAMES = ("x", "dt", "A", "B", "C", "D")


def make_inputs(c, *, n=2, h=2, p=4, s=5, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    dt = 0.05 + 0.5 * torch.rand(n, c, h, generator=g, dtype=torch.float64).to(dtype)
    A = -(0.5 + 8 * torch.rand(h, generator=g, dtype=torch.float64).to(dtype))
    return normal(n, c, h, p), dt, A, normal(n, c, s), normal(n, c, s), normal(h)


def gradients(function, inputs, weights):
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    return torch.autograd.grad((function(*leaves) * weights).sum(), leaves)


@pytest.mark.parametrize(
    ("c", "chunk_size"),
    [
        pytest.param(1, None, id="one_token"),
        pytest.param(200, None, id="chosen_chunk"),
        pytest.param(31, 1, id="chunks_of_one_token"),
        pytest.param(65, 7, id="chunk_that_does_not_divide"),
        pytest.param(64, 16, id="full_chunks"),
        pytest.param(65, 16, id="one_token_into_the_last_chunk"),
        pytest.param(200, 256, id="chunk_longer_than_the_sequence"),
    ],
)
def test_chunked_equals_recurrent_in_values_and_gradients(c, chunk_size):
    inputs = make_inputs(c)
    expected, got = ssd_recurrent(*inputs), ssd_chunked(*inputs, chunk_size=chunk_size)
    assert got.shape == expected.shape
    assert (got - expected).norm() <= 1e-5 * expected.norm()

    chunked = lambda *args: ssd_chunked(*args, chunk_size=chunk_size)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    wide = [t.double() for t in inputs]
    truth = gradients(ssd_recurrent, wide, weights.double())
    # the decay between two tokens is a difference of sums over their chunk, which round more the longer it is
    tolerance = 5e-5 if chunk_size == 256 and c > 100 else 1e-5
    for name, a, b in zip(NAMES, gradients(chunked, inputs, weights), truth, strict=True):
        assert (a - b).norm() <= tolerance * b.norm() + 1e-6, name
    for name, a, b in zip(NAMES, gradients(chunked, wide, weights.double()), truth, strict=True):
        assert (a - b).norm() <= 1e-10 * b.norm() + 1e-12, name


@pytest.mark.parametrize(
    ("c", "chunk_size"),
    [
        pytest.param(5, 8, id="one_padded_chunk"),
        pytest.param(6, 3, id="two_full_chunks"),
        pytest.param(7, 3, id="three_chunks_the_last_padded"),
    ],
)
def test_gradients_agree_with_finite_differences(c, chunk_size):
    inputs = [t.requires_grad_() for t in make_inputs(c, n=1, h=2, p=2, s=3, dtype=torch.float64)]
    assert torch.autograd.gradcheck(lambda *args: ssd_chunked(*args, chunk_size=chunk_size), inputs)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        pytest.param(1e3, 1e3, id="everything_is_forgotten_at_once"),
        pytest.param(1e-6, 1e-6, id="nothing_is_forgotten"),
        pytest.param(1e-6, 1e3, id="tokens_of_both_kinds"),
    ],
)
@pytest.mark.parametrize("chunk_size", [16, 64])
def test_extreme_decays_are_finite_and_right(low, high, chunk_size):
    x, _, _, B, C, D = make_inputs(96)
    A = -torch.ones(2)
    dt = torch.where(torch.rand(2, 96, 2, generator=torch.Generator().manual_seed(2)) < 0.5, low, high)
    inputs = (x, dt, A, B, C, D)
    y = ssd_chunked(*inputs, chunk_size=chunk_size)
    truth = ssd_recurrent(*(t.double() for t in inputs))
    assert y.isfinite().all()
    torch.testing.assert_close(y.double(), truth, rtol=1e-4, atol=1e-4 * float(truth.abs().max()))

    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
    truth = gradients(ssd_recurrent, [t.double() for t in inputs], weights.double())
    ours = gradients(lambda *args: ssd_chunked(*args, chunk_size=chunk_size), inputs, weights)
    for name, a, b in zip(NAMES, ours, truth, strict=True):
        assert a.isfinite().all(), name
        assert (a - b).norm() <= 1e-3 * b.norm() + 1e-6, name


def test_zero_steps_leave_the_state_alone_and_have_finite_gradients():
    x, dt, A, B, C, D = make_inputs(20)
    dt = dt.index_fill(1, torch.tensor([3, 4, 11]), 0.0)
    torch.testing.assert_close(ssd_chunked(x, dt, A, B, C, D), ssd_recurrent(x, dt, A, B, C, D), rtol=1e-4, atol=1e-5)
    for name, g in zip(NAMES, gradients(ssd_chunked, (x, dt, A, B, C, D), torch.ones_like(x)), strict=True):
        assert g.isfinite().all(), name


def test_bfloat16_input_is_accumulated_in_float32():
    # Steps of 1/512 in a sum near 1 are lost in bfloat16: its cumulative decay would be wrong by tens of percent.
    x, _, _, B, C, D = make_inputs(200, dtype=torch.bfloat16)
    dt, A = torch.full((2, 200, 2), 1 / 512), -torch.ones(2)
    y = ssd_chunked(x, dt, A, B, C, D)
    truth = ssd_recurrent(*(t.double() for t in (x, dt, A, B, C, D)))
    assert y.dtype is torch.bfloat16
    assert (y.double() - truth).norm() < 0.01 * truth.norm()


def test_autocast_does_not_reach_inside():
    inputs = make_inputs(100)
    expected = ssd_chunked(*inputs, chunk_size=32)
    with torch.autocast("cpu", torch.bfloat16):
        got = ssd_chunked(*inputs, chunk_size=32)
    assert got.dtype is torch.float32
    assert torch.equal(got, expected)


def kept_bytes(function, inputs):
    """Memory that is kept for the backward pass beyond the inputs."""
    return saved_bytes(torch.nn.Module(), function, *(t.detach().requires_grad_() for t in inputs))


def test_what_is_kept_for_the_backward_pass_grows_linearly_and_holds_neither_decays_nor_states():
    sizes = {c: kept_bytes(ssd_chunked, make_inputs(c, n=1, h=4, p=32, s=32)) for c in (512, 2048)}
    assert sizes[2048] <= 4.1 * sizes[512]
    inputs = make_inputs(512, n=2, h=8, p=64, s=64)
    kept = kept_bytes(lambda *args: ssd_chunked(*args, chunk_size=64), inputs)
    assert kept <= 0.25 * sum(t.nbytes for t in inputs)


@pytest.mark.parametrize(
    ("c", "p", "s"),
    [(1, 1, 1), (64, 32, 32), (65, 32, 32), (200, 64, 64), (513, 64, 64), (4510, 128, 128), (10_000, 16, 8)],
)
def test_the_chosen_chunk_pads_little(c, p, s):
    q = choose_chunk_size(c, p, s)
    assert 1 <= q <= 256
    assert -(-c // q) * q - c <= max(q // 4, 0.03 * c)


@pytest.mark.parametrize("c", [24, 256, 512])
def test_round_lengths_are_not_padded(c):
    assert c % choose_chunk_size(c, 64, 64) == 0


def test_wider_states_make_longer_chunks():
    assert choose_chunk_size(10_000, 16, 16) < choose_chunk_size(10_000, 128, 128)
