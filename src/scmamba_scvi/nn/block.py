"""One layer of the network: a mixer across tokens, then a gated MLP within each token, both residual."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops.fused import swiglu
from .norms import RMSNorm


class GatedMLP(nn.Module):
    """``fc2(a * silu(b))`` with ``[a, b] = fc1(x)`` (SwiGLU; Shazeer 2020, arXiv 2002.05202).

    Parameters
    ----------
    d_model
        Width ``d`` of tokens.
    d_hidden
        Width of ``a`` and ``b``.

    Examples
    --------
    >>> nn.GatedMLP(32, 64)(torch.randn(2, 10, 32)).shape
    torch.Size([2, 10, 32])
    """

    def __init__(self, d_model: int, d_hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(d_model, 2 * d_hidden, bias=False)
        self.fc2 = nn.Linear(d_hidden, d_model, bias=False)

    @property
    def out_proj(self) -> nn.Linear:
        """The last linear map, under the name that mixers give it."""
        return self.fc2

    def forward(self, x: Tensor) -> Tensor:
        """``(..., d)`` to ``(..., d)``."""
        return self.fc2(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """Everything before the last linear map, ``(..., d)`` to ``(..., d_hidden)``."""
        return swiglu(self.fc1(x))


class Block(nn.Module):
    """``x + scale1 * mixer(norm(x))``, then ``x + scale2 * mlp(norm(x))`` (pre-norm residual).

    Parameters
    ----------
    d_model
        Width ``d`` of tokens.
    mixer
        `Mamba2`, `Attention`, or another module with ``hidden(x, last_only)`` and ``out_proj``.
    d_mlp
        Hidden width of the gated MLP; 0 leaves it out.
    layer_scale
        Start of the learnable vectors that multiply the branches (LayerScale; Touvron et al. 2021, arXiv 2103.17239);
        `None` has no such parameters and multiplies by nothing. Near zero, the block starts near the identity and does
        not disturb the tokens before it has learned something.
    dropout
        Share of each branch's output that is dropped in training.

    Examples
    --------
    >>> block = nn.Block(32, nn.Mamba2(32, d_state=16, headdim=32), d_mlp=64, layer_scale=1e-2)
    >>> block(torch.randn(2, 10, 32)).shape  # (n, c, d)
    torch.Size([2, 10, 32])
    """

    def __init__(
        self,
        d_model: int,
        mixer: nn.Module,
        d_mlp: int = 0,
        layer_scale: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = RMSNorm(d_model, before_product=True)
        self.mixer = mixer
        self.scale = _layer_scale(d_model, layer_scale)
        self.norm2 = RMSNorm(d_model, before_product=True) if d_mlp else None
        self.mlp = GatedMLP(d_model, d_mlp) if d_mlp else None
        self.scale2 = _layer_scale(d_model, layer_scale) if d_mlp else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, last_only: bool = False) -> Tensor:
        """``(n, c, d)`` to ``(n, c, d)``; with ``last_only`` to what that is for the last token, ``(n, 1, d)``."""
        hidden = self.mixer.hidden(self.norm(x), last_only)
        x = self._add(x[:, -1:] if last_only else x, hidden, self.mixer, self.scale)
        if self.mlp is None:
            return x
        return self._add(x, self.mlp.hidden(self.norm2(x)), self.mlp, self.scale2)

    def _add(self, x: Tensor, hidden: Tensor, branch: nn.Module, scale: Tensor | None) -> Tensor:
        # scaling the last weights instead of the tokens saves a pass over the tokens
        weight = branch.out_proj.weight if scale is None else branch.out_proj.weight * scale[:, None]
        return x + self.dropout(nn.functional.linear(hidden, weight))


def _layer_scale(d_model: int, start: float | None) -> nn.Parameter | None:
    if start is None:
        return None
    scale = nn.Parameter(torch.full((d_model,), float(start)))
    scale._no_weight_decay = True
    return scale
