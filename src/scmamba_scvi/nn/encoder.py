"""One modality's encoder: transformed counts of a cell to a unit vector in the shared space."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from .attention import Attention
from .block import Block, in_slices
from .mamba2 import Mamba2
from .norms import RMSNorm
from .spectral import LinearStart
from .tokenizer import FeatureEmbedding, PatchTokenizer, hide

#: Root mean square of the feature embeddings that hold the spectral start. AdamW moves every entry by about the
#: learning rate per step, so this fixes how far, relative to its size, a step can move the start.
SPECTRAL_RMS = 0.01


class Encoder(nn.Module):
    """``normalise(skip(x) + gate * network(x))``: a linear map that training starts from, and a network beside it.

    Parameters
    ----------
    config, kind
        The network, and the kind of modality whose entries of ``config`` are read.
    slots, n_patches, patch_size
        Layout of the features, see `PatchTokenizer`.
    """

    def __init__(self, config: ModelConfig, kind: str, slots: Tensor, n_patches: int, patch_size: int) -> None:
        super().__init__()
        self.mask_rate = config.mask_rate
        self.only_linear = False
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
        x = hide(x, self.mask_rate, self.training)
        if self.only_linear:
            return F.normalize(self.skip(self.embedding.total(x)).float(), dim=-1)
        if isinstance(self.network, SequenceNetwork):
            tokens, total = self.embedding(x)  # (n, c, d), (n, e)
            from_network = self.network(tokens)
        else:
            total = self.embedding(x) if self.skip is not None else None
            from_network = self.network(x) if self.network is not None else None
        z = self.skip(total).float() if self.skip is not None else 0.0
        if from_network is not None:
            z = z + self.gate * from_network.float()
        return F.normalize(z, dim=-1)  # (n, z)

    @torch.no_grad()
    def start_from(self, start: LinearStart) -> None:
        """Make the untrained encoder equal to ``start``, up to the scale of the vectors before they are normalised."""
        n_found = start.weight.shape[1]
        rms = start.weight.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        # directions that the start does not have stay zero in the skip, and free for the network
        self.embedding.weight.normal_(0, SPECTRAL_RMS)
        self.embedding.weight[:, :n_found] = start.weight * (SPECTRAL_RMS / rms)
        self.skip.weight.zero_()
        self.skip.weight[:n_found, :n_found] = torch.eye(n_found, device=self.skip.weight.device) * (rms / SPECTRAL_RMS)
        self.skip.bias.zero_()
        self.skip.bias[:n_found] = -start.offset

    def spectral_parameters(self) -> list[nn.Parameter]:
        """What holds the linear part; it starts good, so it is trained slowly."""
        return [self.embedding.weight, *self.skip.parameters()] if self.skip is not None else []


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

    def forward(self, tokens: Tensor) -> Tensor:
        """``(n, c, d)`` to ``(n, z)``, not normalised."""
        pooled = in_slices(self._read, tokens)  # (n, d)
        if self.pool_norm is not None:
            pooled = self.pool_norm(pooled.float())
        return self.head(self.dropout(pooled.tanh() if self.pool_tanh else pooled))

    def _read(self, h: Tensor) -> Tensor:
        """Blocks and pooling, ``(n, c, d)`` to ``(n, d)``; every cell for itself."""
        for i, block in enumerate(self.blocks):
            # of the last block only what is pooled; a mean needs all tokens, for the norm before it is not linear
            h = block(h, last_only=self.pooling == "last" and i == len(self.blocks) - 1)
        if self.pooling == "last":
            return self.norm(h[:, -1])
        h = self.norm(h)
        return h.mean(1) if self.pooling == "mean" else h.mean(1) + h[:, -1]


class MLPNetwork(nn.Module):
    """Two hidden layers on all features at once, without an order: the baseline a sequence model has to beat."""

    def __init__(self, n_features: int, config: ModelConfig) -> None:
        super().__init__()
        width = 2 * config.d_model
        self.first = FeatureEmbedding(n_features, width)
        self.rest = nn.Sequential(
            nn.LayerNorm(width), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(width, config.d_model), nn.GELU(),
            nn.Linear(config.d_model, config.n_latent),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """``(n, f)``, dense or CSR, to ``(n, z)``."""
        return self.rest(self.first(x))


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
