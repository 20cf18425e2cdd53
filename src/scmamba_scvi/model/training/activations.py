"""Activation checkpointing: how many blocks compute their activations again in the backward pass instead of keeping them."""

from __future__ import annotations

from typing import cast

import torch

from ...nn.encoder import Encoder
from ...nn.memory import free_bytes
from .._module import SCMAMBAModule

#: Fraction of the free memory that activations may take; the rest is for what operations need while they run.
FRACTION = 0.8


def set_checkpointing(module: SCMAMBAModule, asked: bool | None, n_cells: int) -> None:
    """Checkpoint all blocks or none; `None`: as few as make the activations of ``n_cells`` cells fit into the free memory."""
    encoders = cast(list[Encoder], list(module.encoders.values()))
    kept = [encoder.activation_bytes() if asked is None and encoder.runs_network else [] for encoder in encoders]
    n_checkpointed = 0
    if any(kept):
        free = free_bytes(module.device) - bytes_to_allocate(module)
        blocks = [block for of_encoder in kept for block in of_encoder]
        n_checkpointed = fewest_that_fit(blocks, n_cells, FRACTION * free)
    for encoder, of_encoder in zip(encoders, kept, strict=True):
        # `True`: more than any network has
        of_this = 10**6 if asked else min(n_checkpointed, len(of_encoder))
        encoder.checkpoint_activations(of_this)
        n_checkpointed -= min(n_checkpointed, len(of_encoder))


def fewest_that_fit(blocks: list[tuple[int, int]], n_cells: int, budget: float) -> int:
    """How many of ``blocks`` (bytes kept and bytes of the input, per cell) to checkpoint; all if nothing else fits."""
    return next((n for n in range(len(blocks)) if activation_bytes(blocks, n_cells, n) <= budget), len(blocks))


def activation_bytes(blocks: list[tuple[int, int]], n_cells: int, n_checkpointed: int) -> int:
    """Most bytes of activations at a time, if the first ``n_checkpointed`` blocks keep their inputs alone."""
    inputs = sum(of_input for _, of_input in blocks[:n_checkpointed])
    again = max((kept for kept, _ in blocks[:n_checkpointed]), default=0)
    # blocks after them are done with when the first is computed again
    return n_cells * (inputs + max(again, sum(kept for kept, _ in blocks[n_checkpointed:])))


def bytes_to_allocate(module: torch.nn.Module) -> int:
    """Gradients and AdamW's two moments, which are not allocated yet before the first step."""
    return 3 * sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
