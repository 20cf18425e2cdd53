"""The scan by kernels of our own: one pass over the tokens forward, three kernels backward.

The equations are those of `scmamba_scvi.ops.ssd`, chunk by chunk. Forward, one program per cell and head carries the
state ``(s, p)`` in registers and reads and writes memory once per token. Only the inputs are kept for the backward pass:

1. `_states` computes the state at the start of every chunk again;
2. the same kernel, run from the last chunk to the first, the gradient of the state at the end of every chunk;
3. `_gradients` takes a chunk of a cell per program and goes through its heads. What heads share is computed once
   (``C B^T``) or summed on the chip (gradients of B and C), and chunks do not wait for each other.

- A head wider than a block is cut into blocks of channels, which share dt, A, B, C and D. Each writes its part of their
  gradients apart, so that sums run in a fixed order and results are the same every time.
- Products run in the dtype of ``x``, everything that is summed or exponentiated in float32. Powers are of two. Chunks of 64
  tokens are what the tensor cores of compute capability 9.0 take at once.
- The gate is not part of the kernels: the norm that follows reads the same tensors in any case.
- In the kernels ``dx`` and ``d_state`` are gradients with respect to ``x`` and ``state``, and ``Q``, ``P`` and ``S`` the
  powers of two that one program handles of ``q``, ``p`` and ``s``.

Importing this file needs triton; `scmamba_scvi.ops.backend` does so when asked to. With ``TRITON_INTERPRET=1`` in the
environment at that time the kernels run on a CPU, slowly, for tests.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import ScmambaError
from .launch import launch, n_blocks
from .triton_fused import dense_rows
from .triton_sizes import tile_sizes

INTERPRETED: Final = os.environ.get("TRITON_INTERPRET") == "1"
DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)
LOG2_E: Final = tl.constexpr(1.4426950408889634)
#: As `scmamba_scvi.ops.ssd.SMALLEST_LOG2_DECAY`, for the same reason.
SMALLEST_LOG2_DECAY: Final = tl.constexpr(-100.0)
IN_FLOAT32: Final = tl.constexpr(INTERPRETED)


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr):
    """``a @ b``, summed in float32."""
    if IN_FLOAT32:  # triton's interpreter multiplies bfloat16 as if it were integers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def _log2_decay(dt, A):
    """Log2 of the decay since the chunk began ``(q,)``, and of that of the chunk."""
    steps = tl.maximum(dt * (A * LOG2_E), SMALLEST_LOG2_DECAY)
    return tl.cumsum(steps, 0), tl.sum(steps, 0)


@triton.jit
def _decay(log2_decay):
    """Differences of sums may be above zero by rounding, and far above it for tokens that do not read each other."""
    return tl.exp2(tl.minimum(log2_decay, 0.0))


@triton.jit
def _place(h: tl.constexpr, blocks: tl.constexpr):
    """Cell, head and block of channels of this program; heads of a cell run side by side and share B and C in cache."""
    program = tl.program_id(0)
    # a minibatch may hold more than 2^31 numbers
    return (program // (h * blocks)).to(tl.int64), program // blocks % h, program % blocks


@triton.jit
def _tile(rows: tl.constexpr, columns: tl.constexpr):
    """Offsets in a dense matrix of this shape."""
    return tl.arange(0, rows)[:, None] * columns + tl.arange(0, columns)[None, :]


@triton.jit
def _forward(
    x_ptr, dt_ptr, A_ptr, B_ptr, C_ptr, D_ptr, y_ptr, c, n_chunks,
    x_n, x_c, x_h, dt_n, dt_c, dt_h, B_n, B_c, C_n, C_c,
    h: tl.constexpr, p: tl.constexpr, s: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, S: tl.constexpr,
    ONE_CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    cell, head, block = _place(h, tl.cdiv(p, P))
    channel, dim = block * P + tl.arange(0, P), tl.arange(0, S)
    is_channel, is_dim = (channel < p)[None, :], (dim < s)[None, :]
    A, D = tl.load(A_ptr + head), tl.load(D_ptr + head)
    lower = tl.arange(0, Q)[:, None] >= tl.arange(0, Q)[None, :]
    state = tl.zeros((S, P), tl.float32)
    for k in range(n_chunks):
        token = k * Q + tl.arange(0, Q)
        inside = token < c
        row, is_row = token[:, None], inside[:, None]
        # a token beyond the last has a step of zero: it leaves the state as it is
        x = tl.load(x_ptr + cell * x_n + row * x_c + head * x_h + channel[None, :], is_row & is_channel, 0.0)
        dt = tl.load(dt_ptr + cell * dt_n + token * dt_c + head * dt_h, inside, 0.0)
        B = tl.load(B_ptr + cell * B_n + row * B_c + dim[None, :], is_row & is_dim, 0.0)
        C = tl.load(C_ptr + cell * C_n + row * C_c + dim[None, :], is_row & is_dim, 0.0)
        log2_decay, total = _log2_decay(dt, A)
        decay = tl.where(lower, _decay(log2_decay[:, None] - log2_decay[None, :]), 0.0)
        weights = _dot(C, tl.trans(B), PRECISION) * decay * dt[None, :]  # (q, q)
        y = _dot(weights.to(x.dtype), x, PRECISION) + D * x.to(tl.float32)  # (q, p)
        if not ONE_CHUNK:
            y += _dot(C, state.to(x.dtype), PRECISION) * tl.exp2(log2_decay)[:, None]
            entering = (x.to(tl.float32) * (_decay(total - log2_decay) * dt)[:, None]).to(x.dtype)
            state = state * tl.exp2(total) + _dot(tl.trans(B), entering, PRECISION)
        at = row * (h * p) + head * p + channel[None, :]
        tl.store(y_ptr + cell * c * h * p + at, y.to(x.dtype), is_row & is_channel)


@triton.jit
def _states(
    x_ptr, dt_ptr, A_ptr, B_ptr, states_ptr, d_states_ptr, kept_ptr, c, n_chunks,
    x_n, x_c, x_h, dt_n, dt_c, dt_h, B_n, B_c,
    h: tl.constexpr, p: tl.constexpr, s: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, S: tl.constexpr,
    REVERSE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The state at the end of each chunk but the last, ``(n, n_chunks - 1, h, blocks, S, P)``.

    ``REVERSE``, with the gradient of the output as ``x`` and C as ``B``: the gradient of that state, and in ``kept``,
    ``(n, n_chunks - 1, h, blocks)``, how much of the loss came through the decay of a chunk's first state.
    """
    blocks: tl.constexpr = (p + P - 1) // P
    cell, head, block = _place(h, blocks)
    channel, dim = block * P + tl.arange(0, P), tl.arange(0, S)
    is_channel, is_dim = (channel < p)[None, :], (dim < s)[None, :]
    A = tl.load(A_ptr + head)
    state = tl.zeros((S, P), tl.float32)
    for i in range(n_chunks - 1):
        k = n_chunks - 1 - i if REVERSE else i
        token = k * Q + tl.arange(0, Q)
        inside = token < c
        row, is_row = token[:, None], inside[:, None]
        x = tl.load(x_ptr + cell * x_n + row * x_c + head * x_h + channel[None, :], is_row & is_channel, 0.0)
        dt = tl.load(dt_ptr + cell * dt_n + token * dt_c + head * dt_h, inside, 0.0)
        B = tl.load(B_ptr + cell * B_n + row * B_c + dim[None, :], is_row & is_dim, 0.0)
        log2_decay, total = _log2_decay(dt, A)
        # how much of a token is in the state at the end of the chunk, or of the state at its start in a token
        fraction = tl.exp2(log2_decay) if REVERSE else _decay(total - log2_decay) * dt
        entering = (x.to(tl.float32) * fraction[:, None]).to(x.dtype)
        slot = ((cell * (n_chunks - 1) + k) * h + head) * blocks + block
        tile = (slot - h * blocks if REVERSE else slot) * S * P + _tile(S, P)
        state *= tl.exp2(total)
        if REVERSE:
            first = tl.load(states_ptr + tile).to(tl.float32)
            tl.store(kept_ptr + slot, tl.sum(tl.sum(state * first, 1), 0), i > 0)
        state += _dot(tl.trans(B), entering, PRECISION)
        tl.store((d_states_ptr if REVERSE else states_ptr) + tile, state.to(x.dtype))


@triton.jit
def _gradients_of_reading(
    x_ptr, dt_ptr, A_ptr, B_ptr, C_ptr, dy_ptr, states_ptr, dC_ptr, d_log_decay_ptr, c, n_chunks,
    x_n, x_c, x_h, dt_n, dt_c, dt_h, B_n, B_c, C_n, C_c, dC_n, dC_c,
    h: tl.constexpr, p: tl.constexpr, s: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, S: tl.constexpr,
    ONE_CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of the tokens of a chunk as those that read: of C, and of the log of the decay since the chunk began.

    The second is written to ``d_log_decay``, ``(n, h, blocks, c)``. Rows of ``(q, q)`` are tokens that read, columns those
    read.
    """
    blocks: tl.constexpr = (p + P - 1) // P
    cell, k = (tl.program_id(0) // n_chunks).to(tl.int64), tl.program_id(0) % n_chunks
    token, dim, index = k * Q + tl.arange(0, Q), tl.arange(0, S), tl.arange(0, Q)
    inside, is_dim = token < c, (dim < s)[None, :]
    row, is_row = token[:, None], inside[:, None]
    B = tl.load(B_ptr + cell * B_n + row * B_c + dim[None, :], is_row & is_dim, 0.0)
    C = tl.load(C_ptr + cell * C_n + row * C_c + dim[None, :], is_row & is_dim, 0.0)
    scores = _dot(C, tl.trans(B), PRECISION)
    dC = tl.zeros((Q, S), tl.float32)
    for part in range(h * blocks):
        head, channel = part // blocks, part % blocks * P + tl.arange(0, P)
        inside_part = is_row & (channel < p)[None, :]
        x = tl.load(x_ptr + cell * x_n + row * x_c + head * x_h + channel[None, :], inside_part, 0.0)
        dy = tl.load(dy_ptr + (cell * c + row) * (h * p) + head * p + channel[None, :], inside_part, 0.0)
        dt = tl.load(dt_ptr + cell * dt_n + token * dt_c + head * dt_h, inside, 0.0)
        log2_decay, _ = _log2_decay(dt, tl.load(A_ptr + head))
        # from the chunk: y = weights (dt x), weights = scores * decay; a token's own weight depends on no decay
        d_scores = _dot(dy, tl.trans(x), PRECISION) * dt[None, :] * _decay(log2_decay[:, None] - log2_decay[None, :])
        d_scores = tl.where(index[:, None] >= index[None, :], d_scores, 0.0)
        d_log_decay = tl.sum(tl.where(index[:, None] > index[None, :], d_scores * scores, 0.0), 1)
        dC += _dot(d_scores.to(x.dtype), B, PRECISION)
        if not ONE_CHUNK:  # from the state at its start
            slot = (cell * (n_chunks - 1) + k - 1) * (h * blocks) + part
            state = tl.load(states_ptr + slot * S * P + _tile(S, P), k > 0, 0.0)
            reading = dy.to(tl.float32) * tl.exp2(log2_decay)[:, None]
            dC += _dot(reading.to(x.dtype), tl.trans(state), PRECISION)
            d_log_decay += tl.sum(_dot(C, state, PRECISION) * reading, 1)
        tl.store(d_log_decay_ptr + (cell * (h * blocks) + part) * c + token, d_log_decay, inside)
    tl.store(dC_ptr + cell * dC_n + row * dC_c + dim[None, :], dC.to(B.dtype), is_row & is_dim)


# these are parts of one tensor, so that the number of cells decides how they are aligned
@triton.jit(do_not_specialize_on_alignment=["ddt_ptr", "dA_ptr", "dD_ptr"])
def _gradients_of_bringing(
    x_ptr, dt_ptr, A_ptr, B_ptr, C_ptr, D_ptr, dy_ptr, d_log_decay_ptr, kept_ptr, d_states_ptr,
    dx_ptr, ddt_ptr, dA_ptr, dB_ptr, dD_ptr, c, n_chunks,
    x_n, x_c, x_h, dt_n, dt_c, dt_h, B_n, B_c, C_n, C_c, dx_n, dx_c, dB_n, dB_c,
    h: tl.constexpr, p: tl.constexpr, s: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, S: tl.constexpr,
    ONE_CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of the tokens of a chunk as those that are read: of x and B; and of dt, A and D, all else being known.

    Parts of those of dt are written ``(n, h, blocks, c)``, of A and D ``(n, n_chunks, h, blocks)``. Rows of ``(q, q)`` are
    tokens that are read, columns those that read.
    """
    blocks: tl.constexpr = (p + P - 1) // P
    cell, k = (tl.program_id(0) // n_chunks).to(tl.int64), tl.program_id(0) % n_chunks
    token, dim, index = k * Q + tl.arange(0, Q), tl.arange(0, S), tl.arange(0, Q)
    inside, is_dim = token < c, (dim < s)[None, :]
    row, is_row = token[:, None], inside[:, None]
    B = tl.load(B_ptr + cell * B_n + row * B_c + dim[None, :], is_row & is_dim, 0.0)
    C = tl.load(C_ptr + cell * C_n + row * C_c + dim[None, :], is_row & is_dim, 0.0)
    scores = _dot(B, tl.trans(C), PRECISION)
    dB = tl.zeros((Q, S), tl.float32)
    for part in range(h * blocks):
        head, channel = part // blocks, part % blocks * P + tl.arange(0, P)
        inside_part = is_row & (channel < p)[None, :]
        x = tl.load(x_ptr + cell * x_n + row * x_c + head * x_h + channel[None, :], inside_part, 0.0)
        dy = tl.load(dy_ptr + (cell * c + row) * (h * p) + head * p + channel[None, :], inside_part, 0.0)
        dt = tl.load(dt_ptr + cell * dt_n + token * dt_c + head * dt_h, inside, 0.0)
        A = tl.load(A_ptr + head)
        log2_decay, total = _log2_decay(dt, A)
        decay = _decay(log2_decay[None, :] - log2_decay[:, None])
        decay = tl.where(index[:, None] <= index[None, :], decay, 0.0)
        # by tokens of the chunk
        products = _dot(x, tl.trans(dy), PRECISION)
        d_scores = products * decay  # but for dt
        dB += _dot((d_scores * dt[:, None]).to(x.dtype), C, PRECISION)
        by_itself = index[:, None] == index[None, :]
        dD = tl.sum(tl.where(by_itself, products, 0.0), 1)
        ddt = tl.sum(tl.where(by_itself, 0.0, d_scores * scores), 1)
        lost = ddt * dt  # a token's own weight depends on no decay
        ddt += tl.sum(tl.where(by_itself, products * scores, 0.0), 1)
        shared, d_stepped = 0.0, tl.zeros((Q, P), tl.float32)  # of dt x
        if not ONE_CHUNK:  # by later ones, through the state at the end
            slot = (cell * (n_chunks - 1) + k) * (h * blocks) + part
            d_state = tl.load(d_states_ptr + slot * S * P + _tile(S, P), k < n_chunks - 1, 0.0)
            to_end = _decay(total - log2_decay)
            dB += _dot((x.to(tl.float32) * (to_end * dt)[:, None]).to(x.dtype), tl.trans(d_state), PRECISION)
            d_stepped = _dot(B, d_state, PRECISION) * to_end[:, None]
            brought = tl.sum(d_stepped * x.to(tl.float32), 1)
            ddt += brought
            # the steps after a token decay what it brought, and all of them what was in the state before
            lost += brought * dt
            kept = tl.load(kept_ptr + slot, (k > 0) & (k < n_chunks - 1), 0.0)
            shared = tl.sum(brought * dt, 0) + kept
        d_stepped += _dot((scores * decay).to(x.dtype), dy, PRECISION)
        dx = d_stepped * dt[:, None] + tl.load(D_ptr + head) * dy.to(tl.float32)
        tl.store(dx_ptr + cell * dx_n + row * dx_c + head * p + channel[None, :], dx.to(x.dtype), inside_part)
        at = (cell * (h * blocks) + part) * c + token
        d_steps = tl.cumsum(tl.load(d_log_decay_ptr + at, inside, 0.0) - lost, 0, reverse=True) + shared
        d_steps = tl.where(dt * (A * LOG2_E) > SMALLEST_LOG2_DECAY, d_steps, 0.0)
        tl.store(ddt_ptr + at, ddt + d_steps * A, inside)
        at = tl.program_id(0).to(tl.int64) * (h * blocks) + part
        tl.store(dA_ptr + at, tl.sum(d_steps * dt, 0))
        tl.store(dD_ptr + at, tl.sum(dD, 0))
    tl.store(dB_ptr + cell * dB_n + row * dB_c + dim[None, :], dB.to(B.dtype), is_row & is_dim)


def ssd_triton(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The scan by the kernels of this file; arguments and result as in `scmamba_scvi.ops.ssd`.

    ``x``, ``B`` and ``C`` may be slices of a wider tensor: nothing is copied. Tensors that are not on a CUDA
    device, or of float64, are refused.
    """
    if x.device.type != "cuda" and not INTERPRETED:
        raise ScmambaError(
            f"ssd_backend='triton' needs tensors on a CUDA device, got {x.device}. Pass ssd_backend='torch' or 'auto'."
        )
    if x.dtype not in DTYPES:
        raise ScmambaError(
            f"ssd_backend='triton' computes in float32, bfloat16 or float16, got {x.dtype}. Pass ssd_backend='torch'."
        )
    A, D = A.float().contiguous(), D.float().contiguous()
    return _Scan.apply(x, dt.float(), A, B.to(x.dtype), C.to(x.dtype), D)


def scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Outputs ``(n, c, h, p)`` without a gradient; dt, A and D in float32, rows of x, B and C dense."""
    y, sizes = x.new_empty(x.shape), tile_sizes(x, B, backward=False)
    (n, c, h, p), q = x.shape, sizes["Q"]
    launch(
        _forward, (n * h * n_blocks(p, sizes["P"]),), x, x, dt, A, B, C, D, y, c, n_blocks(c, q),
        *_strides(x, dt, B, C), **sizes,
    )  # fmt: skip
    return y


def scan_gradients(
    dy: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    into: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `scan`: of x, B and C written to the three tensors ``into``, of dt, A and D returned in float32.

    ``dy`` is dense; rows of ``into`` are dense, those of B and C have the same strides.
    """
    (n, c, h, p), sizes, (dx, dB, dC) = x.shape, tile_sizes(x, B, backward=True), into
    blocks, k = n_blocks(p, sizes["P"]), n_blocks(c, sizes["Q"])
    ddt, (dA, dD) = dt.new_empty(n, h, blocks, c), dt.new_empty(2, n, k, h, blocks)
    # where chunks are short beside S, states of all cells together would take more memory than all that a block keeps
    n_parts = n_blocks(sizes["S"], 2 * sizes["Q"]) if k > 1 else 1
    for part in zip(*(t.tensor_split(n_parts) for t in (dy, x, dt, B, C, dx, dB, dC, ddt, dA, dD)), strict=True):
        _gradients_of_cells(A, D, sizes, *part)
    return ddt.sum(2).transpose(1, 2), dA.sum((0, 1, 3)), dD.sum((0, 1, 3))


def _gradients_of_cells(
    A: Tensor, D: Tensor, sizes: dict[str, Any], dy: Tensor, x: Tensor, dt: Tensor, B: Tensor, C: Tensor,
    dx: Tensor, dB: Tensor, dC: Tensor, ddt: Tensor, dA: Tensor, dD: Tensor,
) -> None:  # fmt: skip
    """The kernels for some cells, which write the last six tensors."""
    n, k, h, blocks = dA.shape
    c, d_log_decay, kept = x.shape[1], torch.empty_like(ddt), torch.empty_like(dA)
    strides = _strides(x, dt, B, C)
    states = d_states = dy  # not read if there is one chunk
    if k > 1:
        states, d_states = x.new_empty(2, n, k - 1, h * blocks, sizes["S"], sizes["P"])
        of_states = {name: size for name, size in sizes.items() if name != "ONE_CHUNK"} | {"num_stages": 3}
        for reverse, (entering, by) in enumerate(((x, B), (dy, C))):
            launch(
                _states, (n * h * blocks,), x, entering, dt, A, by, states, d_states, kept, c, k,
                *_strides(entering, dt, by, by)[:8], **of_states, REVERSE=bool(reverse),
            )  # fmt: skip
    launch(
        _gradients_of_reading, (n * k,), x, x, dt, A, B, C, dy, states, dC, d_log_decay, c, k, *strides,
        *dC.stride()[:2], **sizes,
    )  # fmt: skip
    launch(
        _gradients_of_bringing, (n * k,), x, x, dt, A, B, C, D, dy, d_log_decay, kept, d_states, dx, ddt, dA, dB,
        dD, c, k, *strides, *dx.stride()[:2], *dB.stride()[:2], **sizes,
    )  # fmt: skip


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        ctx.save_for_backward(x, dt, A, B, C, D)
        return scan(dense_rows(x), dt, A, dense_rows(B), dense_rows(C), D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        x, dt, A, B, C, D = ctx.saved_tensors
        x, B, C = (dense_rows(t) for t in (x, B, C))
        dx, dB, dC = into = [t.new_empty(t.shape) for t in (x, B, C)]
        ddt, dA, dD = scan_gradients(dy.contiguous(), x, dt, A, B, C, D, into)
        return dx, ddt, dA, dB, dC, dD


def _strides(x: Tensor, dt: Tensor, B: Tensor, C: Tensor) -> tuple[int, ...]:
    """In the order of the kernels' arguments."""
    return (*x.stride()[:3], *dt.stride(), *B.stride()[:2], *C.stride()[:2])
