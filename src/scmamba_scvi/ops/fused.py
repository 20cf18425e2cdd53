"""Element-wise layers whose gradients are written by hand: fewer passes over memory than autograd makes of them.

Each has two implementations with the same functions: `scmamba_scvi.ops.plain_layers`, and on CUDA the kernels of
`scmamba_scvi.ops.triton_fused`, after a check that they give the same numbers. The layers keep their inputs and compute the
rest again in the backward pass. Gradients of gradients are not available.
"""

from __future__ import annotations

import functools
import logging
import warnings
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import plain_layers
from .launch import compiling

logger = logging.getLogger(f"scvi.{__name__}")


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype | None = None, z: Tensor | None = None
) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last axis, ``(..., d)`` to the same (arXiv 1910.07467).

    The result is in ``dtype``, or if that is `None` in the dtype of ``x``: a product that follows then needs no copy. With
    a gate ``z`` ``(..., d)`` it is that of ``x * silu(z)``.
    """
    return _Norm.apply(x, z, weight, eps, dtype or x.dtype)


def swiglu(ab: Tensor) -> Tensor:
    """``a * silu(b)`` for ``ab = [a, b]`` side by side, ``(..., 2 m)`` to ``(..., m)`` (arXiv 2002.05202)."""
    return _SwiGLU.apply(ab)


def swiglu_linear(ab: Tensor, weight: Tensor) -> Tensor:
    """``linear(swiglu(ab), weight)``, ``(..., 2 m)`` to ``(..., d)``; with kernels the factor of the product is not kept."""
    if kernels_for(ab) is None:
        return F.linear(swiglu(ab), weight)
    from . import triton_mixer

    return triton_mixer.swiglu_linear(ab, weight.to(ab.dtype))


def causal_conv_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise causal convolution along the tokens of ``x`` ``(n, c, m)``, then silu, ``(n, c, m)``.

    Of the taps ``weight`` ``(m, 1, width)`` the last is the token itself; ``bias`` is ``(m,)``. Tokens before the first
    count as zero.
    """
    return _CausalConvSilu.apply(x, weight, bias)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, z: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(x, z, weight)
        ctx.eps = eps
        return layers_for(x).norm_values(x, z, weight, eps, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, z, weight = ctx.saved_tensors
        dz = None if z is None else z.new_empty(z.shape)
        dx, dweight = layers_for(x).norm_gradients(dy, x, z, weight, ctx.eps, dz)
        return dx, dz, dweight, None, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ab: Tensor) -> Tensor:
        ctx.save_for_backward(ab)
        return layers_for(ab).swiglu_values(ab)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (ab,) = ctx.saved_tensors
        return layers_for(ab).swiglu_gradient(dy, ab)


class _CausalConvSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return layers_for(x, weight.shape[-1]).conv_values(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, bias = ctx.saved_tensors
        dx = x.new_empty(x.shape)
        return dx, *layers_for(x, weight.shape[-1]).conv_gradients(dy, x, weight, bias, dx)


def layers_for(x: Tensor, width: int = 1) -> ModuleType:
    """The implementation to use for ``x`` and a convolution of ``width`` tokens."""
    kernels = kernels_for(x)
    return plain_layers if kernels is None or width > kernels.MAX_WIDTH else kernels


def kernels_for(x: Tensor) -> ModuleType | None:
    """The kernels to use for ``x``, `None` if there are none."""
    return load_kernels(x.device, x.dtype) if x.device.type == "cuda" and x.dtype != torch.float64 else None


@functools.cache
def load_kernels(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """Kernels that give the numbers of `plain_layers` on ``device``; if there are none, a warning says why, once.

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
    """Which kernel differs from plain torch in values or gradients on a small example, empty if none does."""
    # this runs in the first pass through a network, which must not notice it
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        with compiling():
            _example(kernels, device, dtype)
        for name, found in _example(kernels, device, dtype).items():
            for a, b in zip(found, _example(plain_layers, device, dtype)[name], strict=True):
                # TF32, where it is allowed, rounds the convolution that is compared with
                if not (a - b).norm() <= (1e-2 if dtype == torch.float32 else 3e-2) * b.norm():
                    return f"the kernel of the {name} gives other numbers"
    return ""


def _example(layers: ModuleType, device: torch.device, dtype: torch.dtype) -> dict[str, tuple[Tensor, ...]]:
    """Values and gradients of each layer on the same random numbers."""
    generator = torch.Generator(device).manual_seed(0)
    x, z, dy = (torch.randn(2, 70, 24, generator=generator, device=device).to(dtype) for _ in range(3))
    # tokens are in half precision under autocast, parameters never
    weight, bias, taps = (torch.randn(size, generator=generator, device=device) for size in ((24,), (24,), (24, 1, 4)))
    dx, dz = torch.empty_like(x), torch.empty_like(z)
    norm, gated = (weight, 1e-5), (z, weight, 1e-5)
    return {
        "norm": (layers.norm_values(x, None, *norm, dtype), *layers.norm_gradients(dy, x, None, *norm, None)),
        "gated norm": (layers.norm_values(x, *gated, dtype), *layers.norm_gradients(dy, x, *gated, dz), dz),
        "gated MLP": (layers.swiglu_values(x), layers.swiglu_gradient(dy[..., :12], x)),
        "convolution": (layers.conv_values(x, taps, bias), *layers.conv_gradients(dy, x, taps, bias, dx), dx),
    }
