from __future__ import annotations

import numpy as np
import pytest
import torch

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.nn.mamba2 import Mamba2

D_MODEL, SIZES = 8, {"d_state": 3, "d_conv": 4, "expand": 2, "headdim": 4}


def make_mixer(**overrides):
    torch.manual_seed(0)
    mixer = Mamba2(D_MODEL, **{**SIZES, **overrides})
    with torch.no_grad():  # no parameter at a value that hides a mistake
        mixer.D.uniform_(0.5, 2)
        mixer.norm.weight.uniform_(0.5, 2)
        mixer.conv1d.bias.normal_()
    return mixer


def tokens(n=2, c=11, seed=1):
    return torch.randn(n, c, D_MODEL, generator=torch.Generator().manual_seed(seed))


def silu(x):
    return x / (1 + np.exp(-x))


def published_mixer(mixer, u):
    """The mixer from its equations, one cell, one token, one head at a time, in numpy float64."""
    w = {name: value.double().numpy() for name, value in mixer.state_dict().items()}
    h, s = len(w["D"]), SIZES["d_state"]
    i = w["out_proj.weight"].shape[1]
    p, width = i // h, w["conv1d.weight"].shape[-1]
    out = np.zeros_like(u)
    for cell, sequence in enumerate(u):
        projected = sequence @ w["in_proj.weight"].T
        z, xBC, dt = projected[:, :i], projected[:, i : 2 * i + 2 * s], projected[:, 2 * i + 2 * s :]
        state = np.zeros((h, p, s))
        for t in range(len(sequence)):
            window = np.array([xBC[t - lag] if t >= lag else np.zeros(i + 2 * s) for lag in reversed(range(width))])
            mixed = silu((window * w["conv1d.weight"][:, 0].T).sum(0) + w["conv1d.bias"])
            x, B, C = mixed[:i].reshape(h, p), mixed[i : i + s], mixed[i + s :]
            step = np.log1p(np.exp(dt[t] + w["dt_bias"]))
            y = np.zeros((h, p))
            for head in range(h):
                decay = np.exp(-np.exp(w["A_log"][head]) * step[head])
                state[head] = decay * state[head] + step[head] * np.outer(x[head], B)
                y[head] = state[head] @ C + w["D"][head] * x[head]
            gated = y.reshape(i) * silu(z[t])
            out[cell, t] = w["out_proj.weight"] @ (gated / np.sqrt((gated**2).mean() + 1e-5) * w["norm.weight"])
    return out


@pytest.mark.parametrize("c", [1, 2, 11, 40, 90])
def test_output_is_that_of_the_published_equations(c):
    mixer, u = make_mixer(), tokens(c=c)
    expected = published_mixer(mixer, u.double().numpy())
    np.testing.assert_allclose(mixer(u).detach().numpy(), expected, rtol=1e-3, atol=1e-5)


def test_names_and_shapes_of_parameters_are_mamba_ssm_s():
    mixer = Mamba2(d_model=16, d_state=5, d_conv=3, expand=2, headdim=8)
    assert {name: tuple(p.shape) for name, p in mixer.state_dict().items()} == {
        "in_proj.weight": (32 + 32 + 5 + 5 + 4, 16),  # z, x, B, C, dt
        "conv1d.weight": (42, 1, 3),
        "conv1d.bias": (42,),
        "dt_bias": (4,),
        "A_log": (4,),
        "D": (4,),
        "norm.weight": (32,),
        "out_proj.weight": (16, 32),
    }


def test_both_directions_need_no_parameter_more():
    assert make_mixer(bidirectional=True).state_dict().keys() == make_mixer().state_dict().keys()


def test_parameters_start_in_the_published_ranges():
    mixer = Mamba2(512, headdim=1, expand=2)
    steps, rates = torch.nn.functional.softplus(mixer.dt_bias), mixer.A_log.exp()
    assert 9e-4 < steps.min() < 2e-3 and 0.05 < steps.max() < 0.101
    assert abs(steps.log10().mean() + 2) < 0.1  # log-uniform: half of them below 0.01
    assert 1 <= rates.min() < 1.5 and 15.5 < rates.max() <= 16
    assert abs(rates.mean() - 8.5) < 0.5
    assert mixer.D.eq(1).all() and mixer.norm.weight.eq(1).all()


def test_what_must_not_decay_is_marked():
    marked = {name for name, p in make_mixer().named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert marked == {"A_log", "D", "dt_bias"}


def changed_positions(mixer, at, c=30):
    u = tokens(c=c)
    before = mixer(u)
    u[:, at] += 1
    return (mixer(u) - before).abs().amax((0, 2)).gt(1e-7)


def test_both_directions_see_both_sides():
    assert changed_positions(make_mixer(bidirectional=True), at=12).all()


def test_reversing_the_tokens_reverses_a_bidirectional_mixer():
    mixer, u = make_mixer(bidirectional=True), tokens()
    torch.testing.assert_close(mixer(u.flip(1)), mixer(u).flip(1), rtol=1e-4, atol=1e-6)


def test_autocast_stays_close_and_finite():
    mixer, u = make_mixer(), tokens()
    exact = mixer(u)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = mixer(u)
    assert (rounded.float() - exact).norm() < 0.03 * exact.norm()
    rounded.float().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype is torch.float32 for p in mixer.parameters())


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ScmambaError, match="expand \\* d_model = 16 must be a multiple of headdim = 5"):
        make_mixer(headdim=5)
