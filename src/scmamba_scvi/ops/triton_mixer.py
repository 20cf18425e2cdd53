"""Layers up to and with the linear map that follows them, as one step of autograd each: less to keep, nothing to join.

- What the linear map multiplies is computed again in the backward pass from what the layer keeps in any case.
- The gradients of the parts of the mixer's input projection are written side by side into one tensor.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .triton_fused import (
    conv_gradients,
    conv_values,
    gated_norm_gradients,
    gated_norm_values,
    swiglu_gradient,
    swiglu_values,
)
from .triton_ssd import scan, scan_gradients


class _GatedMLP(torch.autograd.Function):
    """``linear(swiglu(linear(x, in_weight)), out_weight)``; the weights are in the dtype of ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, in_weight: Tensor, out_weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, in_weight, out_weight)
        return F.linear(swiglu_values(F.linear(x, in_weight)), out_weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, in_weight, out_weight = ctx.saved_tensors
        dy = grad @ out_weight
        y = torch.empty_like(dy)
        dab = swiglu_gradient(dy, F.linear(x, in_weight), y)
        return dab @ in_weight, _weight_gradient(dab, x), _weight_gradient(grad, y)


class _Mixer(torch.autograd.Function):
    """Mamba2 between its input projection ``zxBCdt`` and the end of its output projection.

    ``weight`` ``(d, i)`` is that of the output projection, in the dtype of ``zxBCdt``, ``A`` the decay rates, both in float32
    with ``D`` and ``dt_bias``.
    """

    @staticmethod
    def forward(
        ctx: Any, zxBCdt: Tensor, conv_weight: Tensor, conv_bias: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor,
        weight: Tensor, eps: float,
    ) -> Tensor:  # fmt: skip
        z, xBC, raw = _parts(zxBCdt, weight, D)
        x, B, C = _parts_of_scan(conv_values(xBC, conv_weight, conv_bias), weight, D)
        y = scan(x, F.softplus(raw.float() + dt_bias), A, B, C, D).flatten(2)
        ctx.save_for_backward(zxBCdt, y, conv_weight, conv_bias, dt_bias, A, D, weight)
        ctx.eps = eps
        return F.linear(gated_norm_values(y, z, eps), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        zxBCdt, y, conv_weight, conv_bias, dt_bias, A, D, weight = ctx.saved_tensors
        z, xBC, raw = _parts(zxBCdt, weight, D)
        gradient, normal = zxBCdt.new_empty(zxBCdt.shape), torch.empty_like(y)
        dz, dxBC, draw = _parts(gradient, weight, D)
        dy = gated_norm_gradients(grad @ weight, y, z, ctx.eps, dz, normal)
        dweight = _weight_gradient(grad, normal)
        convolved, steps = conv_values(xBC, conv_weight, conv_bias), raw.float() + dt_bias
        x, B, C = _parts_of_scan(convolved, weight, D)
        dconvolved = convolved.new_empty(convolved.shape)
        into = _parts_of_scan(dconvolved, weight, D)
        ddt, dA, dD = scan_gradients(dy.view_as(x), x, F.softplus(steps), A, B, C, D, into)
        dconv_weight, dconv_bias = conv_gradients(dconvolved, xBC, conv_weight, conv_bias, dxBC)
        dsteps = ddt * torch.sigmoid(steps)
        draw.copy_(dsteps)
        return gradient, dconv_weight, dconv_bias, dsteps.sum((0, 1)), dA, dD, dweight, None


gated_mlp, mixer = _GatedMLP.apply, _Mixer.apply


def _parts(zxBCdt: Tensor, weight: Tensor, D: Tensor) -> tuple[Tensor, ...]:
    """Of the projection: z ``(n, c, i)``, input of the convolution ``(n, c, i + 2s)``, and that of step sizes ``(n, c, h)``."""
    i, h = weight.shape[1], len(D)
    return zxBCdt.split([i, zxBCdt.shape[-1] - i - h, h], -1)


def _parts_of_scan(convolved: Tensor, weight: Tensor, D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the scan: x ``(n, c, h, p)``, B and C ``(n, c, s)``."""
    i, h = weight.shape[1], len(D)
    s = (convolved.shape[-1] - i) // 2
    x, B, C = convolved.split([i, s, s], -1)
    return x.unflatten(-1, (h, i // h)), B, C


def _weight_gradient(dy: Tensor, x: Tensor) -> Tensor:
    return dy.flatten(0, -2).t() @ x.flatten(0, -2)
