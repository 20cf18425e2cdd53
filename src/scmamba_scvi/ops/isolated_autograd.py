"""A computation in the middle of another one, such as a measurement on first use: neither notices the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def isolated_autograd(device: torch.device, *, grad: bool) -> Iterator[None]:
    """Within the block, autograd and autocast are as at the start of a program, with gradients if ``grad``.

    Activation checkpointing counts what is saved for the backward pass, and computes all of it again when some of it is
    asked for; other hooks measure it. What is saved within the block passes them by.
    """
    with (
        torch.inference_mode(False),
        torch.set_grad_enabled(grad),
        torch.autocast(device.type, enabled=False),
        torch.autograd.graph.saved_tensors_hooks(_as_it_is, _as_it_is),
    ):
        yield


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
