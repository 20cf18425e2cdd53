"""The functions of `scmamba_scvi.ops.plain_layers` as kernels: one pass over memory forward, one or two backward.

Norms, gates and the short convolution take a GPU as long as it takes to read and write their tensors. Composed of single
operations, they read and write them ten times, in float32. Here everything is float32 in registers and the dtype of the
first argument in memory; what the backward pass needs beyond what is kept is computed again.

In the kernels ``d`` and ``m`` are sizes, and capital letters the powers of two that one program handles of them.

Importing this file needs triton; `scmamba_scvi.ops.fused` does so on CUDA. With ``TRITON_INTERPRET=1`` in the
environment at that time the kernels run on a CPU, slowly, for tests.
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch, n_blocks, power_of_two

#: Numbers of a tensor that one program handles together where rows are apart.
ELEMENTS: Final = 4096
#: Tokens and channels of one program of the convolution, which is one warp: the longer the run, the fewer tokens are read
#: twice; with more channels each thread needs more registers, and there are fewer to wait for memory at the same time.
RUN, CHANNELS = 128, 128
#: Longest convolution that the kernels know; the shorter ones have weights of zero.
MAX_WIDTH: Final = 4


#: Minibatches differ in their number of rows: whether 16 divides it would have the kernel compiled twice, and gains nothing.
_for_any_rows = triton.jit(do_not_specialize=["n_rows"])


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


@_for_any_rows
def _add_norm(
    x_ptr, added_ptr, total_ptr, normal_ptr, scale_ptr, n_rows, x_row, added_row, eps,
    d: tl.constexpr, D: tl.constexpr, R: tl.constexpr, ADDED: tl.constexpr,
):  # fmt: skip
    row, at, inside = _row_tile(tl.program_id(0), n_rows, d, D, R)
    x = tl.load(x_ptr + row * x_row + at, inside, 0.0).to(tl.float32)
    if ADDED:
        x += tl.load(added_ptr + row * added_row + at, inside, 0.0).to(tl.float32)
        tl.store(total_ptr + row * d + at, x.to(total_ptr.dtype.element_ty), inside)
    scale = tl.rsqrt(tl.sum(x * x, 1) / d + eps)[:, None]
    tl.store(normal_ptr + row * d + at, (x * scale).to(normal_ptr.dtype.element_ty), inside)
    tl.store(scale_ptr + row, scale, row < n_rows)


@triton.jit
def _norm_gradient(dnormal, normal, scale, d: tl.constexpr):
    """Gradient of what was multiplied by ``scale`` to give ``normal``."""
    return (dnormal - normal * (tl.sum(dnormal * normal, 1)[:, None] / d)) * scale


@_for_any_rows
def _add_norm_backward(
    dtotal_ptr, dnormal_ptr, normal_ptr, scale_ptr, dx_ptr, dadded_ptr, n_rows,
    d: tl.constexpr, D: tl.constexpr, R: tl.constexpr, TOTAL: tl.constexpr, ADDED: tl.constexpr,
):  # fmt: skip
    row, at, inside = _row_tile(tl.program_id(0), n_rows, d, D, R)
    at += row * d
    dnormal = tl.load(dnormal_ptr + at, inside, 0.0).to(tl.float32)
    normal = tl.load(normal_ptr + at, inside, 0.0).to(tl.float32)
    dx = _norm_gradient(dnormal, normal, tl.load(scale_ptr + row, row < n_rows, 0.0), d)
    if TOTAL:
        dx += tl.load(dtotal_ptr + at, inside, 0.0).to(tl.float32)
    tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), inside)
    if ADDED:
        tl.store(dadded_ptr + at, dx.to(dadded_ptr.dtype.element_ty), inside)


@_for_any_rows
def _gated_norm(y_ptr, z_ptr, normal_ptr, n_rows, y_row, z_row, eps, d: tl.constexpr, D: tl.constexpr, R: tl.constexpr):
    row, at, inside = _row_tile(tl.program_id(0), n_rows, d, D, R)
    y = tl.load(y_ptr + row * y_row + at, inside, 0.0).to(tl.float32)
    value = y * _silu(tl.load(z_ptr + row * z_row + at, inside, 0.0).to(tl.float32))
    scale = tl.rsqrt(tl.sum(value * value, 1) / d + eps)[:, None]
    tl.store(normal_ptr + row * d + at, (value * scale).to(normal_ptr.dtype.element_ty), inside)


@_for_any_rows
def _gated_norm_backward(
    dnormal_ptr, y_ptr, z_ptr, normal_ptr, dy_ptr, dz_ptr, n_rows, y_row, z_row, dz_row, eps,
    d: tl.constexpr, D: tl.constexpr, R: tl.constexpr, NORMAL: tl.constexpr,
):  # fmt: skip
    row, at, inside = _row_tile(tl.program_id(0), n_rows, d, D, R)
    dnormal = tl.load(dnormal_ptr + row * d + at, inside, 0.0).to(tl.float32)
    y = tl.load(y_ptr + row * y_row + at, inside, 0.0).to(tl.float32)
    z = tl.load(z_ptr + row * z_row + at, inside, 0.0).to(tl.float32)
    value = y * _silu(z)
    scale = tl.rsqrt(tl.sum(value * value, 1) / d + eps)[:, None]
    if NORMAL:
        tl.store(normal_ptr + row * d + at, (value * scale).to(normal_ptr.dtype.element_ty), inside)
    dvalue = _norm_gradient(dnormal, value * scale, scale, d)
    tl.store(dz_ptr + row * dz_row + at, (dvalue * y * _silu_gradient(z)).to(dz_ptr.dtype.element_ty), inside)
    tl.store(dy_ptr + row * d + at, (dvalue * _silu(z)).to(dy_ptr.dtype.element_ty), inside)


@_for_any_rows
def _swiglu(ab_ptr, y_ptr, n_rows, ab_row, d: tl.constexpr, D: tl.constexpr, R: tl.constexpr):
    row, at, inside = _row_tile(tl.program_id(0), n_rows, d, D, R)
    a = tl.load(ab_ptr + row * ab_row + at, inside, 0.0).to(tl.float32)
    b = tl.load(ab_ptr + row * ab_row + d + at, inside, 0.0).to(tl.float32)
    tl.store(y_ptr + row * d + at, (a * _silu(b)).to(y_ptr.dtype.element_ty), inside)


@_for_any_rows
def _swiglu_backward(
    dy_ptr, ab_ptr, y_ptr, dab_ptr, n_rows, ab_row, d: tl.constexpr, D: tl.constexpr, R: tl.constexpr, Y: tl.constexpr
):
    row, at, inside = _row_tile(tl.program_id(0), n_rows, d, D, R)
    dy = tl.load(dy_ptr + row * d + at, inside, 0.0).to(tl.float32)
    a = tl.load(ab_ptr + row * ab_row + at, inside, 0.0).to(tl.float32)
    b = tl.load(ab_ptr + row * ab_row + d + at, inside, 0.0).to(tl.float32)
    dtype = dab_ptr.dtype.element_ty
    if Y:
        tl.store(y_ptr + row * d + at, (a * _silu(b)).to(dtype), inside)
    tl.store(dab_ptr + row * 2 * d + at, (dy * _silu(b)).to(dtype), inside)
    tl.store(dab_ptr + row * 2 * d + d + at, (dy * a * _silu_gradient(b)).to(dtype), inside)


@triton.jit
def _run(c, m: tl.constexpr, RUN: tl.constexpr, M: tl.constexpr):
    """Cell, first token and one after the last, channels ``(M,)`` of this program of the convolution, and their mask."""
    runs = tl.cdiv(c, RUN)
    first, channel = tl.program_id(0) % runs * RUN, tl.program_id(1) * M + tl.arange(0, M)
    return (tl.program_id(0) // runs).to(tl.int64), first, tl.minimum(first + RUN, c), channel, channel < m


@triton.jit
def _weights(weight_ptr, channel, is_channel, WIDTH: tl.constexpr, LAG: tl.constexpr):
    """Weights of the token ``LAG`` before, zero if the convolution does not reach that far."""
    weight = tl.zeros(channel.shape, tl.float32)
    if LAG < WIDTH:
        weight = tl.load(weight_ptr + channel * WIDTH + (WIDTH - 1 - LAG), is_channel, 0.0).to(tl.float32)
    return weight


@triton.jit
def _token(x_ptr, token, x_c, channel, is_channel, c):
    """Channels of one token, zero outside the sequence."""
    return tl.load(x_ptr + token * x_c + channel, is_channel & (token >= 0) & (token < c), 0.0).to(tl.float32)


@triton.jit
def _conv(
    x_ptr, weight_ptr, bias_ptr, y_ptr, c, x_n, x_c,
    m: tl.constexpr, WIDTH: tl.constexpr, RUN: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Convolution and silu from token to token, four at a time; the last three are kept in registers."""
    cell, first, end, channel, is_channel = _run(c, m, RUN, M)
    x_ptr, y_ptr = x_ptr + cell * x_n, y_ptr + cell * c * m
    w0 = _weights(weight_ptr, channel, is_channel, WIDTH, 0)
    w1 = _weights(weight_ptr, channel, is_channel, WIDTH, 1)
    w2 = _weights(weight_ptr, channel, is_channel, WIDTH, 2)
    w3 = _weights(weight_ptr, channel, is_channel, WIDTH, 3)
    bias = tl.load(bias_ptr + channel, is_channel, 0.0).to(tl.float32)
    x1 = _token(x_ptr, first - 1, x_c, channel, is_channel, c)
    x2 = _token(x_ptr, first - 2, x_c, channel, is_channel, c)
    x3 = _token(x_ptr, first - 3, x_c, channel, is_channel, c)
    for token in range(first, end, 4):
        # all loads before the stores, which they would otherwise have to wait for
        a = _token(x_ptr, token, x_c, channel, is_channel, c)
        b = _token(x_ptr, token + 1, x_c, channel, is_channel, c)
        d = _token(x_ptr, token + 2, x_c, channel, is_channel, c)
        e = _token(x_ptr, token + 3, x_c, channel, is_channel, c)
        dtype: tl.constexpr = y_ptr.dtype.element_ty
        to = y_ptr + token * m + channel
        tl.store(to, _silu(bias + w0 * a + w1 * x1 + w2 * x2 + w3 * x3).to(dtype), is_channel)
        tl.store(to + m, _silu(bias + w0 * b + w1 * a + w2 * x1 + w3 * x2).to(dtype), is_channel & (token + 1 < end))
        tl.store(to + 2 * m, _silu(bias + w0 * d + w1 * b + w2 * a + w3 * x1).to(dtype), is_channel & (token + 2 < end))
        tl.store(to + 3 * m, _silu(bias + w0 * e + w1 * d + w2 * b + w3 * a).to(dtype), is_channel & (token + 3 < end))
        x1, x2, x3 = e, d, b


@triton.jit
def _conv_backward(
    dy_ptr, x_ptr, weight_ptr, bias_ptr, dx_ptr, parts_ptr, c, dy_n, dy_c, x_n, x_c, dx_n, dx_c,
    m: tl.constexpr, WIDTH: tl.constexpr, RUN: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Gradient of the input, and this program's part of those of weight and bias, ``(programs, 5, m)``.

    With ``s`` the gradient before silu, known up to a token, that of the input is known up to three tokens before it.
    """
    cell, first, end, channel, is_channel = _run(c, m, RUN, M)
    dy_ptr, x_ptr, dx_ptr = dy_ptr + cell * dy_n, x_ptr + cell * x_n, dx_ptr + cell * dx_n
    w0 = _weights(weight_ptr, channel, is_channel, WIDTH, 0)
    w1 = _weights(weight_ptr, channel, is_channel, WIDTH, 1)
    w2 = _weights(weight_ptr, channel, is_channel, WIDTH, 2)
    w3 = _weights(weight_ptr, channel, is_channel, WIDTH, 3)
    bias = tl.load(bias_ptr + channel, is_channel, 0.0).to(tl.float32)
    x1 = _token(x_ptr, first - 1, x_c, channel, is_channel, c)
    x2 = _token(x_ptr, first - 2, x_c, channel, is_channel, c)
    x3 = _token(x_ptr, first - 3, x_c, channel, is_channel, c)
    s1 = tl.zeros((M,), tl.float32)
    s2, s3, dbias, dw0, dw1, dw2, dw3 = s1, s1, s1, s1, s1, s1, s1
    for token in range(first, end + 3, 4):
        a = _token(x_ptr, token, x_c, channel, is_channel, c)
        b = _token(x_ptr, token + 1, x_c, channel, is_channel, c)
        d = _token(x_ptr, token + 2, x_c, channel, is_channel, c)
        e = _token(x_ptr, token + 3, x_c, channel, is_channel, c)
        sa = _token(dy_ptr, token, dy_c, channel, is_channel, c)
        sb = _token(dy_ptr, token + 1, dy_c, channel, is_channel, c)
        sd = _token(dy_ptr, token + 2, dy_c, channel, is_channel, c)
        se = _token(dy_ptr, token + 3, dy_c, channel, is_channel, c)
        sa *= _silu_gradient(bias + w0 * a + w1 * x1 + w2 * x2 + w3 * x3)
        sb *= _silu_gradient(bias + w0 * b + w1 * a + w2 * x1 + w3 * x2)
        sd *= _silu_gradient(bias + w0 * d + w1 * b + w2 * a + w3 * x1)
        se *= _silu_gradient(bias + w0 * e + w1 * d + w2 * b + w3 * a)
        dtype: tl.constexpr = dx_ptr.dtype.element_ty
        to = dx_ptr + (token - 3) * dx_c + channel
        later = is_channel & (token > first)
        tl.store(to, (w0 * s3 + w1 * s2 + w2 * s1 + w3 * sa).to(dtype), later)
        tl.store(to + dx_c, (w0 * s2 + w1 * s1 + w2 * sa + w3 * sb).to(dtype), later & (token - 2 < end))
        tl.store(to + 2 * dx_c, (w0 * s1 + w1 * sa + w2 * sb + w3 * sd).to(dtype), later & (token - 1 < end))
        tl.store(to + 3 * dx_c, (w0 * sa + w1 * sb + w2 * sd + w3 * se).to(dtype), is_channel & (token < end))
        s1, s2, s3 = se, sd, sb
        # the gradients of the weights from the tokens beyond the run belong to the next program
        sa, sb = tl.where(token < end, sa, 0.0), tl.where(token + 1 < end, sb, 0.0)
        sd, se = tl.where(token + 2 < end, sd, 0.0), tl.where(token + 3 < end, se, 0.0)
        dbias += sa + sb + sd + se
        dw0 += sa * a + sb * b + sd * d + se * e
        dw1 += sa * x1 + sb * a + sd * b + se * d
        dw2 += sa * x2 + sb * x1 + sd * a + se * b
        dw3 += sa * x3 + sb * x2 + sd * x1 + se * a
        x1, x2, x3 = e, d, b
    to = parts_ptr + tl.program_id(0).to(tl.int64) * (5 * m) + channel
    tl.store(to, dw3, is_channel)
    tl.store(to + m, dw2, is_channel)
    tl.store(to + 2 * m, dw1, is_channel)
    tl.store(to + 3 * m, dw0, is_channel)
    tl.store(to + 4 * m, dbias, is_channel)


def add_norm_values(x: Tensor, added: Tensor | None, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """`add_norm` with the second result in ``dtype``, and what the sum was divided by, inverted, ``(..., 1)``."""
    rows, normal = _rows(x), x.new_empty(x.shape, dtype=dtype)
    scale = x.new_empty(*x.shape[:-1], 1, dtype=torch.float32)
    total, other = (x, rows) if added is None else (x.new_empty(x.shape), _rows(added))
    launch(
        _add_norm, _row_grid(rows, x), x, rows, other, total, normal, scale, len(rows), rows.stride(0), other.stride(0),
        eps, **_row_options(x), ADDED=added is not None,
    )  # fmt: skip
    return total, normal, scale


def add_norm_gradients(
    dtotal: Tensor | None,
    dnormal: Tensor,
    normal: Tensor,
    scale: Tensor,
    dtype: torch.dtype,
    added_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the two terms, equal but for their dtypes; without a second term (`None`), without its gradient."""
    dnormal, dx = dnormal.contiguous(), normal.new_empty(normal.shape, dtype=dtype)
    of_total = dnormal if dtotal is None else dtotal.contiguous()
    is_other = added_dtype not in (None, dtype)
    dadded = dx.new_empty(dx.shape, dtype=added_dtype) if is_other else dx
    options = _row_options(normal, ELEMENTS // 2)  # there are more of them to hold at once
    launch(
        _add_norm_backward, _row_grid(dx.flatten(0, -2), dx, ELEMENTS // 2), dx, of_total, dnormal, normal, scale, dx,
        dadded, scale.numel(), **options, TOTAL=dtotal is not None, ADDED=is_other,
    )  # fmt: skip
    return dx, None if added_dtype is None else dadded


def gated_norm_values(y: Tensor, z: Tensor, eps: float) -> Tensor:
    """`gated_norm`."""
    rows, gate, normal = _rows(y), _rows(z), y.new_empty(y.shape)
    launch(
        _gated_norm, _row_grid(rows, y), y, rows, gate, normal, len(rows), rows.stride(0), gate.stride(0), eps,
        **_row_options(y),
    )  # fmt: skip
    return normal


def gated_norm_gradients(
    dnormal: Tensor, y: Tensor, z: Tensor, eps: float, dz: Tensor, normal: Tensor | None = None
) -> Tensor:
    """Gradient of y; that of z is written to ``dz``, which may be a slice with dense rows, and the values to ``normal``."""
    rows, gate, dgate, dy = _rows(y), _rows(z), dz.flatten(0, -2), y.new_empty(y.shape)
    launch(
        _gated_norm_backward, _row_grid(rows, y, ELEMENTS // 4), y, dnormal.contiguous(), rows, gate,
        dy if normal is None else normal, dy, dgate, len(rows), rows.stride(0), gate.stride(0), dgate.stride(0), eps,
        **_row_options(y, ELEMENTS // 4), NORMAL=normal is not None,
    )  # fmt: skip
    return dy


def swiglu_values(ab: Tensor) -> Tensor:
    """`swiglu`."""
    rows, y = _rows(ab), ab.new_empty(*ab.shape[:-1], ab.shape[-1] // 2)
    launch(_swiglu, _row_grid(rows, y), ab, rows, y, len(rows), rows.stride(0), **_row_options(y))
    return y


def swiglu_gradient(dy: Tensor, ab: Tensor, y: Tensor | None = None) -> Tensor:
    """Gradient of ``ab``; the values are written to ``y``."""
    rows, dab = _rows(ab), ab.new_empty(ab.shape)
    launch(
        _swiglu_backward, _row_grid(rows, dy), ab, dy.contiguous(), rows, dab if y is None else y, dab, len(rows),
        rows.stride(0), **_row_options(dy), Y=y is not None,
    )  # fmt: skip
    return dab


def conv_values(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`causal_conv_silu`."""
    x, y = dense_rows(x), x.new_empty(x.shape)
    launch(_conv, _run_grid(x), x, x, weight, bias, y, x.shape[1], *x.stride()[:2], **_run_options(weight))
    return y


def conv_gradients(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weight and bias; that of x is written to ``dx``, which may be a slice with dense rows."""
    dy, x, grid = dense_rows(dy), dense_rows(x), _run_grid(x)
    parts = weight.new_empty(grid[0], MAX_WIDTH + 1, x.shape[-1], dtype=torch.float32)
    launch(
        _conv_backward, grid, x, dy, x, weight, bias, dx, parts, x.shape[1], *dy.stride()[:2], *x.stride()[:2],
        *dx.stride()[:2], **_run_options(weight),
    )  # fmt: skip
    sums = parts.sum(0)
    dweight = sums[MAX_WIDTH - weight.shape[-1] : MAX_WIDTH].t().unsqueeze(1)
    return dweight.to(weight.dtype), sums[-1].to(bias.dtype)


def _rows(x: Tensor) -> Tensor:
    """``(..., d)`` as a matrix with dense rows; a slice of a wider tensor is not copied."""
    return dense_rows(x.flatten(0, -2))


def dense_rows(x: Tensor) -> Tensor:
    """``x`` itself if its last axis is dense in memory."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _row_options(x: Tensor, elements: int = ELEMENTS) -> dict[str, int]:
    """Columns and rows of one program: several short rows together, so that each thread has several loads under way."""
    D = power_of_two(x.shape[-1])
    return {"d": x.shape[-1], "D": D, "R": min(16, max(1, elements // D))}


def _row_grid(rows: Tensor, x: Tensor, elements: int = ELEMENTS) -> tuple[int]:
    return (n_blocks(len(rows), _row_options(x, elements)["R"]),)


def _run_grid(x: Tensor) -> tuple[int, int]:
    n, c, m = x.shape
    return n * n_blocks(c, RUN), n_blocks(m, CHANNELS)


def _run_options(weight: Tensor) -> dict[str, int]:
    m, _, width = weight.shape
    return {"m": m, "WIDTH": width, "RUN": RUN, "M": CHANNELS, "num_warps": 1}
