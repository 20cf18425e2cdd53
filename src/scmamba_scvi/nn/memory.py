"""What a network keeps for its backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def saved_bytes(module: nn.Module, function: Callable[..., object], *args: Tensor) -> int:
    """Bytes that autograd keeps of ``function(*args)``; parameters of ``module`` and ``args`` are there anyway.

    Measured in one run, not derived: what is kept depends on the back-end of the scan, the precision and the device.
    """
    there = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *args)}
    # the tensors are held, so that no storage is freed and its address counted for another one
    held: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else None
        if storage is not None and storage not in there:
            held[storage] = tensor
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function(*args)
    del result
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())
