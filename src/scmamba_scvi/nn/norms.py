"""Root mean square normalisation, plain and gated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops.fused import gated_rms_norm, rms_norm

#: Added to the mean square, as in mamba-ssm.
EPS = 1e-5


class RMSNorm(nn.Module):
    """``x / rms(x) * weight`` over the last axis (Zhang & Sennrich 2019, arXiv 1910.07467), in float32 inside.

    Parameters
    ----------
    d
        Length of the last axis.
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., d)`` to the same."""
        return rms_norm(x, self.weight, EPS)


class GatedRMSNorm(RMSNorm):
    """``rms_norm(x * silu(z))``, the last step of the Mamba2 mixer before its output projection."""

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """``(..., d)`` twice to the same."""
        return gated_rms_norm(x, z, self.weight, EPS)
