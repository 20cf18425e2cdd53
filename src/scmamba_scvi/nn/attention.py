"""Causal self-attention, for the few blocks of the published network that use it."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ScmambaError
from .block import Branch


class Attention(Branch):
    """Multi-head self-attention in which a token sees itself and the tokens before it.

    Parameters
    ----------
    d_model
        Width ``d`` of tokens.
    n_heads
        Heads, which share the width equally.

    Raises
    ------
    ScmambaError
        ``d_model`` is not a multiple of ``n_heads``.

    Examples
    --------
    >>> nn.Attention(d_model=32, n_heads=4)(torch.randn(2, 10, 32)).shape
    torch.Size([2, 10, 32])
    """

    def __init__(self, d_model: int, n_heads: int = 4) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ScmambaError(f"d_model = {d_model} must be a multiple of n_heads = {n_heads}: change one of them.")
        self.n_heads = n_heads
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=False)  # order q, k, v
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def hidden(self, projected: Tensor) -> Tensor:
        # queries, keys and values (n, c, 3 d) to (n, c, d)
        heads = projected.unflatten(-1, (3, self.n_heads, -1)).transpose(1, 3)  # (n, heads, 3, c, d / heads)
        q, k, v = heads.unbind(2)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
