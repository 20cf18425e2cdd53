"""The scan by kernels of our own: one program per cell and head, one pass over the tokens in each direction.

The equations are those of `scmamba_scvi.ops.ssd`, chunk by chunk, with the state ``(s, p)`` carried in registers. The
``q x q`` and ``s x p`` matrices of a head never leave the chip; memory is read and written once per token. Only the
inputs are kept for the backward pass: it computes the states again, then runs from the last chunk to the first and
carries the gradient of the state along.

- A head wider than `MAX_BLOCK` is cut into blocks of channels, with a program each. Blocks of a head share dt, A, B, C
  and D, heads share B and C, and their gradients are sums over the programs that share them. Each program writes its own
  part, so that sums run in a fixed order and results are the same every time.
- Products run in the dtype of ``x``, everything that is summed or exponentiated in float32. Powers are of two.
- The gate is not part of the kernels: the norm that follows reads the same tensors in any case.
- In the kernels ``dx`` and ``d_state`` are gradients with respect to ``x`` and ``state``, and ``Q``, ``P`` and ``S`` the
  powers of two that one program handles of ``q``, ``p`` and ``s``.

Importing this file needs triton; `scmamba_scvi.ops.backend` does so when asked to. With ``TRITON_INTERPRET=1`` in the
environment at that time the kernels run on a CPU, slowly, for tests.
"""

from __future__ import annotations

import os
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..errors import ScmambaError

#: Channels of one program.
MAX_BLOCK = 64
#: Longest chunk by bytes per number: forward, backward, and backward if the sequence is one chunk. Longer ones spill
#: registers into memory when compiled for compute capability 9.0.
MAX_CHUNK: Final = {2: (64, 32, 64), 4: (32, 16, 32)}
#: Shortest axis that `tl.dot` takes.
MIN_AXIS = 16
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
def _decays(dt, A):
    """Log2 of the decay since the chunk began ``(q,)``, decays between tokens ``(q, q)``, log2 of that of the chunk."""
    steps = tl.maximum(dt * (A * LOG2_E), SMALLEST_LOG2_DECAY)
    log2_decay = tl.cumsum(steps, 0)
    index = tl.arange(0, dt.shape[0])
    lower = index[:, None] >= index[None, :]
    decay = tl.where(lower, tl.exp2(tl.minimum(log2_decay[:, None] - log2_decay[None, :], 0.0)), 0.0)
    return log2_decay, decay, tl.sum(steps, 0)


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
    x_ptr, dt_ptr, A_ptr, B_ptr, C_ptr, D_ptr, y_ptr, states_ptr, c, n_chunks,
    x_n, x_c, x_h, dt_n, dt_c, dt_h, B_n, B_c, C_n, C_c,
    h: tl.constexpr, p: tl.constexpr, s: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, S: tl.constexpr,
    STATES_ONLY: tl.constexpr, ONE_CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs, or (``STATES_ONLY``) the state at the start of each chunk, ``(programs, n_chunks, S, P)``."""
    cell, head, block = _place(h, tl.cdiv(p, P))
    channel, dim = block * P + tl.arange(0, P), tl.arange(0, S)
    is_channel, is_dim = (channel < p)[None, :], (dim < s)[None, :]
    A, D = tl.load(A_ptr + head).to(tl.float32), tl.load(D_ptr + head).to(tl.float32)
    state = tl.zeros((S, P), tl.float32)
    for k in range(n_chunks):
        token = k * Q + tl.arange(0, Q)
        inside = token < c
        row, is_row = token[:, None], inside[:, None]
        # a token beyond the last has a step of zero: it leaves the state as it is
        x = tl.load(x_ptr + cell * x_n + row * x_c + head * x_h + channel[None, :], is_row & is_channel, 0.0)
        dt = tl.load(dt_ptr + cell * dt_n + token * dt_c + head * dt_h, inside, 0.0)
        B = tl.load(B_ptr + cell * B_n + row * B_c + dim[None, :], is_row & is_dim, 0.0)
        log2_decay, decay, total = _decays(dt, A)
        if STATES_ONLY:
            start = tl.program_id(0).to(tl.int64) * n_chunks + k
            tl.store(states_ptr + start * S * P + _tile(S, P), state.to(x.dtype))
        else:
            C = tl.load(C_ptr + cell * C_n + row * C_c + dim[None, :], is_row & is_dim, 0.0)
            weights = _dot(C, tl.trans(B), PRECISION) * decay * dt[None, :]  # (q, q)
            y = _dot(weights.to(x.dtype), x, PRECISION) + D * x.to(tl.float32)  # (q, p)
            if not ONE_CHUNK:
                y += _dot(C, state.to(x.dtype), PRECISION) * tl.exp2(log2_decay)[:, None]
            at = row * (h * p) + head * p + channel[None, :]
            tl.store(y_ptr + cell * c * h * p + at, y.to(x.dtype), is_row & is_channel)
        if not ONE_CHUNK:
            to_end = tl.exp2(tl.minimum(total - log2_decay, 0.0)) * dt  # (q,)
            entering = (x.to(tl.float32) * to_end[:, None]).to(x.dtype)
            state = state * tl.exp2(total) + _dot(tl.trans(B), entering, PRECISION)


@triton.jit
def _gradients_within(x, dt, B, C, dy, decay, PRECISION: tl.constexpr):
    """Gradients of ``y = weights (dt x)``, ``weights = decay * (C B^T)``: tokens that read tokens of the same chunk.

    Of B and C ``(q, s)``, of dt x ``(q, p)``, and of the log2 of the decay since the chunk began ``(q,)``.
    """
    weights = _dot(C, tl.trans(B), PRECISION) * decay  # (q, q)
    d_weights = _dot(dy, tl.trans(x), PRECISION) * dt[None, :]  # (q, q)
    d_scores = (d_weights * decay).to(x.dtype)
    dC = _dot(d_scores, B, PRECISION)  # (q, s)
    dB = _dot(tl.trans(d_scores), C, PRECISION)  # (q, s)
    d_stepped = _dot(tl.trans(weights.to(x.dtype)), dy, PRECISION)  # of dt x, (q, p)
    # a token's own weight depends on no decay
    index = tl.arange(0, dt.shape[0])
    d_log = tl.where(index[:, None] > index[None, :], d_weights * weights, 0.0)
    return dB, dC, d_stepped, tl.sum(d_log, 1) - tl.sum(d_log, 0)


@triton.jit
def _gradients_carried(x, dt, B, C, dy, log2_decay, total, state, d_state, PRECISION: tl.constexpr):
    """Gradients through the states at the start (``state``) and at the end (``d_state``) of the chunk ``(s, p)``.

    As of `_gradients_within`, and of the log2 of each step's decay ``(q,)`` and of the state at the start.
    """
    since_start, to_end = tl.exp2(log2_decay), tl.exp2(tl.minimum(total - log2_decay, 0.0))
    # what is read from the state
    read = _dot(dy, tl.trans(state), PRECISION) * since_start[:, None]  # (q, s)
    d_bits = tl.sum(read * C.to(tl.float32), 1)
    # what enters the state
    d_stepped = _dot(B, d_state.to(x.dtype), PRECISION) * to_end[:, None]  # (q, p)
    entered = _dot(x, tl.trans(d_state.to(x.dtype)), PRECISION) * (to_end * dt)[:, None]  # (q, s)
    # the steps after a token decay what it brought, and all of them the state before
    kept = tl.sum(entered * B.to(tl.float32), 1)
    whole = tl.exp2(total)
    d_steps = tl.cumsum(kept, 0) - kept + whole * tl.sum(d_state * state.to(tl.float32))
    reading = (dy.to(tl.float32) * since_start[:, None]).to(x.dtype)
    return entered, read, d_stepped, d_bits, d_steps, d_state * whole + _dot(tl.trans(C), reading, PRECISION)


@triton.jit
def _backward(
    x_ptr, dt_ptr, A_ptr, B_ptr, C_ptr, D_ptr, dy_ptr, states_ptr,
    dx_ptr, ddt_ptr, dA_ptr, dB_ptr, dC_ptr, dD_ptr, c, n_chunks,
    x_n, x_c, x_h, dt_n, dt_c, dt_h, B_n, B_c, C_n, C_c,
    h: tl.constexpr, p: tl.constexpr, s: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, S: tl.constexpr,
    ONE_CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients for this program's channels; its parts of shared gradients are written apart, ``(n, h, blocks, ...)``."""
    cell, head, block = _place(h, tl.cdiv(p, P))
    program = tl.program_id(0).to(tl.int64)
    channel, dim = block * P + tl.arange(0, P), tl.arange(0, S)
    is_channel, is_dim = (channel < p)[None, :], (dim < s)[None, :]
    A, D = tl.load(A_ptr + head).to(tl.float32), tl.load(D_ptr + head).to(tl.float32)
    d_state = tl.zeros((S, P), tl.float32)  # of the state at the end of the chunk
    dA, dD = tl.zeros((Q,), tl.float32), tl.zeros((Q,), tl.float32)
    for back in range(n_chunks):
        k = n_chunks - 1 - back
        token = k * Q + tl.arange(0, Q)
        inside = token < c
        row, is_row = token[:, None], inside[:, None]
        x = tl.load(x_ptr + cell * x_n + row * x_c + head * x_h + channel[None, :], is_row & is_channel, 0.0)
        dt = tl.load(dt_ptr + cell * dt_n + token * dt_c + head * dt_h, inside, 0.0)
        B = tl.load(B_ptr + cell * B_n + row * B_c + dim[None, :], is_row & is_dim, 0.0)
        C = tl.load(C_ptr + cell * C_n + row * C_c + dim[None, :], is_row & is_dim, 0.0)
        at = row * (h * p) + head * p + channel[None, :]
        dy = tl.load(dy_ptr + cell * c * h * p + at, is_row & is_channel, 0.0)
        log2_decay, decay, total = _decays(dt, A)

        dB, dC, d_stepped, d_bits = _gradients_within(x, dt, B, C, dy, decay, PRECISION)
        d_steps = tl.zeros((Q,), tl.float32)
        if not ONE_CHUNK:
            state = tl.load(states_ptr + (program * n_chunks + k) * S * P + _tile(S, P))
            dB_carried, dC_carried, d_stepped_carried, d_bits_carried, d_steps, d_state = _gradients_carried(
                x, dt, B, C, dy, log2_decay, total, state, d_state, PRECISION
            )
            dB += dB_carried
            dC += dC_carried
            d_stepped += d_stepped_carried
            d_bits += d_bits_carried

        d_steps += tl.cumsum(d_bits, 0, reverse=True)
        d_steps = tl.where(dt * (A * LOG2_E) > SMALLEST_LOG2_DECAY, d_steps, 0.0)
        xf, dyf = x.to(tl.float32), dy.to(tl.float32)
        dx = (d_stepped * dt[:, None] + D * dyf).to(x.dtype)
        tl.store(dx_ptr + cell * c * h * p + at, dx, is_row & is_channel)
        tl.store(ddt_ptr + program * c + token, d_steps * A + tl.sum(d_stepped * xf, 1), inside)
        at_dim = row * s + dim[None, :]
        tl.store(dB_ptr + program * c * s + at_dim, dB.to(x.dtype), is_row & is_dim)
        tl.store(dC_ptr + program * c * s + at_dim, dC.to(x.dtype), is_row & is_dim)
        dA += d_steps * dt
        dD += tl.sum(dyf * xf, 1)
    tl.store(dA_ptr + program, tl.sum(dA, 0))
    tl.store(dD_ptr + program, tl.sum(dD, 0))


def ssd_triton(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, chunk_size: int | None = None
) -> Tensor:
    """The scan by the kernels of this file; arguments and result as in `scmamba_scvi.ops.ssd`.

    ``x``, ``B`` and ``C`` may be slices of a wider tensor: nothing is copied. ``chunk_size`` is the largest number of tokens
    per chunk, rounded up to a power of two of at least 16; `None` and more than `MAX_CHUNK` are `MAX_CHUNK`. Tensors that are
    not on a CUDA device, or of float64, are refused.
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
    return _ssd(x, dt.float(), A, B.to(x.dtype), C.to(x.dtype), D, chunk_size or 0)


# Operators of torch rather than an autograd function: `torch.compile` takes them as they are.
@torch.library.custom_op(
    "scmamba_scvi::ssd",
    mutates_args=(),
    schema="(Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor D, int longest) -> Tensor",
)
def _ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, longest: int) -> Tensor:
    x, B, C = (_dense_rows(t) for t in (x, B, C))
    y = x.new_empty(x.shape)
    sizes = _sizes(x, B, longest, backward=False)
    with torch.cuda.device(x.get_device()):
        _forward[_grid(x)](x, dt, A, B, C, D, y, y, *_strides(x, dt, B, C, sizes["Q"]), **sizes, STATES_ONLY=False)
    return y


@torch.library.custom_op(
    "scmamba_scvi::ssd_backward",
    mutates_args=(),
    schema="(Tensor dy, Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor D, int longest)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _ssd_backward(
    dy: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, longest: int
) -> tuple[Tensor, ...]:
    x, B, C, dy = _dense_rows(x), _dense_rows(B), _dense_rows(C), dy.to(x.dtype).contiguous()
    (n, c, h, p), s = x.shape, B.shape[-1]
    sizes, grid = _sizes(x, B, longest, backward=True), _grid(x)
    strides, blocks = _strides(x, dt, B, C, sizes["Q"]), triton.cdiv(p, sizes["P"])
    dx = x.new_empty(x.shape)
    ddt, dA, dD = dt.new_empty(n, h, blocks, c), dt.new_empty(n, h, blocks), dt.new_empty(n, h, blocks)
    dB, dC = x.new_empty(n, h * blocks, c, s), x.new_empty(n, h * blocks, c, s)
    with torch.cuda.device(x.get_device()):
        states = dy  # not read if there is one chunk
        if not sizes["ONE_CHUNK"]:
            states = x.new_empty(*grid, triton.cdiv(c, sizes["Q"]), sizes["S"], sizes["P"])
            _forward[grid](x, dt, A, B, C, D, dx, states, *strides, **sizes, STATES_ONLY=True)
        _backward[grid](x, dt, A, B, C, D, dy, states, dx, ddt, dA, dB, dC, dD, *strides, **sizes)
    dB, dC = (t.sum(1, dtype=torch.float32).to(x.dtype) for t in (dB, dC))
    return dx, ddt.sum(2).transpose(1, 2).contiguous(), dA.sum((0, 2)), dB, dC, dD.sum((0, 2))


@_ssd.register_fake
def _(x, dt, A, B, C, D, longest):
    return x.new_empty(x.shape)


@_ssd_backward.register_fake
def _(dy, x, dt, A, B, C, D, longest):
    return tuple(t.new_empty(t.shape) for t in (x, dt, A, B, C, D))


def _keep_inputs(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.longest = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    return *_ssd_backward(dy, *ctx.saved_tensors, ctx.longest), None


_ssd.register_autograd(_gradients, setup_context=_keep_inputs)


def _sizes(x: Tensor, B: Tensor, longest: int, *, backward: bool) -> dict[str, Any]:
    """What the kernels are compiled for."""
    (_, c, h, p), s = x.shape, B.shape[-1]
    forward, backward_of_several, backward_of_one = MAX_CHUNK[x.element_size()]
    limit = forward
    if backward:
        limit = backward_of_one if c <= backward_of_one else backward_of_several
    q = max(triton.next_power_of_2(min(c, longest or limit, limit)), MIN_AXIS)
    return {
        "h": h, "p": p, "s": s, "Q": q, "P": _block(p), "S": max(triton.next_power_of_2(s), MIN_AXIS),
        "ONE_CHUNK": c <= q,
        # torch's own switch; three products in TF32 are as exact as one in float32
        "PRECISION": "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32",
        "num_warps": 4 if q <= 32 and c <= q else 8, "num_stages": 1 if backward else 2,
    }  # fmt: skip


def _strides(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, q: int) -> tuple[int, ...]:
    """Tokens, chunks, and the strides in the order of the kernels' arguments."""
    c = x.shape[1]
    return (c, triton.cdiv(c, q), *x.stride()[:3], *dt.stride(), *B.stride()[:2], *C.stride()[:2])


def _grid(x: Tensor) -> tuple[int]:
    n, _, h, p = x.shape
    return (n * h * triton.cdiv(p, _block(p)),)


def _block(p: int) -> int:
    return min(max(triton.next_power_of_2(p), MIN_AXIS), MAX_BLOCK)


def _dense_rows(t: Tensor) -> Tensor:
    """``t`` itself if its last axis is dense in memory."""
    return t if t.stride(-1) == 1 else t.contiguous()
