from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from scmamba_scvi.nn.memory import saved_bytes
from scmamba_scvi.ops import fused
from scmamba_scvi.ops.isolated_autograd import isolated_autograd

CPU = torch.device("cpu")


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("outside", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_gradients_are_as_asked_whatever_is_outside(outside, grad):
    with outside():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        with isolated_autograd(CPU, grad=grad):
            y = (torch.ones(2, requires_grad=True) * 2).sum()
            assert y.requires_grad == grad and not torch.is_inference_mode_enabled()
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before


def test_autocast_of_the_caller_is_off_inside_and_on_again_after():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with isolated_autograd(CPU, grad=False):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_hooks_of_the_caller_see_only_what_is_saved_outside():
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t) or t, lambda t: t):
        with isolated_autograd(CPU, grad=True):
            x = torch.full((3,), 2.0, requires_grad=True)
            (gradient,) = torch.autograd.grad(x.square().sum(), x)
        assert not seen and gradient.tolist() == [4.0] * 3
        torch.ones(3, requires_grad=True).square()
        assert seen


def test_an_error_inside_leaves_the_caller_as_it_was():
    with pytest.raises(ZeroDivisionError), torch.no_grad(), isolated_autograd(CPU, grad=True):
        raise ZeroDivisionError
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def check_kernels():
    assert fused._fault(fused, torch.device("cpu"), torch.float32) == ""


def test_what_is_done_on_first_use_is_not_part_of_the_pass_that_it_happens_in():
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
