"""Rows of all processes gathered, with gradients: a loss over them is that of one large minibatch."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def world_size() -> int:
    """Number of processes that train together; 1 without distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among those that train together, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def gather_rows(x: Tensor) -> Tensor:
    """Rows of all ranks, those of rank 0 first, ``(n_r, m)`` to ``(sum n_r, m)``; ranks may have different numbers.

    The gradient of a row is the sum of what every rank sends back to it. Where all ranks compute one loss from the
    gathered rows and average their gradients, as `DistributedDataParallel` does, the result is the gradient of that
    loss on one device.
    """
    if world_size() == 1:
        return x
    lengths = torch.zeros(world_size(), dtype=torch.int64, device=x.device)
    lengths[rank()] = len(x)
    dist.all_reduce(lengths)
    padded = F.pad(x, (0, 0, 0, int(lengths.max()) - len(x))).contiguous()
    return torch.cat([part[:n] for part, n in zip(_AllGather.apply(padded), lengths.tolist(), strict=True)])


class _AllGather(torch.autograd.Function):
    """The tensors of all ranks, of one shape; torch deprecates its own function, whose successor not every torch has."""

    @staticmethod
    def forward(ctx, x: Tensor) -> tuple[Tensor, ...]:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x)
        return tuple(parts)

    @staticmethod
    def backward(ctx, *of_parts: Tensor) -> Tensor:
        sent_back = torch.stack(of_parts)
        dist.all_reduce(sent_back)
        return sent_back[rank()]


@torch.no_grad()
def copy_from_rank_0(tensors: list[Tensor]) -> None:
    """Overwrite ``tensors`` in place by those of rank 0."""
    if world_size() == 1:
        return
    for tensor in tensors:
        whole = tensor.contiguous()
        dist.broadcast(whole, 0)
        tensor.copy_(whole)
