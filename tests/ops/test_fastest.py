"""The choice between implementations, on a CPU: the functions are real or really broken."""

from __future__ import annotations

import time
import warnings

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from scmamba_scvi.nn.memory import saved_bytes
from scmamba_scvi.ops import fused
from scmamba_scvi.ops.fastest import Case, fastest
from scmamba_scvi.ops.ssd import ssd_chunked, ssd_recurrent


def case(**changes):
    given = {"device": torch.device("cpu"), "dtype": torch.float32, "c": 20, "h": 1, "p": 8, "s": 4, "training": True}
    return Case(**{**given, **changes})


def slow(*args):
    time.sleep(0.02)
    return ssd_chunked(*args)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_faster_of_two_that_agree_is_chosen(training, dtype):
    found = case(training=training, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fastest({"torch": slow, "other": ssd_chunked}, "torch", found) == "other"
        assert fastest({"torch": ssd_chunked, "other": slow}, "torch", found) == "torch"
        assert fastest({"other": ssd_recurrent, "torch": slow}, "torch", found) in ("torch", "other")


def raises(*args):
    raise OSError("no C compiler")


def half(*args):
    return ssd_chunked(*args) / 2


def nan(*args):
    return ssd_chunked(*args) * torch.nan


def no_gradient_of_B(x, dt, A, B, C, D):
    return ssd_chunked(x, dt, A, B.detach() + 0 * B, C, D)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        pytest.param(raises, "OSError: no C compiler", id="fails"),
        pytest.param(half, "values differ from the reference by 0.5", id="wrong_values"),
        pytest.param(nan, "values differ from the reference by nan", id="nan"),
        pytest.param(no_gradient_of_B, "gradients of B differ", id="wrong_gradient"),
    ],
)
def test_what_fails_or_differs_is_named_and_not_chosen(broken, reason):
    with pytest.warns(UserWarning, match=f"'new' is not used for 20 tokens.*{reason}"):
        assert fastest({"torch": slow, "new": broken}, "torch", case()) == "torch"


def test_gradients_are_not_asked_for_in_inference():
    assert fastest({"torch": slow, "new": no_gradient_of_B}, "torch", case(training=False)) == "new"


def test_measuring_leaves_the_generator_and_the_mode_as_they_were():
    torch.manual_seed(3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = torch.get_rng_state()
        fastest({"torch": slow, "new": ssd_chunked}, "torch", case())
        assert torch.equal(torch.get_rng_state(), before)
        assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")


def measure():
    fastest({"torch": ssd_chunked, "new": ssd_recurrent}, "torch", case())


def check_kernels():
    assert fused._fault(fused, torch.device("cpu"), torch.float32) == ""


@pytest.mark.parametrize("aside", [measure, check_kernels])
def test_what_is_done_on_first_use_is_not_part_of_the_pass_that_it_happens_in(aside):
    first_use = [aside, aside]

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
