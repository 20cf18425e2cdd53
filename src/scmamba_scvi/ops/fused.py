"""Element-wise layers whose gradients are written by hand: fewer passes over memory than autograd makes of them.

Each has two implementations with the same functions: `scmamba_scvi.ops.plain_layers`, and on CUDA the kernels of
`scmamba_scvi.ops.triton_fused`, after a check that they give the same numbers. For the backward pass they keep their
inputs, and `add_norm` its result instead; the rest is computed again. Gradients of gradients are not available.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import plain_layers
from .launch import compiling, running
from .ssd import ssd_chunked

logger = logging.getLogger(f"scvi.{__name__}")


def add_norm(x: Tensor, added: Tensor | None, eps: float, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """The sum ``s = x + added``, and ``s / sqrt(mean(s^2) + eps)`` over the last axis (arXiv 1910.07467), ``(..., d)`` each.

    The second is in ``dtype``, or if that is `None` in the dtype of ``x``: a product that follows then needs no copy. It is
    also all that is kept of the two for the backward pass, with a number per row. ``added`` may be of a narrower dtype, or
    `None`. There is no weight: a linear map that follows can hold it.
    """
    return _AddNorm.apply(x, added, eps, dtype or x.dtype)


def gated_norm(y: Tensor, z: Tensor, eps: float) -> Tensor:
    """The norm, as in `add_norm`, of ``y * silu(z)``, ``(..., d)`` to the same."""
    return _GatedNorm.apply(y, z, eps)


def swiglu(ab: Tensor) -> Tensor:
    """``a * silu(b)`` for ``ab = [a, b]`` side by side, ``(..., 2 m)`` to ``(..., m)`` (arXiv 2002.05202)."""
    return _SwiGLU.apply(ab)


def gated_mlp(x: Tensor, in_weight: Tensor, out_weight: Tensor) -> Tensor:
    """``linear(swiglu(linear(x, in_weight)), out_weight)``, ``(..., d)`` to the same; kernels keep ``x`` alone of it."""
    if kernels_for(x) is None:
        return F.linear(swiglu(F.linear(x, in_weight)), out_weight)
    from . import triton_mixer

    return triton_mixer.gated_mlp(x, in_weight.to(x.dtype), out_weight.to(x.dtype))


def causal_conv_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise causal convolution along the tokens of ``x`` ``(n, c, m)``, then silu, ``(n, c, m)``.

    Of the taps ``weight`` ``(m, 1, width)`` the last is the token itself; ``bias`` is ``(m,)``. Tokens before the first
    count as zero.
    """
    return _CausalConvSilu.apply(x, weight, bias)


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, added: Tensor | None, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        total, normal, scale = layers_for(x).add_norm_values(x, added, eps, dtype)
        ctx.save_for_backward(normal, scale)
        ctx.dtypes = x.dtype, None if added is None else added.dtype
        ctx.set_materialize_grads(False)
        return total, normal

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dtotal: Tensor | None, dnormal: Tensor | None) -> tuple[Tensor | None, ...]:
        if dnormal is None:
            return dtotal, None if ctx.dtypes[1] is None else dtotal, None, None
        normal, scale = ctx.saved_tensors
        return *layers_for(normal).add_norm_gradients(dtotal, dnormal, normal, scale, *ctx.dtypes), None, None


class _GatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(y, z)
        ctx.eps = eps
        return layers_for(y).gated_norm_values(y, z, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dnormal: Tensor) -> tuple[Tensor | None, ...]:
        y, z = ctx.saved_tensors
        dz = z.new_empty(z.shape)
        return layers_for(y).gated_norm_gradients(dnormal, y, z, ctx.eps, dz), dz, None


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
    """Kernels of the layers; if they or that of the scan do not give plain torch's numbers, none, and a warning, once.

    A GPU without bfloat16 may have kernels for float32 alone.
    """
    logger.info("Kernels are compiled for %s in %s: the first step takes some seconds longer.", device, dtype)
    kernels, reason = check_kernels(device, dtype)
    if kernels is None:
        message = f"Layers and scan run in plain torch on {device} in {dtype}, which is slow on a GPU: {reason}."
        warnings.warn(message, stacklevel=2)
    return kernels


@functools.cache
def check_kernels(device: torch.device, dtype: torch.dtype) -> tuple[ModuleType | None, str]:
    """What `load_kernels` gives and an empty string, or `None` and the reason."""
    try:
        from . import triton_fused
        from .triton_sizes import cannot_compile
        from .triton_ssd import ssd_triton

        fault = cannot_compile(device, dtype) or _fault(triton_fused, ssd_triton, device, dtype)
    except Exception as error:  # noqa: BLE001  a compiler, its driver and its toolchain fail in their own ways
        fault = f"{type(error).__name__}: {error}"
    return (None, fault) if fault else (triton_fused, "")


def _fault(layers: ModuleType, scan: Callable[..., Tensor], device: torch.device, dtype: torch.dtype) -> str:
    """Which kernel differs from plain torch in values or gradients on a small example, empty if none does."""
    # this runs in the first pass through a network, which must not notice it: what autograd and autocast are told there, such
    # as hooks or inference mode, holds in its own thread
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_difference, layers, scan, device, dtype).result()


def _difference(layers: ModuleType, scan: Callable[..., Tensor], device: torch.device, dtype: torch.dtype) -> str:
    with running():
        with compiling():
            _example(layers, scan, device, dtype)
        expected = _example(plain_layers, ssd_chunked, device, dtype)
        for name, found in _example(layers, scan, device, dtype).items():
            for a, b in zip(found, expected[name], strict=True):
                # TF32, where it is allowed, rounds the convolution that is compared with
                if not (a - b).norm() <= (1e-2 if dtype == torch.float32 else 3e-2) * b.norm():
                    return f"the kernel of the {name} gives other numbers"
    return ""


def _example(
    layers: ModuleType, scan: Callable[..., Tensor], device: torch.device, dtype: torch.dtype
) -> dict[str, tuple[Tensor, ...]]:
    """Values and gradients of each layer and of the scan on the same random numbers."""
    generator = torch.Generator(device).manual_seed(0)
    x, z, dy = (torch.randn(2, 70, 24, generator=generator, device=device).to(dtype) for _ in range(3))
    # tokens are in half precision under autocast, parameters and sums of branches never
    wide, bias, taps = (torch.randn(size, generator=generator, device=device) for size in (x.shape, (24,), (24, 1, 4)))
    dx, dz = torch.empty_like(x), torch.empty_like(z)
    total, normal, scale = layers.add_norm_values(wide, x, 1e-5, dtype)
    return {
        "norm": (total, normal, scale, *layers.add_norm_gradients(wide, dy, normal, scale, wide.dtype, dtype)),
        "gated norm": (layers.gated_norm_values(x, z, 1e-5), layers.gated_norm_gradients(dy, x, z, 1e-5, dz), dz),
        "gated MLP": (layers.swiglu_values(x), layers.swiglu_gradient(dy[..., :12], x)),
        "convolution": (layers.conv_values(x, taps, bias), *layers.conv_gradients(dy, x, taps, bias, dx), dx),
        "scan": _example_of_scan(scan, generator, dtype),
    }


def _example_of_scan(scan: Callable[..., Tensor], generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Values and gradients of more tokens than a chunk has.

    All numbers have the sign that they have in a sum, so that none cancels and rounding stays small.
    """
    n, c, h, p, s = 1, 70, 2, 16, 16

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=generator.device)

    x, B, C, dy = (uniform(*shape).to(dtype) for shape in ((n, c, h, p), (n, c, s), (n, c, s), (n, c, h, p)))
    leaves = [t.requires_grad_() for t in (x, uniform(n, c, h), -uniform(h), B, C, uniform(h))]
    y = scan(*leaves)
    return y.detach(), *torch.autograd.grad(y, leaves, dy)
