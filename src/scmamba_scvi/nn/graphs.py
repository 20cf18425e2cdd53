"""CUDA graphs of small networks: on a GPU their steps wait for the host, which launches hundreds of short kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, cast

import torch
from torch import Tensor, nn

#: Numbers (tokens x width) of a minibatch up to which a GPU is done with a kernel sooner than the host has launched the next.
#: A graph keeps the memory of its activations, so that larger networks would pay and not gain.
MAX_SIZE: Final = 2**23


class NetworkGraph:
    """Forward and backward pass of a network, each launched as a whole, for input of one shape.

    Parameters
    ----------
    network
        In training mode, on a CUDA device; all its parameters are trained. It must not wait for the device, draw random
        numbers or move its parameters in memory while the graph is used.
    shape
        Of the input, in float32.
    """

    def __init__(self, network: nn.Module, shape: tuple[int, ...]) -> None:
        device = next(network.parameters()).device
        sample = torch.zeros(shape, device=device, requires_grad=True)
        self._shape, self._device = torch.Size(shape), device
        # casts of weights must be part of the graph; those in the cache are of this step, and belong to its stream
        torch.clear_autocast_cache()
        with (
            _left_as_found(device),
            torch.autocast("cuda", torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda"), False),
        ):
            self._call = torch.cuda.make_graphed_callables(_Network(network), (sample,), allow_unused_input=True)

    def takes(self, x: Tensor) -> bool:
        """Whether the graph computes what the network makes of ``x``."""
        return x.shape == self._shape and x.device == self._device and x.requires_grad and x.dtype == torch.float32

    def __call__(self, x: Tensor) -> Tensor:
        """What the network makes of ``x``; overwritten by the next call."""
        return cast(Tensor, self._call(x))


@contextmanager
def _left_as_found(device: torch.device) -> Iterator[None]:
    """Put back what torch does not after a recording that failed on ``device``: the stream, and that random numbers are drawn.

    What it has set aside of the memory for the graph stays with it.
    """
    stream = torch.cuda.current_stream(device)
    try:
        yield
    except RuntimeError:
        torch.cuda.set_stream(stream)
        # before torch 2.13 its state counts as being recorded, and no number can be drawn; that of a copy does not
        generator = torch.cuda.default_generators[stream.device_index]
        generator.graphsafe_set_state(generator.clone_state())
        raise


class _Network(nn.Module):
    """Calls a network that keeps its own ``forward``, which torch replaces in the module that it makes a graph of."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)
