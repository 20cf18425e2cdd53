"""Activation checkpointing: are activations of blocks kept for the backward pass, or computed again?"""

from __future__ import annotations

from typing import cast

import torch

from ...nn.encoder import Encoder
from .._module import SCMAMBAModule

#: Fraction of the free memory that activations may take; the rest is for what operations need while they run.
FRACTION = 0.7


def set_checkpointing(module: SCMAMBAModule, asked: bool | None, n_cells: int) -> None:
    """Switch it on or off in all encoders; `None`: on if a GPU could not keep the activations of ``n_cells`` cells."""
    encoders = cast(list[Encoder], list(module.encoders.values()))
    for encoder in encoders:
        encoder.checkpoint_activations(bool(asked))
    if asked is None and module.device.type == "cuda":
        n_bytes = n_cells * sum(encoder.activation_bytes() for encoder in encoders)
        for encoder in encoders:
            encoder.checkpoint_activations(not fits(n_bytes, module, torch.cuda.mem_get_info(module.device)[0]))


def fits(n_bytes: int, module: torch.nn.Module, free: int) -> bool:
    """Whether ``n_bytes`` of activations fit beside gradients and AdamW's two moments, which are not allocated yet."""
    to_allocate = 3 * sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    return n_bytes <= FRACTION * (free - to_allocate)
