"""Element-wise layers whose gradients are written by hand: fewer passes over memory than autograd makes of them.

On a CPU the same layers composed of single operations under autograd take longer than the matrix products of a narrow
network. The functions here keep their inputs, compute the rest again in the backward pass, and overwrite tensors of their
own. Gradients of gradients are not available.

Under `torch.compile` the plain formulas are used: the compiler fuses them, derives their gradients and decides what to
compute again, none of which it can do with a hand-written autograd function.

On CUDA the kernels of `scmamba_scvi.ops.triton_fused` are used, after a check that they give the numbers of this file.

All of them compute in float32 (float64 for float64 input) and return the dtype of their first argument.
"""

from __future__ import annotations

import functools
import logging
import warnings
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .isolated_autograd import isolated_autograd

logger = logging.getLogger(f"scvi.{__name__}")


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype | None = None) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last axis, ``(..., d)`` to the same (arXiv 1910.07467).

    The result is in ``dtype``, or if that is `None` in the dtype of ``x``: a product that follows then needs no copy.
    """
    dtype = dtype or x.dtype
    if torch.compiler.is_compiling():
        xf = _at_least_float32(x)
        return (xf * torch.rsqrt(xf.square().mean(-1, keepdim=True) + eps) * weight).to(dtype)
    kernels = _kernels_for(x)
    return kernels.rms_norm(x, weight, eps, dtype) if kernels else _RMSNorm.apply(x, weight, eps, dtype)


def gated_rms_norm(x: Tensor, z: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`rms_norm` of ``x * silu(z)``, all of shape ``(..., d)``."""
    if torch.compiler.is_compiling():
        return rms_norm(_at_least_float32(x) * F.silu(_at_least_float32(z)), weight, eps).to(x.dtype)
    kernels = _kernels_for(x)
    return kernels.gated_rms_norm(x, z, weight, eps) if kernels else _GatedRMSNorm.apply(x, z, weight, eps)


def swiglu(ab: Tensor) -> Tensor:
    """``a * silu(b)`` for ``ab = [a, b]`` side by side, ``(..., 2 m)`` to ``(..., m)`` (arXiv 2002.05202)."""
    if torch.compiler.is_compiling():
        a, b = _at_least_float32(ab).chunk(2, -1)
        return (a * F.silu(b)).to(ab.dtype)
    kernels = _kernels_for(ab)
    return kernels.swiglu(ab) if kernels else _SwiGLU.apply(ab)


def swiglu_linear(ab: Tensor, weight: Tensor) -> Tensor:
    """``linear(swiglu(ab), weight)``, ``(..., 2 m)`` to ``(..., d)``; with kernels the factor of the product is not kept."""
    if torch.compiler.is_compiling() or not _kernels_for(ab):
        return F.linear(swiglu(ab), weight)
    from . import triton_mixer

    return triton_mixer.swiglu_linear(ab, weight.to(ab.dtype))


def causal_conv_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise causal convolution along the tokens of ``x`` ``(n, c, m)``, then silu, ``(n, c, m)``.

    Of the taps ``weight`` ``(m, 1, width)`` the last is the token itself; ``bias`` is ``(m,)``. Tokens before the first
    count as zero.
    """
    if torch.compiler.is_compiling():
        # a few shifted multiply-adds, which a compiler fuses into one pass
        c, width = x.shape[1], weight.shape[-1]
        padded = F.pad(_at_least_float32(x), (0, 0, width - 1, 0))
        y = bias + sum(padded[:, tap : tap + c] * weight[:, 0, tap] for tap in range(width))
        return F.silu(y).to(x.dtype)
    if x.device.type == "cpu":
        return _CausalConvSilu.apply(x, weight, bias)
    kernels = _kernels_for(x)
    if kernels and weight.shape[-1] <= kernels.MAX_WIDTH:
        return kernels.causal_conv_silu(x, weight, bias)
    # elsewhere torch's own gradient of the convolution is fast
    return F.silu(_convolve(x, weight.to(x.dtype), bias.to(x.dtype))[:, : x.shape[1]])


def _kernels_for(x: Tensor) -> ModuleType | None:
    """The kernels to use for ``x`` instead of the functions of this file, `None` if there are none."""
    return load_kernels(x.device, x.dtype) if x.device.type == "cuda" and x.dtype != torch.float64 else None


@functools.cache
def load_kernels(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """Kernels that give the numbers of this file on ``device``; if there are none, a warning says why, once.

    A GPU without bfloat16 may have kernels for float32 alone.
    """
    logger.info("Kernels are compiled for %s in %s: the first step takes some seconds longer.", device, dtype)
    try:
        from . import triton_fused

        fault = _fault(triton_fused, device, dtype)
    except Exception as error:  # noqa: BLE001  a compiler, its driver and its toolchain fail in their own ways
        fault = f"{type(error).__name__}: {error}"
    if not fault:
        return triton_fused
    warnings.warn(
        f"Layers and scan run in plain torch on {device} in {dtype}, which is slow on a GPU: {fault}.", stacklevel=2
    )
    return None


def _fault(kernels: ModuleType, device: torch.device, dtype: torch.dtype) -> str:
    """Which kernel differs from this file in values or gradients on a small example, empty if none does."""
    generator = torch.Generator(device).manual_seed(0)
    shapes = {"x": (2, 70, 24), "z": (2, 70, 24), "weight": (24,), "taps": (24, 1, 4), "bias": (24,)}
    with isolated_autograd(device, grad=True):  # this runs in the first pass through a network
        drawn = {name: torch.randn(shape, generator=generator, device=device) for name, shape in shapes.items()}
        # tokens are in half precision under autocast, parameters never
        x, z = (drawn.pop(name).to(dtype).requires_grad_() for name in ("x", "z"))
        weight, taps, bias = (parameter.requires_grad_() for parameter in drawn.values())
        pairs = {
            "norm": (kernels.rms_norm(x, weight, 1e-5), _RMSNorm.apply(x, weight, 1e-5, x.dtype)),
            "gated norm": (kernels.gated_rms_norm(x, z, weight, 1e-5), _GatedRMSNorm.apply(x, z, weight, 1e-5)),
            "gated MLP": (kernels.swiglu(x), _SwiGLU.apply(x)),
            "convolution": (kernels.causal_conv_silu(x, taps, bias), _CausalConvSilu.apply(x, taps, bias)),
        }
        for name, results in pairs.items():
            found, expected = (
                [y, *torch.autograd.grad(y.square().sum(), (x, z, weight, taps, bias), materialize_grads=True)]
                for y in results
            )
            for a, b in zip(found, expected, strict=True):
                # TF32, where it is allowed, rounds the convolution that is compared with
                if not (a - b).norm() <= (1e-2 if dtype == torch.float32 else 3e-2) * b.norm():
                    return f"the kernel of the {name} gives other numbers"
    return ""


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        xf = _at_least_float32(x)
        scale = _inverse_rms(xf, eps)
        ctx.save_for_backward(x, weight, scale)
        return (xf * scale).mul_(weight).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        grad_x, grad_weight = _norm_gradients(_at_least_float32(grad), _at_least_float32(x) * scale, weight, scale)
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), None, None


class _GatedRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, z: Tensor, weight: Tensor, eps: float) -> Tensor:
        gated = F.silu(_at_least_float32(z)).mul_(x)
        scale = _inverse_rms(gated, eps)
        ctx.save_for_backward(x, z, weight, scale)
        return gated.mul_(scale).mul_(weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, z, weight, scale = ctx.saved_tensors
        xf, zf = _at_least_float32(x), _at_least_float32(z)
        gate = F.silu(zf)
        grad, grad_weight = _norm_gradients(_at_least_float32(grad), (gate * xf).mul_(scale), weight, scale)
        grad_z = torch.ops.aten.silu_backward(grad * xf, zf)
        return grad.mul_(gate).to(x.dtype), grad_z.to(z.dtype), grad_weight.to(weight.dtype), None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ab: Tensor) -> Tensor:
        ctx.save_for_backward(ab)
        a, b = _at_least_float32(ab).chunk(2, -1)
        return F.silu(b).mul_(a).to(ab.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        (ab,) = ctx.saved_tensors
        wide = _at_least_float32(ab)
        (a, b), grad = wide.chunk(2, -1), _at_least_float32(grad)
        grad_ab = torch.empty_like(wide, memory_format=torch.contiguous_format)
        grad_a, grad_b = grad_ab.chunk(2, -1)
        torch.mul(grad, F.silu(b), out=grad_a)
        torch.ops.aten.silu_backward(grad * a, b, grad_input=grad_b)
        return grad_ab.to(ab.dtype)


class _CausalConvSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = _convolve(_at_least_float32(x), weight, bias)[:, : x.shape[1]]
        ctx.save_for_backward(x, weight, y)
        return F.silu(y).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, y = ctx.saved_tensors
        grad = torch.ops.aten.silu_backward(_at_least_float32(grad), y)  # (n, c, m)
        # the gradient runs through the same taps from the last token to the first
        grad_x = _convolve(grad, weight.flip(-1), None)[:, weight.shape[-1] - 1 :]
        return grad_x.to(x.dtype), _tap_gradients(_at_least_float32(x), grad, weight.shape[-1]), grad.sum((0, 1))


def _tap_gradients(x: Tensor, grad: Tensor, width: int) -> Tensor:
    """``sum over n, c of grad[n, c, m] x[n, c - lag, m]`` for each lag, ``(m, 1, width)``."""
    # oneDNN's own weight gradient of a depthwise convolution is ten times slower
    n, c, m = x.shape
    taps = [(grad[:, lag:] * x[:, : c - lag]).sum((0, 1)) if lag < c else grad.new_zeros(m) for lag in range(width)]
    return torch.stack(taps[::-1], -1).unsqueeze(1)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depthwise, padded on both sides: ``(n, c, m)`` to ``(n, c + width - 1, m)``."""
    # (n, c, m) in memory is a channels-last image of height one to oneDNN, so that nothing is copied
    image = x.transpose(1, 2).unsqueeze(2)  # (n, m, 1, c)
    m, _, width = weight.shape
    return F.conv2d(image, weight.unsqueeze(2), bias, padding=(0, width - 1), groups=m).squeeze(2).transpose(1, 2)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (..., 1), reads x once and writes nothing of its size
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _norm_gradients(grad: Tensor, normal: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``normal * weight``, ``normal = x * scale``, with respect to ``x`` (a new tensor) and ``weight``."""
    product = (grad * normal).flatten(0, -2)
    grad_weight = product.sum(0)
    along = torch.mv(product, weight.to(product.dtype)).div_(-normal.shape[-1]).view(scale.shape)
    grad_x = torch.mul(grad, weight, out=product.view(grad.shape))
    return grad_x.addcmul_(normal, along).mul_(scale), grad_weight
