"""Activation checkpointing: are activations of blocks kept for the backward pass, or computed again?"""

from __future__ import annotations

import lightning.pytorch as pl
import torch

from ...nn.encoder import SequenceNetwork
from ...nn.memory import saved_bytes
from .._module import SCMAMBAModule

#: Share of the free memory that activations may take; the rest is for what operations need while they run.
SHARE = 0.7


def decide_checkpointing(
    module: SCMAMBAModule, asked: bool | None, micro_batch_size: int | None, trainer: pl.Trainer
) -> None:
    """Switch it on or off in all encoders; `None`: on if a GPU could not keep the activations of a micro-batch."""
    networks = [e.network for e in module.encoders.values() if isinstance(e.network, SequenceNetwork)]
    if asked is None:
        asked = False
        if module.device.type == "cuda" and networks:
            size = micro_batch_size or trainer.datamodule.max_cells_of_rank
            with trainer.precision_plugin.forward_context():
                per_cell = sum(bytes_of_cell(encoder) for encoder in module.encoders.values())
            asked = not fits(per_cell * size, module, torch.cuda.mem_get_info(module.device)[0])
    for network in networks:
        network.checkpoint_blocks = asked


def bytes_of_cell(encoder: torch.nn.Module) -> int:
    """Bytes of activations that the blocks of an encoder keep for one cell."""
    if not isinstance(encoder.network, SequenceNetwork):
        return 0
    position = encoder.embedding.position  # (c, d)
    tokens = torch.zeros(2, *position.shape, device=position.device)
    return saved_bytes(encoder.network, encoder.network, tokens) // 2


def fits(n_bytes: int, module: torch.nn.Module, free: int) -> bool:
    """Whether ``n_bytes`` of activations fit beside gradients and AdamW's two moments, which are not allocated yet."""
    to_allocate = 3 * sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    return n_bytes <= SHARE * (free - to_allocate)
