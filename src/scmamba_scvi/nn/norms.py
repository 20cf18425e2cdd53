"""Root mean square normalization, plain and gated."""

import torch
from torch import Tensor, nn

from ..ops.fused import rms_norm

#: Added to the mean square, as in mamba-ssm.
EPS = 1e-5


class RMSNorm(nn.Module):
    """``x / rms(x) * weight`` over the last axis (Zhang & Sennrich 2019, arXiv 1910.07467), in float32 inside.

    With a gate ``z``, of ``x * silu(z)``: the last step of the Mamba2 mixer before its output projection.

    With ``before_product`` a matrix product follows: under autocast the result is written in the dtype of the product, so
    that no copy of the tokens in float32 is made. Off by default, since sums need the digits of float32.
    """

    def __init__(self, d: int, before_product: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))
        self.before_product = before_product

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """``(..., d)`` to the same."""
        narrow = self.before_product and x.dtype == torch.float32 and torch.is_autocast_enabled(x.device.type)
        return rms_norm(x, self.weight, EPS, torch.get_autocast_dtype(x.device.type) if narrow else None, z)
