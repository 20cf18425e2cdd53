"""The element-wise layers of `scmamba_scvi.ops.fused` as kernels: one pass over memory forward, one or two backward.

Norms, gates and the short convolution take a GPU as long as it takes to read and write their tensors. Composed of single
operations, they read and write them ten times, in float32. Here everything is float32 in registers and the dtype of the
first argument in memory; what the backward pass needs beyond the inputs is computed again.

In the kernels ``d`` and ``m`` are sizes, and capital letters the powers of two that one program handles of them.

Importing this file needs triton; `scmamba_scvi.ops.fused` does so on CUDA. With ``TRITON_INTERPRET=1`` in the
environment at that time the kernels run on a CPU, slowly, for tests.
"""

from __future__ import annotations

from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

#: At most so many programs share the rows of a norm in its backward pass; each sums its part of the weight's gradient.
N_PROGRAMS: Final = 1024
#: Numbers of a tensor that one program handles together where rows are apart.
ELEMENTS: Final = 4096
#: Tokens and channels of one program of the convolution.
TOKENS, CHANNELS = 64, 64


@triton.jit
def _silu(x):
    return x * tl.sigmoid(x)


@triton.jit
def _silu_gradient(x):
    gate = tl.sigmoid(x)
    return gate * (1 + x * (1 - gate))


@triton.jit
def _row_tile(block, n_rows, d: tl.constexpr, D: tl.constexpr, R: tl.constexpr):
    """Rows ``(R, 1)`` and columns ``(1, D)`` of a block of rows, and the mask of what is inside."""
    row, at = block * R + tl.arange(0, R)[:, None], tl.arange(0, D)[None, :]
    return row.to(tl.int64), at, (row < n_rows) & (at < d)


@triton.jit
def _norm(
    x_ptr, z_ptr, weight_ptr, y_ptr, n_rows, x_row, z_row, eps,
    d: tl.constexpr, D: tl.constexpr, R: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    row, at, inside = _row_tile(tl.program_id(0), n_rows, d, D, R)
    x = tl.load(x_ptr + row * x_row + at, inside, 0.0).to(tl.float32)
    if GATED:
        x *= _silu(tl.load(z_ptr + row * z_row + at, inside, 0.0).to(tl.float32))
    scale = tl.rsqrt(tl.sum(x * x, 1) / d + eps)[:, None]
    y = x * scale * tl.load(weight_ptr + at, at < d, 0.0).to(tl.float32)
    tl.store(y_ptr + row * d + at, y.to(y_ptr.dtype.element_ty), inside)


@triton.jit
def _norm_backward(
    dy_ptr, x_ptr, z_ptr, weight_ptr, dx_ptr, dz_ptr, dweight_ptr, n_rows, x_row, z_row, eps,
    d: tl.constexpr, D: tl.constexpr, R: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """Each program takes every so many-th block of rows, and writes the sum of its part of the weight's gradient."""
    columns = tl.arange(0, D)
    weight = tl.load(weight_ptr + columns, columns < d, 0.0).to(tl.float32)[None, :]
    dweight = tl.zeros((R, D), tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(n_rows, R), tl.num_programs(0)):
        row, at, inside = _row_tile(block, n_rows, d, D, R)
        dy = tl.load(dy_ptr + row * d + at, inside, 0.0).to(tl.float32)
        x = tl.load(x_ptr + row * x_row + at, inside, 0.0).to(tl.float32)
        value = x
        if GATED:
            z = tl.load(z_ptr + row * z_row + at, inside, 0.0).to(tl.float32)
            value = x * _silu(z)
        scale = tl.rsqrt(tl.sum(value * value, 1) / d + eps)[:, None]
        normal = value * scale
        dweight += dy * normal
        dy *= weight
        along = tl.sum(dy * normal, 1)[:, None] / d
        dvalue = (dy - normal * along) * scale
        if GATED:
            tl.store(dz_ptr + row * d + at, (dvalue * x * _silu_gradient(z)).to(dz_ptr.dtype.element_ty), inside)
            dvalue *= _silu(z)
        tl.store(dx_ptr + row * d + at, dvalue.to(dx_ptr.dtype.element_ty), inside)
    tl.store(dweight_ptr + tl.program_id(0) * d + columns, tl.sum(dweight, 0), columns < d)


@triton.jit
def _swiglu(ab_ptr, y_ptr, n_rows, ab_row, d: tl.constexpr, D: tl.constexpr, R: tl.constexpr):
    row, at, inside = _row_tile(tl.program_id(0), n_rows, d, D, R)
    a = tl.load(ab_ptr + row * ab_row + at, inside, 0.0).to(tl.float32)
    b = tl.load(ab_ptr + row * ab_row + d + at, inside, 0.0).to(tl.float32)
    tl.store(y_ptr + row * d + at, (a * _silu(b)).to(y_ptr.dtype.element_ty), inside)


@triton.jit
def _swiglu_backward(dy_ptr, ab_ptr, dab_ptr, n_rows, ab_row, d: tl.constexpr, D: tl.constexpr, R: tl.constexpr):
    row, at, inside = _row_tile(tl.program_id(0), n_rows, d, D, R)
    dy = tl.load(dy_ptr + row * d + at, inside, 0.0).to(tl.float32)
    a = tl.load(ab_ptr + row * ab_row + at, inside, 0.0).to(tl.float32)
    b = tl.load(ab_ptr + row * ab_row + d + at, inside, 0.0).to(tl.float32)
    dtype = dab_ptr.dtype.element_ty
    tl.store(dab_ptr + row * 2 * d + at, (dy * _silu(b)).to(dtype), inside)
    tl.store(dab_ptr + row * 2 * d + d + at, (dy * a * _silu_gradient(b)).to(dtype), inside)


@triton.jit
def _tile(c, m: tl.constexpr, T: tl.constexpr, M: tl.constexpr):
    """Cell, tokens ``(T, 1)`` and channels ``(1, M)`` of this program of the convolution, and the mask of channels."""
    blocks = tl.cdiv(c, T)
    cell = (tl.program_id(0) // blocks).to(tl.int64)
    token = (tl.program_id(0) % blocks) * T + tl.arange(0, T)[:, None]
    channel = tl.program_id(1) * M + tl.arange(0, M)[None, :]
    return cell, token, channel, channel < m


@triton.jit
def _taps(x_ptr, weight_ptr, token, channel, is_channel, c, x_c, WIDTH: tl.constexpr, DIRECTION: tl.constexpr):
    """``sum over lags of weight[lag] x[token - lag]``; with ``DIRECTION`` -1 of ``weight[lag] x[token + lag]``."""
    total = (token * 0 + channel * 0).to(tl.float32)
    for lag in tl.static_range(WIDTH):
        at = token - DIRECTION * lag
        x = tl.load(x_ptr + at * x_c + channel, (at >= 0) & (at < c) & is_channel, 0.0).to(tl.float32)
        total += x * tl.load(weight_ptr + channel * WIDTH + (WIDTH - 1 - lag), is_channel, 0.0).to(tl.float32)
    return total


@triton.jit
def _conv(
    x_ptr, weight_ptr, bias_ptr, y_ptr, c, x_n, x_c,
    m: tl.constexpr, WIDTH: tl.constexpr, T: tl.constexpr, M: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """Causal convolution and silu; with ``BACKWARD`` from the gradient of the convolution's output to that of its input."""
    cell, token, channel, is_channel = _tile(c, m, T, M)
    if BACKWARD:
        y = _taps(x_ptr + cell * x_n, weight_ptr, token, channel, is_channel, c, x_c, WIDTH, -1)
    else:
        y = _taps(x_ptr + cell * x_n, weight_ptr, token, channel, is_channel, c, x_c, WIDTH, 1)
        y = _silu(y + tl.load(bias_ptr + channel, is_channel, 0.0).to(tl.float32))
    tl.store(y_ptr + cell * c * m + token * m + channel, y.to(y_ptr.dtype.element_ty), (token < c) & is_channel)


@triton.jit
def _conv_gradient(
    dy_ptr, x_ptr, weight_ptr, bias_ptr, dsum_ptr, dweight_ptr, dbias_ptr, c, x_n, x_c,
    m: tl.constexpr, WIDTH: tl.constexpr, T: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Gradient of the convolution's output, ``(n, c, m)``, and this program's part of the gradients of weight and bias."""
    cell, token, channel, is_channel = _tile(c, m, T, M)
    total = _taps(x_ptr + cell * x_n, weight_ptr, token, channel, is_channel, c, x_c, WIDTH, 1)
    total += tl.load(bias_ptr + channel, is_channel, 0.0).to(tl.float32)
    at = cell * c * m + token * m + channel
    inside = (token < c) & is_channel
    dsum = tl.load(dy_ptr + at, inside, 0.0).to(tl.float32) * _silu_gradient(total)
    tl.store(dsum_ptr + at, dsum.to(dsum_ptr.dtype.element_ty), inside)
    part, columns = tl.program_id(0), tl.program_id(1) * M + tl.arange(0, M)
    tl.store(dbias_ptr + part * m + columns, tl.sum(dsum, 0), columns < m)
    for lag in tl.static_range(WIDTH):
        before = token - lag
        x = tl.load(x_ptr + cell * x_n + before * x_c + channel, (before >= 0) & inside, 0.0).to(tl.float32)
        to = dweight_ptr + (part * m + columns) * WIDTH + (WIDTH - 1 - lag)
        tl.store(to, tl.sum(dsum * x, 0), columns < m)


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype | None = None) -> Tensor:
    """See `scmamba_scvi.ops.fused.rms_norm`."""
    return _Norm.apply(x, None, weight, eps, dtype or x.dtype)


def gated_rms_norm(x: Tensor, z: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See `scmamba_scvi.ops.fused.gated_rms_norm`."""
    return _Norm.apply(x, z, weight, eps, x.dtype)


def swiglu(ab: Tensor) -> Tensor:
    """See `scmamba_scvi.ops.fused.swiglu`."""
    return _SwiGLU.apply(ab)


def causal_conv_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `scmamba_scvi.ops.fused.causal_conv_silu`."""
    return _CausalConvSilu.apply(x, weight, bias)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, z: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(x, z, weight)
        ctx.eps = eps
        rows, y = _rows(x), x.new_empty(x.shape, dtype=dtype)
        gate = rows if z is None else _rows(z)
        with torch.cuda.device(x.get_device()):
            _norm[_row_grid(rows, y)](
                rows,
                gate,
                weight,
                y,
                len(rows),
                rows.stride(0),
                gate.stride(0),
                eps,
                **_row_options(y),
                GATED=z is not None,
            )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, z, weight = ctx.saved_tensors
        rows, dx, dz = _rows(x), x.new_empty(x.shape), None if z is None else z.new_empty(z.shape)
        gate = rows if z is None else _rows(z)
        options = _row_options(x, ELEMENTS // 2)  # there are more of them to hold at once
        parts = weight.new_empty(
            min(N_PROGRAMS, triton.cdiv(len(rows), options["R"])), x.shape[-1], dtype=torch.float32
        )
        with torch.cuda.device(x.get_device()):
            _norm_backward[(len(parts),)](
                dy.contiguous(), rows, gate, weight, dx, dx if dz is None else dz, parts, len(rows), rows.stride(0),
                gate.stride(0), ctx.eps, **options, GATED=z is not None,
            )  # fmt: skip
        return dx, dz, parts.sum(0).to(weight.dtype), None, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ab: Tensor) -> Tensor:
        ctx.save_for_backward(ab)
        rows, m = _rows(ab), ab.shape[-1] // 2
        y = ab.new_empty(*ab.shape[:-1], m)
        with torch.cuda.device(ab.get_device()):
            _swiglu[_row_grid(rows, y)](rows, y, len(rows), rows.stride(0), **_row_options(y))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (ab,) = ctx.saved_tensors
        rows, dab = _rows(ab), ab.new_empty(ab.shape)
        with torch.cuda.device(ab.get_device()):
            _swiglu_backward[_row_grid(rows, dy)](
                dy.contiguous(), rows, dab, len(rows), rows.stride(0), **_row_options(dy)
            )
        return dab


class _CausalConvSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x, weight = x if x.stride(-1) == 1 else x.contiguous(), weight.contiguous()
        ctx.save_for_backward(x, weight, bias)
        y = x.new_empty(x.shape)
        with torch.cuda.device(x.get_device()):
            _conv[_tile_grid(x)](
                x, weight, bias, y, x.shape[1], *x.stride()[:2], **_tile_options(weight), BACKWARD=False
            )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, bias = ctx.saved_tensors
        (_, c, m), grid = x.shape, _tile_grid(x)
        dsum, dx = x.new_empty(x.shape), x.new_empty(x.shape)
        dweight = weight.new_empty(grid[0], *weight.shape, dtype=torch.float32)
        dbias = weight.new_empty(grid[0], m, dtype=torch.float32)
        sizes = _tile_options(weight)
        with torch.cuda.device(x.get_device()):
            _conv_gradient[grid](
                dy.contiguous(), x, weight, bias, dsum, dweight, dbias, c, *x.stride()[:2], **sizes
            )  # fmt: skip
            _conv[grid](dsum, weight, bias, dx, c, *dsum.stride()[:2], **sizes, BACKWARD=True)
        return dx, dweight.sum(0).to(weight.dtype), dbias.sum(0).to(bias.dtype)


def _rows(x: Tensor) -> Tensor:
    """``(..., d)`` as a matrix with dense rows; a slice of a wider tensor is not copied."""
    rows = x.flatten(0, -2) if x.ndim > 2 else x
    return rows if rows.stride(-1) == 1 else rows.contiguous()


def _row_options(x: Tensor, elements: int = ELEMENTS) -> dict[str, int]:
    """Columns and rows of one program: several short rows together, so that each thread has several loads under way."""
    D = triton.next_power_of_2(x.shape[-1])
    return {"d": x.shape[-1], "D": D, "R": min(16, max(1, elements // D))}


def _row_grid(rows: Tensor, x: Tensor) -> tuple[int]:
    return (triton.cdiv(len(rows), _row_options(x)["R"]),)


def _tile_grid(x: Tensor) -> tuple[int, int]:
    n, c, m = x.shape
    return n * triton.cdiv(c, TOKENS), triton.cdiv(m, CHANNELS)


def _tile_options(weight: Tensor) -> dict[str, int]:
    m, _, width = weight.shape
    return {"m": m, "WIDTH": width, "T": TOKENS, "M": CHANNELS}
