"""Activation checkpointing: how many blocks compute their activations again in the backward pass instead of keeping them."""

from __future__ import annotations

import torch

from ...nn.memory import free_bytes
from .._module import SCMAMBAModule

#: Fraction of the free memory that activations may take; the rest is for what operations need while they run.
FRACTION = 0.8


def set_checkpointing(module: SCMAMBAModule, asked: bool | None, n_cells: int) -> None:
    """Checkpoint all blocks or none; `None`: as few as make the activations of ``n_cells`` cells fit into the free memory."""
    kept = [[] if asked is not None else network.activation_bytes() for network in module.sequences]
    n_checkpointed = 0
    if any(kept):
        free = free_bytes(module.device) - bytes_to_allocate(module)
        blocks = [block for of_network in kept for block in of_network]
        n_checkpointed = fewest_that_fit(blocks, n_cells, FRACTION * free)
    for network, of_network in zip(module.sequences, kept, strict=True):
        network.n_checkpointed = len(network.blocks) if asked else min(n_checkpointed, len(of_network))
        n_checkpointed -= network.n_checkpointed


def fewest_that_fit(blocks: list[tuple[int, int]], n_cells: int, budget: float) -> int:
    """How many of ``blocks`` (bytes kept and bytes of the input, per cell) to checkpoint; all if nothing else fits."""
    return next((n for n in range(len(blocks)) if activation_bytes(blocks, n_cells, n) <= budget), len(blocks))


def activation_bytes(blocks: list[tuple[int, int]], n_cells: int, n_checkpointed: int) -> int:
    """Most bytes of activations at a time, if the first ``n_checkpointed`` blocks keep their inputs alone."""
    inputs = sum(of_input for _, of_input in blocks[:n_checkpointed])
    again = max((kept for kept, _ in blocks[:n_checkpointed]), default=0)
    # beside what is kept, the backward pass of a block has gradients, and activations that it computes again: as much once more
    at_work = max((kept for kept, _ in blocks), default=0)
    # blocks after them are done with when the first is computed again
    return n_cells * (inputs + max(again, sum(kept for kept, _ in blocks[n_checkpointed:])) + at_work)


def bytes_to_allocate(module: torch.nn.Module) -> int:
    """Gradients and AdamW's two moments, which are not allocated yet before the first step."""
    return 3 * sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
