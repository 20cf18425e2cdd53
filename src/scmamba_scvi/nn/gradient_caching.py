"""Gradient caching: a loss over many cells, of which only few have activations in memory at a time.

Gao et al. 2021, arXiv 2101.06983: compute the output of every micro-batch without keeping activations, then the gradient
of the loss with respect to these outputs, then each micro-batch once more to back-propagate that gradient. Activation
checkpointing of a whole micro-batch does the same, so `torch.utils.checkpoint` is used: it restores the random state for
the second computation, so that the same input is masked, it knows autocast and can be nested, and training code still sees
one forward and one backward pass (clipping, several devices, mixed precision).

Micro-batches end before everything that looks at cells together. Batch statistics are therefore those of all cells of the
loss, not of a micro-batch, and running statistics are updated once: the gradient is that of one large minibatch.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..ops.csr import slice_rows


def apply_in_parts(
    per_cell: Callable[[Mapping[str, Tensor]], dict[str, Tensor]], tensors: Mapping[str, Tensor], size: int | None
) -> dict[str, Tensor]:
    """``per_cell(tensors)``, at most ``size`` cells at a time; with `None` nothing is computed twice.

    ``per_cell`` maps a minibatch to a dict of rows ``(n, m)``, and must treat each cell independently of the others.
    """
    parts = [tensors] if size is None else list(split_minibatch(tensors, size))
    if len(parts) == 1 or not torch.is_grad_enabled():
        found = [per_cell(part) for part in parts]
    else:
        found = [checkpoint(per_cell, part, use_reentrant=False) for part in parts]
    return found[0] if len(found) == 1 else {name: torch.cat([part[name] for part in found]) for name in found[0]}


def split_minibatch(tensors: Mapping[str, Tensor], size: int) -> Iterator[dict[str, Tensor]]:
    """As few parts of at most ``size`` cells as possible, of nearly equal size."""
    n_cells = next(iter(tensors.values())).shape[0]
    n_parts = max(1, -(-n_cells // size))
    bounds = [n_cells * i // n_parts for i in range(n_parts + 1)]
    for first, last in zip(bounds, bounds[1:], strict=False):
        yield {name: slice_rows(tensor, first, last) for name, tensor in tensors.items()}
