"""The sequence model of one modality: tokens of a cell to one vector (paper, sections 4.1.2 and 4.1.3)."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..config import ModelConfig
from ..ops.fused import add_norm
from ..ops.launch import compiling
from .attention import Attention
from .block import EPS, Block, dtype_of_product
from .graphs import MAX_SIZE, NetworkGraph
from .mamba2 import Mamba2
from .memory import saved_bytes

#: Numbers (tokens x width) that go through the blocks together on a CPU: enough for efficient matrix products, few enough
#: for the activations of a block to stay in cache, and below the size (32 MB) from which the C library takes fresh pages
#: from the system for every tensor, which costs more than what is computed on them.
CPU_SLICE_SIZE: Final = 2**19


class SequenceNetwork(nn.Module):
    """Blocks over the patches of a cell, pooled to one vector.

    ``kind`` is that of the modality, whose options of ``config`` are used; a cell has ``n_patches`` tokens.
    """

    def __init__(self, config: ModelConfig, kind: str, n_patches: int) -> None:
        super().__init__()
        attention = config.of_kind("attention_layers", kind)
        n_layers = config.of_kind("n_layers", kind)
        self.blocks = nn.ModuleList(_block(config, is_attention=i in attention) for i in range(n_layers))
        self.norm = nn.RMSNorm(config.d_model, EPS)
        self.pooling = config.pooling
        self._shape = n_patches, config.d_model
        #: first blocks whose activations are computed again in the backward pass instead of kept
        self.n_checkpointed = 0
        #: takes the place of `forward` where it can, while a training lasts
        self.graph: NetworkGraph | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        """``(n, c, d)`` to ``(n, d)``; treats every cell by itself, on a CPU a slice of cells at a time."""
        if self.graph is not None and self.training and self.graph.takes(tokens):
            return self.graph(tokens)
        n_cells = max(1, CPU_SLICE_SIZE // max(1, math.prod(tokens.shape[1:])))
        if tokens.device.type != "cpu" or len(tokens) <= n_cells:
            return self._pooled(tokens)
        return torch.cat([self._pooled(part) for part in tokens.split(n_cells)])

    def _pooled(self, x: Tensor) -> Tensor:
        added = None  # to the tokens, by the next norm
        for i, block in enumerate(self.blocks):
            # the last token alone is enough for the last block if nothing else is pooled; a mean needs all tokens
            last_only = self.pooling == "last" and i == len(self.blocks) - 1
            if i < self.n_checkpointed and torch.is_grad_enabled():
                x, added = checkpoint(block, x, added, last_only, use_reentrant=False)
            else:
                x, added = block(x, added, last_only)
        _, normal = add_norm(x, added, EPS)
        if self.pooling == "last":
            pooled = normal[:, -1]
        else:
            pooled = normal.mean(1) if self.pooling == "mean" else normal.mean(1) + normal[:, -1]
        return pooled * self.norm.weight

    # -- what a training asks for: none of it draws random numbers

    def activation_bytes(self) -> list[tuple[int, int]]:
        """Memory of the blocks in training, for one cell: per block, bytes of its activations and bytes of its input."""
        device = self.norm.weight.device
        tokens = [torch.zeros(n_cells, *self._shape, device=device) for n_cells in (2, 4)]
        added = [x.to(dtype_of_product(x)) for x in tokens]
        # the difference: bf16 copies of weights, which autocast makes, are no activations of a cell
        of_two, of_four = (
            [saved_bytes(block, block, *terms) for block in self.blocks] for terms in zip(tokens, added, strict=True)
        )
        kept = [(four - two) // 2 for two, four in zip(of_two, of_four, strict=True)]
        of_input = math.prod(self._shape) * (tokens[0].element_size() + added[0].element_size())
        # before the first block: tokens, their bf16 copy and gradient, and what they were projected from
        kept[:1] = [n_bytes + 2 * of_input for n_bytes in kept[:1]]
        return [(n_bytes, of_input) for n_bytes in kept]

    def compile_kernels(self, n_cells: int) -> None:
        """On a GPU, compile the kernels of a training step of ``n_cells`` side by side."""
        device = self.norm.weight.device
        if device.type != "cuda":
            return
        # sizes that are divisible by 16 where those of a minibatch are
        tokens = torch.zeros(min(n_cells, 16), *self._shape, device=device, requires_grad=True)
        with compiling():
            torch.autograd.grad(self(tokens).sum(), tokens)

    def record_graph(self, n_cells: int) -> None:
        """On a GPU, launch the network as a whole from now on, if minibatches of ``n_cells`` are small and all is trained."""
        is_trained = all(parameter.requires_grad for parameter in self.parameters())
        is_small = n_cells * math.prod(self._shape) <= MAX_SIZE and not self.n_checkpointed
        if self.norm.weight.device.type == "cuda" and is_trained and is_small:
            self.graph = NetworkGraph(self, (n_cells, *self._shape))


def _block(config: ModelConfig, *, is_attention: bool) -> Block:
    if is_attention:
        mixer: Attention | Mamba2 = Attention(config.d_model, n_heads=config.attention_heads)
    else:
        mixer = Mamba2(
            config.d_model, d_state=config.d_state, d_conv=config.d_conv, expand=config.expand, headdim=config.headdim,
            bidirectional=config.bidirectional, ssd_backend=config.ssd_backend,
        )  # fmt: skip
    return Block(config.d_model, mixer, d_mlp=config.d_mlp, layer_scale=config.layer_scale)
