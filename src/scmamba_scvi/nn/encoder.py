"""One modality's encoder: transformed counts of a cell to a unit vector in the shared space."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from ..ops.csr import mask_inputs
from .sequence import SequenceNetwork
from .tokenizer import FeatureEmbedding, PatchTokenizer

#: Root mean square of the feature embeddings that hold the spectral initialization. AdamW moves every entry by about the
#: learning rate per step, so this fixes how far, relative to its size, a step can move them.
SPECTRAL_RMS = 0.01


class Encoder(nn.Module):
    """``normalize(linear_branch(x) + gate * head(network(x)))``: training starts from the linear branch.

    It works in two halves: `hidden` treats every cell by itself and needs nearly all the memory, `embed` looks at the cells
    of a minibatch together. In between, cells that were computed in parts, or on several devices, are put together.

    Parameters
    ----------
    config, kind
        The network, and the kind of modality whose options of ``config`` are used.
    slots, n_patches, patch_size
        Layout of the features, see `PatchTokenizer`.

    Examples
    --------
    >>> small, slots = config.resolve_config("small"), torch.arange(100)
    >>> encoder = nn.Encoder(small, "rna", slots, n_patches=4, patch_size=25)
    >>> z = encoder.eval()(torch.rand(2, 100))
    >>> z.norm(dim=1).round(decimals=4).tolist()
    [1.0, 1.0]
    """

    embedding: PatchTokenizer | FeatureEmbedding
    network: SequenceNetwork | FeatureEmbedding | None
    head: nn.Module

    def __init__(self, config: ModelConfig, kind: str, slots: Tensor, n_patches: int, patch_size: int) -> None:
        super().__init__()
        self.mask_rate, self.n_latent = config.mask_rate, config.n_latent
        if config.encoder == "mamba":
            self.embedding = PatchTokenizer(
                slots, n_patches, patch_size, d_model=config.d_model, d_feature=config.d_feature,
                patch_embedding=config.patch_embedding,
            )  # fmt: skip
            self.network, self.head, self._width = (
                SequenceNetwork(config, kind, n_patches), ProjectionHead(config), config.d_model,
            )  # fmt: skip
        else:
            self.embedding = FeatureEmbedding(len(slots), config.d_feature)
            self.network, self.head, self._width = None, nn.Identity(), 0
        if config.encoder == "mlp":  # on all features: the baseline that a sequence model has to beat
            self._width = 2 * config.d_model
            self.network = FeatureEmbedding(len(slots), self._width)
            self.head = nn.Sequential(
                nn.LayerNorm(self._width), nn.GELU(), nn.Dropout(config.dropout),
                nn.Linear(self._width, config.d_model), nn.GELU(), nn.Linear(config.d_model, config.n_latent),
            )  # fmt: skip
        self.linear_branch = (
            nn.Linear(self.embedding.weight.shape[1], config.n_latent) if config.linear_branch else None
        )
        self.gate = nn.Parameter(torch.full((config.n_latent,), float(config.gate_init))) if self.network else None

    def forward(self, x: Tensor) -> Tensor:
        """Embedding of cells: `embed` of what `hidden` returns.

        Parameters
        ----------
        x
            Values ``(n, f)``, dense or CSR.

        Returns
        -------
        Unit vectors ``(n, z)``, float32.
        """
        return self.embed(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """Linear branch and network side by side, every cell by itself. In training the input is masked first.

        Parameters
        ----------
        x
            Values ``(n, f)``, dense or CSR.

        Returns
        -------
        ``(n, hidden_width)``, float32: ``z`` columns of the linear branch, then those of the network.
        """
        if self.training and self.mask_rate > 0:
            x = mask_inputs(x, self.mask_rate)
        parts = []
        if self.network is None or not self.runs_network:
            total = self.embedding.total(x)
        elif isinstance(self.embedding, PatchTokenizer):
            tokens, total = self.embedding(x)  # (n, c, d), (n, e)
            parts = [self.network(tokens).float()]
        else:
            total, parts = self.embedding(x), [self.network(x).float()]
        if self.linear_branch is not None:
            with torch.autocast(x.device.type, enabled=False):  # which would round it
                parts.insert(0, self.linear_branch(total).float())
        return torch.cat(parts, -1)

    def embed(self, hidden: Tensor) -> Tensor:
        """Head, gate and sum. In training, the batch norm of the head sees the cells together.

        Parameters
        ----------
        hidden
            ``(n, hidden_width)``, what `hidden` returned.

        Returns
        -------
        Unit vectors ``(n, z)``.
        """
        if self.gate is None or not self.runs_network:
            return F.normalize(hidden, dim=-1)
        linear, of_network = hidden.split([hidden.shape[1] - self._width, self._width], -1)
        with torch.autocast(hidden.device.type, enabled=False):  # small beside the blocks, and the loss reads it
            z = self.gate * self.head(of_network)
        return F.normalize(z if self.linear_branch is None else linear + z, dim=-1)

    @property
    def runs_network(self) -> bool:
        """Whether the network is computed. It is not while its gate is closed and frozen and can neither add nor learn."""
        if self.gate is None or self.linear_branch is None or self.gate.requires_grad:
            return self.network is not None
        return bool((self.gate != 0).any())

    @property
    def hidden_width(self) -> int:
        """Columns of what `hidden` returns."""
        return (0 if self.linear_branch is None else self.n_latent) + (self._width if self.runs_network else 0)

    @torch.no_grad()
    def initialize_from(self, directions: Tensor, mean: Tensor) -> None:
        """Make the untrained encoder ``(x - mean) @ directions``, up to the length of vectors before they are normalized.

        Parameters
        ----------
        directions
            ``(f, k)``, at most as many as the embedding has dimensions. The other dimensions of the linear branch are zero.
        mean
            ``(f,)``, mean of the values that the directions were found on.
        """
        branch = self.linear_branch
        assert branch is not None, "nothing else can hold it"
        n_found = directions.shape[1]
        rms = directions.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        self.embedding.weight.normal_(0, SPECTRAL_RMS)
        self.embedding.weight[:, :n_found] = directions * (SPECTRAL_RMS / rms)
        branch.weight.zero_()
        branch.weight[:n_found, :n_found] = torch.eye(n_found, device=branch.weight.device) * (rms / SPECTRAL_RMS)
        branch.bias.zero_()
        branch.bias[:n_found] = -mean @ directions

    def spectral_parameters(self) -> list[nn.Parameter]:
        """Parameters of the linear branch, which start good and are trained slowly.

        Returns
        -------
        Feature embeddings, weight and bias; none without a linear branch.
        """
        return [] if self.linear_branch is None else [self.embedding.weight, *self.linear_branch.parameters()]

    def adaptable_parameters(self) -> list[nn.Parameter]:
        """What training on a query may change without moving the reference far.

        Returns
        -------
        Bias of the linear branch, and the gate, those that there are.
        """
        bias = [] if self.linear_branch is None else [self.linear_branch.bias]
        return bias if self.gate is None else [*bias, self.gate]

    def network_parameters(self) -> list[nn.Parameter]:
        """Parameters that the linear branch does not read.

        Returns
        -------
        All but `spectral_parameters`.
        """
        linear = {id(parameter) for parameter in self.spectral_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in linear]


class ProjectionHead(nn.Module):
    """Normalization over the cells of a minibatch, dropout, and the map to the latent space."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # without it the cosine term collapses the embedding: it shrinks all spread that the modalities do not share yet, which
        # before training is nearly all of it
        self.pool_norm = nn.BatchNorm1d(config.d_model, affine=False) if config.pool_norm == "batch" else None
        self.dropout = nn.Dropout(config.dropout)
        if config.d_head:
            self.projection: nn.Module = nn.Sequential(
                nn.Linear(config.d_model, config.d_head), nn.GELU(), nn.Linear(config.d_head, config.n_latent)
            )
        else:
            self.projection = nn.Linear(config.d_model, config.n_latent, bias=False)

    def forward(self, pooled: Tensor) -> Tensor:
        """``(n, d)`` to ``(n, z)``, not normalized."""
        norm = self.pool_norm
        if norm is not None and any(parameter.requires_grad for parameter in self.parameters()):
            pooled = norm(pooled.float())
        elif norm is not None:  # frozen, it keeps its statistics in training: those of a query would move the reference
            pooled = F.batch_norm(pooled.float(), norm.running_mean, norm.running_var, eps=norm.eps)
        return self.projection(self.dropout(pooled))
