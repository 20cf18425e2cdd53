"""Memory: what is free, and what a network keeps for its backward pass."""

from collections.abc import Callable

import psutil
import torch
from torch import Tensor, nn


def saved_bytes(module: nn.Module, function: Callable[..., object], *args: Tensor) -> int:
    """Bytes that autograd keeps of ``function(*args)``, not counting ``args`` and the parameters of ``module``.

    Measured in one run, not derived: what is kept depends on the back-end of the scan, the precision and the device.
    """
    not_counted = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *args)}
    # holding the tensors keeps their storages alive, so that none is freed and its address used by another
    held: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else None
        if storage is not None and storage not in not_counted:
            held[storage] = tensor.detach()
        return tensor.detach()  # with its graph, the graph would hold itself

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function(*args)
    del result
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def free_bytes(device: torch.device) -> int:
    """Memory of a GPU, or else of the machine, that nothing has."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
