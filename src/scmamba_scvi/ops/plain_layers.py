"""The element-wise layers in plain torch: values and, written by hand, gradients, with few passes over memory.

`scmamba_scvi.ops.triton_fused` has the same functions as kernels, which are compared with these before they are used.
On a CPU the same layers composed of single operations under autograd take longer than the matrix products of a narrow
network. Everything is computed in float32 (float64 for float64 input) and returned in the dtype of the first argument.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def add_norm_values(x: Tensor, added: Tensor | None, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """`add_norm` with the second result in ``dtype``, and what the sum was divided by, inverted, ``(..., 1)``."""
    total = _at_least_float32(x)
    if added is not None:
        total = total + added
    scale = _inverse_rms(total, eps)
    return total.to(x.dtype), (total * scale).to(dtype), scale


def add_norm_gradients(
    dtotal: Tensor | None,
    dnormal: Tensor,
    normal: Tensor,
    scale: Tensor,
    dtype: torch.dtype,
    added_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the two terms, equal but for their dtypes; without a second term (`None`), without its gradient."""
    dx = _norm_gradient(dnormal, _at_least_float32(normal), scale)
    if dtotal is not None:
        dx += dtotal
    return dx.to(dtype), None if added_dtype is None else dx.to(added_dtype)


def gated_norm_values(y: Tensor, z: Tensor, eps: float) -> Tensor:
    """`gated_norm`."""
    value = F.silu(_at_least_float32(z)).mul_(y)
    return value.mul_(_inverse_rms(value, eps)).to(y.dtype)


def gated_norm_gradients(dnormal: Tensor, y: Tensor, z: Tensor, eps: float, dz: Tensor) -> Tensor:
    """Gradient of y; that of z is written to ``dz``."""
    wide = _at_least_float32(z)
    gate = F.silu(wide)
    value = gate * y
    scale = _inverse_rms(value, eps)
    dvalue = _norm_gradient(dnormal, value.mul_(scale), scale)
    dz.copy_(torch.ops.aten.silu_backward(torch.mul(dvalue, y, out=value), wide))
    return dvalue.mul_(gate).to(y.dtype)


def swiglu_values(ab: Tensor) -> Tensor:
    """`swiglu`."""
    a, b = _at_least_float32(ab).chunk(2, -1)
    return F.silu(b).mul_(a).to(ab.dtype)


def swiglu_gradient(dy: Tensor, ab: Tensor) -> Tensor:
    """Gradient of ``ab``."""
    wide = _at_least_float32(ab)
    (a, b), dy = wide.chunk(2, -1), _at_least_float32(dy)
    dab = torch.empty_like(wide, memory_format=torch.contiguous_format)
    da, db = dab.chunk(2, -1)
    torch.mul(dy, F.silu(b), out=da)
    torch.ops.aten.silu_backward(dy * a, b, grad_input=db)
    return dab.to(ab.dtype)


def conv_values(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`causal_conv_silu`."""
    return F.silu(_convolve(_at_least_float32(x), weight, bias)[:, : x.shape[1]]).to(x.dtype)


def conv_gradients(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weight and bias; that of x is written to ``dx``."""
    xf, (c, width) = _at_least_float32(x), (x.shape[1], weight.shape[-1])
    dy = torch.ops.aten.silu_backward(_at_least_float32(dy), _convolve(xf, weight, bias)[:, :c])  # (n, c, m)
    # the gradient runs through the same taps from the last token to the first
    dx.copy_(_convolve(dy, weight.flip(-1), None)[:, width - 1 :])
    # the sum over n, c of dy[n, c, m] x[n, c - lag, m] for each lag; oneDNN's own is ten times slower
    taps = [(dy[:, lag:] * xf[:, : max(0, c - lag)]).sum((0, 1)) for lag in range(width)]
    return torch.stack(taps[::-1], -1).unsqueeze(1), dy.sum((0, 1))


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depthwise, padded on both sides: ``(n, c, m)`` to ``(n, c + width - 1, m)``."""
    # (n, c, m) in memory is a channels-last image of height one to oneDNN, so that nothing is copied
    image = x.transpose(1, 2).unsqueeze(2)  # (n, m, 1, c)
    m, _, width = weight.shape
    with torch.autocast(x.device.type, enabled=False):  # which would round it
        padded = F.conv2d(image, weight.unsqueeze(2), bias, padding=(0, width - 1), groups=m)
    return padded.squeeze(2).transpose(1, 2)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (..., 1), reads x once and writes nothing of its size
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _norm_gradient(dnormal: Tensor, normal: Tensor, scale: Tensor) -> Tensor:
    """Gradient of ``value`` (a new tensor), where ``normal = value * scale``."""
    dnormal = _at_least_float32(dnormal)
    along = (dnormal * normal).mean(-1, keepdim=True)
    return torch.addcmul(dnormal, normal, along, value=-1).mul_(scale)
