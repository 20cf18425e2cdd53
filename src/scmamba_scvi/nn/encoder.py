"""One modality's encoder: transformed counts of a cell to a unit vector in the shared space."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..config import ModelConfig
from .attention import Attention
from .block import Block
from .mamba2 import Mamba2
from .memory import saved_bytes
from .norms import RMSNorm
from .spectral import LinearInitialization
from .tokenizer import FeatureEmbedding, PatchTokenizer, hide

#: Root mean square of the feature embeddings that hold the spectral start. AdamW moves every entry by about the
#: learning rate per step, so this fixes how far, relative to its size, a step can move the start.
SPECTRAL_RMS = 0.01
#: Numbers (tokens x width) that go through the blocks together on a CPU: enough for efficient matrix products, few enough
#: for the activations of a block to stay in cache, and below the size (32 MB) from which the C library takes fresh pages
#: from the system for every tensor, which costs more than what is computed on them.
CPU_SLICE_SIZE = 2**19


class Encoder(nn.Module):
    """``normalise(skip(x) + gate * network(x))``: a linear map that training starts from, and a network beside it.

    It works in two halves: `per_cell` treats every cell by itself and needs nearly all the memory, `across_cells` looks at
    the cells of a minibatch together. In between, cells that were computed in parts, or on several devices, are put together.

    Parameters
    ----------
    config, kind
        The network, and the kind of modality whose options of ``config`` are used.
    slots, n_patches, patch_size
        Layout of the features, see `PatchTokenizer`.

    Examples
    --------
    >>> encoder = nn.Encoder(config.resolve_config("small"), "rna", torch.arange(100), n_patches=4, patch_size=25)
    >>> encoder.eval()(torch.rand(2, 100)).norm(dim=1).round(decimals=4).tolist()
    [1.0, 1.0]
    """

    def __init__(self, config: ModelConfig, kind: str, slots: Tensor, n_patches: int, patch_size: int) -> None:
        super().__init__()
        self.mask_rate = config.mask_rate
        #: Whether the linear part is trained alone, without the network.
        self.only_linear = False
        #: Whether batch normalisation keeps and uses its statistics in training too, as while new data are mapped.
        self.keep_statistics = False
        if config.encoder == "mamba":
            self.embedding = PatchTokenizer(
                slots, n_patches, patch_size, d_model=config.d_model, d_feature=config.d_feature,
                patch_embedding=config.patch_embedding,
            )  # fmt: skip
            self.network = SequenceNetwork(config, kind)
        else:
            self.embedding = FeatureEmbedding(len(slots), config.d_feature)
            self.network = MLPNetwork(len(slots), config) if config.encoder == "mlp" else None
        self.skip = nn.Linear(self.embedding.weight.shape[1], config.n_latent) if config.skip else None
        self.gate = nn.Parameter(torch.full((config.n_latent,), float(config.gate_init))) if self.network else None

    def forward(self, x: Tensor) -> Tensor:
        """Values ``(n, f)``, dense or CSR, to unit vectors ``(n, z)`` in float32."""
        return self.across_cells(self.per_cell(x))

    def per_cell(self, x: Tensor) -> Tensor:
        """The linear part and the first half of the network side by side, ``(n, f)`` to ``(n, hidden_width)`` in float32."""
        x = hide(x, self.mask_rate, self.training)
        if self.only_linear:
            return self.skip(self.embedding.total(x)).float()
        if isinstance(self.network, SequenceNetwork):
            tokens, total = self.embedding(x)  # (n, c, d), (n, e)
            of_network = self.network.per_cell(tokens)
        else:
            total = self.embedding(x) if self.skip is not None else None
            of_network = self.network.per_cell(x) if self.network is not None else None
        linear = self.skip(total) if self.skip is not None else None
        return torch.cat([part.float() for part in (linear, of_network) if part is not None], -1)

    def across_cells(self, hidden: Tensor) -> Tensor:
        """Second half of the network, gate and sum: what `per_cell` returned to unit vectors ``(n, z)``."""
        if self.only_linear or self.network is None:
            return F.normalize(hidden, dim=-1)
        linear, of_network = hidden.split([hidden.shape[1] - self.network.width, self.network.width], -1)
        from_network = self.gate * self.network.across_cells(of_network, keep_statistics=self.keep_statistics).float()
        return F.normalize(linear + from_network if self.skip is not None else from_network, dim=-1)  # (n, z)

    @property
    def hidden_width(self) -> int:
        """Columns of what `per_cell` returns."""
        linear = self.skip.out_features if self.skip is not None else 0
        return linear if self.only_linear or self.network is None else linear + self.network.width

    @torch.no_grad()
    def initialize_from(self, start: LinearInitialization) -> None:
        """Make the untrained encoder equal to ``start``, up to the scale of the vectors before they are normalised."""
        n_found = start.weight.shape[1]
        rms = start.weight.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        # latent dimensions for which the start has no direction are zero in the skip, free for the network
        self.embedding.weight.normal_(0, SPECTRAL_RMS)
        self.embedding.weight[:, :n_found] = start.weight * (SPECTRAL_RMS / rms)
        self.skip.weight.zero_()
        self.skip.weight[:n_found, :n_found] = torch.eye(n_found, device=self.skip.weight.device) * (rms / SPECTRAL_RMS)
        self.skip.bias.zero_()
        self.skip.bias[:n_found] = -start.offset

    def checkpoint_activations(self, on: bool) -> None:
        """In training, keep only the input of each block and compute the rest again in the backward pass, or do not."""
        if isinstance(self.network, SequenceNetwork):
            self.network.checkpoint_blocks = on

    def activation_bytes(self) -> int:
        """Bytes of activations that the blocks keep for one cell in training; draws no random numbers."""
        if not isinstance(self.network, SequenceNetwork):
            return 0
        position = self.embedding.position  # (c, d)
        tokens = torch.zeros(2, *position.shape, device=position.device)
        with torch.random.fork_rng():
            return saved_bytes(self.network, self.network.per_cell, tokens) // 2

    def spectral_parameters(self) -> list[nn.Parameter]:
        """Parameters of the linear part, which start good and are trained slowly; none without a skip."""
        return [self.embedding.weight, *self.skip.parameters()] if self.skip is not None else []

    def adaptable_parameters(self) -> list[nn.Parameter]:
        """What training on new data may change without moving the reference far: the bias of the skip, and the gate."""
        bias = [] if self.skip is None else [self.skip.bias]
        return bias if self.gate is None else [*bias, self.gate]

    def network_parameters(self) -> list[nn.Parameter]:
        """Parameters that only the network reads."""
        linear = {id(parameter) for parameter in self.spectral_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in linear]


class SequenceNetwork(nn.Module):
    """Blocks over the patches of a cell, pooled to one vector (paper, sections 4.1.2 and 4.1.3)."""

    def __init__(self, config: ModelConfig, kind: str) -> None:
        super().__init__()
        attention = config.of_kind("attention_layers", kind)
        n_layers = config.of_kind("n_layers", kind)
        self.blocks = nn.ModuleList(_block(config, is_attention=i in attention) for i in range(n_layers))
        if config.compile:
            for block in self.blocks:
                block.compile(fullgraph=True)
        self.norm = RMSNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.pooling = config.pooling
        # without it all cells start in almost one direction and the cosine term collapses the embedding
        self.pool_norm = nn.BatchNorm1d(config.d_model, affine=False) if config.pool_norm == "batch" else None
        self.pool_tanh = config.pool_norm == "tanh"
        self.head = _head(config)
        self.width = config.d_model
        #: compute the activations of blocks again in the backward pass instead of keeping them
        self.checkpoint_blocks = False

    def forward(self, tokens: Tensor) -> Tensor:
        """``(n, c, d)`` to ``(n, z)``, not normalised."""
        return self.across_cells(self.per_cell(tokens))

    def per_cell(self, tokens: Tensor) -> Tensor:
        """Blocks and pooling, ``(n, c, d)`` to ``(n, d)``; treats every cell by itself."""
        return in_slices(self._pooled, tokens)

    def across_cells(self, pooled: Tensor, *, keep_statistics: bool = False) -> Tensor:
        """Normalisation over the cells, and head, ``(n, d)`` to ``(n, z)``.

        With ``keep_statistics`` it normalises by the running statistics in training too, and does not update them.
        """
        if self.pool_norm is not None and keep_statistics:
            norm = self.pool_norm
            pooled = F.batch_norm(pooled.float(), norm.running_mean, norm.running_var, eps=norm.eps)
        elif self.pool_norm is not None:
            pooled = self.pool_norm(pooled.float())
        return self.head(self.dropout(pooled.tanh() if self.pool_tanh else pooled))

    def _pooled(self, h: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            # the last token alone is enough for the last block if nothing else is pooled; a mean needs all tokens
            h = self._run(block, h, last_only=self.pooling == "last" and i == len(self.blocks) - 1)
        if self.pooling == "last":
            return self.norm(h[:, -1])
        h = self.norm(h)
        return h.mean(1) if self.pooling == "mean" else h.mean(1) + h[:, -1]

    def _run(self, block: Block, h: Tensor, last_only: bool) -> Tensor:
        if self.checkpoint_blocks and torch.is_grad_enabled():
            return checkpoint(block, h, last_only, use_reentrant=False)
        return block(h, last_only=last_only)


class MLPNetwork(nn.Module):
    """Two hidden layers on all features at once, without an order: the baseline a sequence model has to beat."""

    def __init__(self, n_features: int, config: ModelConfig) -> None:
        super().__init__()
        self.width = 2 * config.d_model
        self.first = FeatureEmbedding(n_features, self.width)
        self.rest = nn.Sequential(
            nn.LayerNorm(self.width), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(self.width, config.d_model), nn.GELU(),
            nn.Linear(config.d_model, config.n_latent),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """``(n, f)``, dense or CSR, to ``(n, z)``."""
        return self.across_cells(self.per_cell(x))

    def per_cell(self, x: Tensor) -> Tensor:
        """``(n, f)``, dense or CSR, to the first hidden layer ``(n, 2 d)``."""
        return self.first(x)

    def across_cells(self, hidden: Tensor, *, keep_statistics: bool = False) -> Tensor:
        """``(n, 2 d)`` to ``(n, z)``; there are no statistics over cells to keep."""
        return self.rest(hidden)


def in_slices(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function(x)`` for a function that treats cells apart, on a CPU a slice of cells at a time.

    Values and gradients are those of ``function(x)``; a training step is faster, as activations stay in cache.

    Parameters
    ----------
    function
        From ``(n, c, ...)`` to ``(n, ...)``.
    x
        ``(n, c, ...)``.
    """
    n_cells = max(1, CPU_SLICE_SIZE // max(1, math.prod(x.shape[1:])))
    if x.device.type != "cpu" or x.shape[0] <= n_cells:
        return function(x)
    return torch.cat([function(part) for part in x.split(n_cells)])


def _block(config: ModelConfig, *, is_attention: bool) -> Block:
    if is_attention:
        mixer: nn.Module = Attention(config.d_model, n_heads=config.attention_heads)
    else:
        mixer = Mamba2(
            config.d_model, d_state=config.d_state, d_conv=config.d_conv, expand=config.expand, headdim=config.headdim,
            bidirectional=config.bidirectional, ssd_backend=config.ssd_backend,
        )  # fmt: skip
    return Block(config.d_model, mixer, d_mlp=config.d_mlp, layer_scale=config.layer_scale)


def _head(config: ModelConfig) -> nn.Module:
    if not config.d_head:
        return nn.Linear(config.d_model, config.n_latent, bias=False)
    return nn.Sequential(nn.Linear(config.d_model, config.d_head), nn.GELU(), nn.Linear(config.d_head, config.n_latent))
