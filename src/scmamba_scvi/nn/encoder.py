"""One modality's encoder: transformed counts of a cell to a unit vector in the shared space."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..config import ModelConfig
from ..ops.csr import mask_inputs
from ..ops.fused import add_norm
from ..ops.launch import compiling
from .attention import Attention
from .block import EPS, Block, dtype_of_product
from .graphs import MAX_SIZE, NetworkGraph
from .mamba2 import Mamba2
from .memory import saved_bytes
from .tokenizer import FeatureEmbedding, PatchTokenizer

#: Root mean square of the feature embeddings that hold the spectral initialization. AdamW moves every entry by about the
#: learning rate per step, so this fixes how far, relative to its size, a step can move them.
SPECTRAL_RMS = 0.01
#: Numbers (tokens x width) that go through the blocks together on a CPU: enough for efficient matrix products, few enough
#: for the activations of a block to stay in cache, and below the size (32 MB) from which the C library takes fresh pages
#: from the system for every tensor, which costs more than what is computed on them.
CPU_SLICE_SIZE = 2**19


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
            self.network, self.head, self._width = SequenceNetwork(config, kind), ProjectionHead(config), config.d_model
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
        """Whether the network is computed. It is not while its gate is closed and frozen, as it can then neither add nor learn."""
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

    def checkpoint_activations(self, n_blocks: int) -> None:
        """In training, keep only the input of some blocks, and compute their activations again in the backward pass.

        Parameters
        ----------
        n_blocks
            So many, the first ones.
        """
        if isinstance(self.network, SequenceNetwork):
            self.network.n_checkpointed = n_blocks

    def compile_kernels(self, n_cells: int) -> None:
        """On a GPU, compile the kernels of a training step side by side; draws no random numbers.

        Parameters
        ----------
        n_cells
            Cells of a minibatch.
        """
        if not isinstance(self.network, SequenceNetwork) or not isinstance(self.embedding, PatchTokenizer):
            return
        position = self.embedding.position
        if position.device.type != "cuda" or not self.runs_network:
            return
        # sizes that are divisible by 16 where those of a minibatch are
        tokens = torch.zeros(min(n_cells, 16), *position.shape, device=position.device, requires_grad=True)
        with torch.random.fork_rng(), compiling():
            torch.autograd.grad(self.network(tokens).sum(), tokens)

    def record_graph(self, n_cells: int) -> None:
        """On a GPU, launch the network as a whole in training from now on, if it is small and all of it is trained.

        Parameters
        ----------
        n_cells
            Cells of a minibatch; others are computed as before.
        """
        if not isinstance(self.network, SequenceNetwork) or not isinstance(self.embedding, PatchTokenizer):
            return
        position = self.embedding.position
        is_trained = all(parameter.requires_grad for parameter in self.network.parameters())
        is_small = n_cells * position.numel() <= MAX_SIZE and not self.network.n_checkpointed
        if position.device.type == "cuda" and is_trained and is_small:
            self.network.graph = NetworkGraph(self.network, (n_cells, *position.shape))

    def drop_graph(self) -> None:
        """Launch kernels one by one again, and free the memory of the graph."""
        if isinstance(self.network, SequenceNetwork):
            self.network.graph = None

    def activation_bytes(self) -> list[tuple[int, int]]:
        """Memory of the blocks in training, for one cell; draws no random numbers.

        Returns
        -------
        Per block, bytes of its activations and bytes of its input; empty without blocks.
        """
        if not isinstance(self.network, SequenceNetwork) or not isinstance(self.embedding, PatchTokenizer):
            return []
        position = self.embedding.position  # (c, d)
        tokens = [torch.zeros(n_cells, *position.shape, device=position.device) for n_cells in (2, 4)]
        added = [x.to(dtype_of_product(x)) for x in tokens]
        with torch.random.fork_rng():
            # the difference: bf16 copies of weights, which autocast makes, are no activations of a cell
            of_two, of_four = (
                [saved_bytes(b, b, *terms) for b in self.network.blocks] for terms in zip(tokens, added, strict=True)
            )
            kept = [(four - two) // 2 for two, four in zip(of_two, of_four, strict=True)]
        of_input = position.numel() * (position.element_size() + added[0].element_size())
        # before the first block: tokens, their bf16 copy and gradient, and what they were projected from
        kept[:1] = [n_bytes + 2 * of_input for n_bytes in kept[:1]]
        return [(n_bytes, of_input) for n_bytes in kept]

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


class SequenceNetwork(nn.Module):
    """Blocks over the patches of a cell, pooled to one vector (paper, sections 4.1.2 and 4.1.3)."""

    def __init__(self, config: ModelConfig, kind: str) -> None:
        super().__init__()
        attention = config.of_kind("attention_layers", kind)
        n_layers = config.of_kind("n_layers", kind)
        self.blocks = nn.ModuleList(_block(config, is_attention=i in attention) for i in range(n_layers))
        self.norm = nn.RMSNorm(config.d_model, EPS)
        self.pooling = config.pooling
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


def _block(config: ModelConfig, *, is_attention: bool) -> Block:
    if is_attention:
        mixer: Attention | Mamba2 = Attention(config.d_model, n_heads=config.attention_heads)
    else:
        mixer = Mamba2(
            config.d_model, d_state=config.d_state, d_conv=config.d_conv, expand=config.expand, headdim=config.headdim,
            bidirectional=config.bidirectional, ssd_backend=config.ssd_backend,
        )  # fmt: skip
    return Block(config.d_model, mixer, d_mlp=config.d_mlp, layer_scale=config.layer_scale)
