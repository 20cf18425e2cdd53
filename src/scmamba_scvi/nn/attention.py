"""Causal self-attention, for the few blocks of the published network that use it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ScmambaError

#: Wavelengths of the rotation run from 2 pi to this many times 2 pi tokens (arXiv 2104.09864, section 3.4.2).
ROTARY_BASE = 10_000.0


class Attention(nn.Module):
    """Multi-head self-attention in which a token sees itself and the tokens before it.

    Parameters
    ----------
    d_model
        Width ``d`` of tokens.
    n_heads
        Heads; ``d`` must be a multiple.
    rotary
        Rotate queries and keys by their position (Su et al. 2021, arXiv 2104.09864). Off by default: tokens carry a
        learned position already.

    Raises
    ------
    ScmambaError
        If ``d_model`` is not a multiple of ``n_heads``, or with ``rotary`` if a head has an odd number of dimensions.

    Examples
    --------
    >>> nn.Attention(d_model=32, n_heads=4)(torch.randn(2, 10, 32)).shape
    torch.Size([2, 10, 32])
    """

    def __init__(self, d_model: int, n_heads: int = 4, rotary: bool = False) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ScmambaError(f"d_model = {d_model} must be a multiple of n_heads = {n_heads}: change one of them.")
        if rotary and d_model // n_heads % 2:
            raise ScmambaError(
                f"rotary needs heads of even width, d_model / n_heads = {d_model // n_heads}: change one of them."
            )
        self.n_heads, self.rotary = n_heads, rotary
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=False)  # order q, k, v
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        """``(n, c, d)`` to ``(n, c, d)``."""
        return self.out_proj(self.hidden(u))

    def hidden(self, u: Tensor, last_only: bool = False) -> Tensor:
        """Everything before the output projection, ``(n, c, d)`` to ``(n, c, d)`` or, of the last token, ``(n, 1, d)``."""
        if last_only:
            return self._hidden_last(u)
        heads = self.in_proj(u).unflatten(-1, (3, self.n_heads, -1)).transpose(1, 3)  # (n, heads, 3, c, d / heads)
        q, k, v = heads.unbind(2)
        if self.rotary:
            q, k = rotate(q), rotate(k)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)

    def _hidden_last(self, u: Tensor) -> Tensor:
        """`hidden` of the last token, which sees all others: one query, ``(n, 1, d)``."""
        d, c = u.shape[-1], u.shape[1]
        of_query, of_rest = self.in_proj.weight.split([d, 2 * d])
        q = F.linear(u[:, -1:], of_query).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (n, heads, 1, d / heads)
        k, v = F.linear(u, of_rest).unflatten(-1, (2, self.n_heads, -1)).transpose(1, 3).unbind(2)
        if self.rotary:
            q, k = rotate(q, first_position=c - 1), rotate(k)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def rotate(x: Tensor, first_position: int = 0) -> Tensor:
    """Turn each pair of dimensions (j, j + m/2) of ``(..., c, m)`` by the token's position times ``base^(-2j/m)``."""
    c, m = x.shape[-2:]
    frequency = ROTARY_BASE ** (-torch.arange(0, m, 2, device=x.device, dtype=torch.float32) / m)  # (m/2,)
    position = first_position + torch.arange(c, device=x.device, dtype=torch.float32)
    angle = position[:, None] * frequency  # (c, m/2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
