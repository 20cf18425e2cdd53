"""The selective scan of Mamba2 (state space duality), in plain torch.

It computes, for every cell and head, with state ``H`` of shape ``(p, s)`` and ``H_0 = 0``,

    H_t = exp(dt_t A) H_{t-1} + dt_t x_t B_t^T        y_t = H_t C_t + D x_t

(Dao & Gu 2024, arXiv 2405.21060, equation 2 with a scalar ``A`` per head; the chunked form is its section 6). Letters
of dimensions are those of `scmamba_scvi._keys`; in addition ``k`` counts chunks.

====  ==================  ====================================================
x     ``(n, c, h, p)``    input of each head
dt    ``(n, c, h)``       step size, positive (softplus already applied)
A     ``(h,)``            decay rate, negative
B, C  ``(n, c, s)``       how the input enters the state and how it is read, shared by all heads
D     ``(h,)``            direct way from input to output
====  ==================  ====================================================
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Log2 of a decay that counts as complete. Smaller decays change no sum, and those that are subnormal in float32 make a
#: CPU twenty times slower.
SMALLEST_LOG2_DECAY = -100.0
#: Shorter chunks cost more overhead than they save; with longer ones the decay matrices, which grow with the chunk,
#: become the largest tensors of the network.
MIN_CHUNK, MAX_CHUNK = 16, 256


def ssd_chunked(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, chunk_size: int | None = None
) -> Tensor:
    """The recurrence by matrix products: attention-like inside chunks of ``q`` tokens, one step after the other between them.

    Every exponential is of a sum of ``dt A`` over the tokens between two positions, hence never of a positive number:
    nothing overflows, however fast the state decays. Exponentials, cumulative sums and states are float32 (float64 for
    float64 input); products with ``x``, ``B`` and ``C`` run in the dtype of ``x``. Memory grows linearly with ``c``;
    decay matrices and states are computed again in the backward pass instead of being kept.

    Parameters
    ----------
    x, dt, A, B, C, D
        ``(n, c, h, p)``, ``(n, c, h)``, ``(h,)``, ``(n, c, s)`` twice and ``(h,)``; their meanings stand at the head of this
        module.
    chunk_size
        ``q``: any length works, the last chunk is padded with tokens that do nothing. `None`: `choose_chunk_size`.

    Returns
    -------
    ``(n, c, h, p)`` in the dtype of ``x``.

    Examples
    --------
    >>> x, dt = torch.randn(2, 10, 1, 8), torch.rand(2, 10, 1)
    >>> A, D = -torch.ones(1), torch.ones(1)
    >>> B, C = torch.randn(2, 2, 10, 4)
    >>> ssd_chunked(x, dt, A, B, C, D, chunk_size=4).shape
    torch.Size([2, 10, 1, 8])
    """
    n, c, h, p = x.shape
    q = chunk_size or choose_chunk_size(c, p, B.shape[-1])
    k = -(-c // q)  # rounded up
    acc = torch.promote_types(x.dtype, torch.float32)
    # autocast would round what is in float32 on purpose
    with torch.autocast(x.device.type, enabled=False):
        x, dt, B, C = (_in_chunks(t, k, q) for t in (x, dt.to(acc), B.to(x.dtype), C.to(x.dtype)))
        log2_decay = _log2_decay(dt, A.to(acc)).cumsum(2)  # (n, k, q, h), log2 of the decay since the chunk began
        scores = (C @ B.transpose(-1, -2)).tril()  # (n, k, q, q), C_l . B_t for t <= l
        within = (t.flatten(0, 1) for t in (scores, log2_decay, dt, x))
        y = _DecayedAttention.apply(*within, D.to(acc)).unflatten(0, (n, k))  # (n, k, q, h, p), from the same chunk
        if k > 1:  # and from earlier chunks, through the state at the start of its own
            y = y + F.pad(_CarriedState.apply(x, dt, log2_decay, B, C), (0, 0, 0, 0, 0, 0, 1, 0))
    return y.flatten(1, 2)[:, :c]


def choose_chunk_size(c: int, p: int, s: int) -> int:
    """Tokens per chunk with the least element-wise work and padding, for ``c`` tokens, ``p`` channels of a head, ``s`` states.

    Per token and head, decay matrices cost ``q`` elements, states ``p s / q``, reading them ``p``; the weights of these
    terms are fitted to times on a CPU. A sequence that fits in one chunk needs no states at all.
    """

    def cost(q: int) -> float:
        k = -(-c // q)
        states = 2 * p * s / q + p if k > 1 else 0
        padding = 2 * p if k * q > c else 0  # copies of the inputs and of their gradients
        return k * q * (4 * q + states + padding)

    # the lengths that cut the sequence evenly, so that there is little padding
    lengths = {-(-c // k) for k in range(1, -(-c // MIN_CHUNK) + 1) if c <= k * MAX_CHUNK}
    return min(lengths, key=lambda length: (cost(length), length))  # of equal costs the shorter chunk


def _log2_decay(dt: Tensor, A: Tensor) -> Tensor:
    """Log2 of the decay in each step: powers of two are faster than those of e.

    A step that forgets everything is cut at `SMALLEST_LOG2_DECAY`: a cumulative sum of larger numbers would have no digits
    left for the small steps after it.
    """
    return (dt * (A / math.log(2))).clamp_min(SMALLEST_LOG2_DECAY)


def _in_chunks(t: Tensor, k: int, q: int) -> Tensor:
    """``(n, c, ...)`` to ``(n, k, q, ...)``, padded with zeros: a step of zero leaves the state as it is."""
    missing = k * q - t.shape[1]
    if missing:
        t = F.pad(t, (0, 0) * (t.ndim - 2) + (0, missing))
    return t.unflatten(1, (k, q))


class _CarriedState(torch.autograd.Function):
    """``y_l = 2^log2_decay_l C_l S_j`` for the tokens of every chunk ``j`` but the first, ``(n, k - 1, q, h, p)``.

    ``S_j`` is the state at the start of the chunk. States are several times larger than the inputs: they are computed
    again in the backward pass.
    """

    @staticmethod
    def forward(ctx, x: Tensor, dt: Tensor, log2_decay: Tensor, B: Tensor, C: Tensor) -> Tensor:
        ctx.save_for_backward(x, dt, log2_decay, B, C)
        to_end, decay = _to_end(log2_decay, x.shape[-1])
        weighted = x[:, :-1] * (to_end * dt[:, :-1])[..., None].to(x.dtype)
        read = C[:, 1:] @ _states(weighted, B, decay).to(x.dtype)  # (n, k - 1, q, h p)
        return read.view_as(weighted).mul_(_since_start(log2_decay).to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, ...]:
        x, dt, log2_decay, B, C = ctx.saved_tensors
        to_end, decay = _to_end(log2_decay, x.shape[-1])
        step = (to_end * dt[:, :-1])[..., None]  # (n, k - 1, q, h, 1)
        weighted = x[:, :-1] * step.to(x.dtype)
        states = _states(weighted, B, decay)  # (n, k - 1, s, h p)
        rounded = states.to(x.dtype)
        reading = grad * _since_start(log2_decay).to(x.dtype)  # of C S, (n, k - 1, q, h, p)
        grad_C = reading.flatten(3) @ rounded.transpose(-1, -2)
        read = (C[:, 1:] @ rounded).view_as(reading)
        grad_log = torch.zeros_like(log2_decay)  # with respect to the logarithms of the decays
        grad_log[:, 1:] = (reading * read).sum(-1, dtype=dt.dtype)
        # from the last chunk to the first: what a state is read for, in its own chunk and in all later ones
        grad_states = (C[:, 1:].transpose(-1, -2) @ reading.flatten(3)).to(dt.dtype)  # (n, k - 1, s, h p)
        for j in range(states.shape[1] - 1, 0, -1):
            kept = (grad_states[:, j] * states[:, j - 1]).sum(1).mul_(decay[:, j])  # (n, h p)
            grad_log[:, j, -1] += kept.unflatten(-1, x.shape[-2:]).sum(-1)
            grad_states[:, j - 1].addcmul_(decay[:, j, None], grad_states[:, j])
        rounded = grad_states.to(x.dtype)
        grad_B = weighted.flatten(3) @ rounded.transpose(-1, -2)
        grad_weighted = (B[:, :-1] @ rounded).view_as(weighted)
        grad_step = (grad_weighted * x[:, :-1]).sum(-1, dtype=dt.dtype)  # (n, k - 1, q, h)
        brought = grad_step * step[..., 0]
        # The log of the decay to the end of a chunk is that of its last token minus that of the token itself. For the last
        # token that is zero whatever the decays: its two terms would cancel, but only up to rounding.
        brought[:, :, -1] = 0
        grad_log[:, :-1] -= brought
        grad_log[:, :-1, -1] += brought.sum(2)
        grad_x = grad_weighted.mul_(step.to(x.dtype))
        return (
            F.pad(grad_x, (0, 0, 0, 0, 0, 0, 0, 1)), F.pad(grad_step * to_end, (0, 0, 0, 0, 0, 1)),
            grad_log.mul_(math.log(2)), F.pad(grad_B, (0, 0, 0, 0, 0, 1)), F.pad(grad_C, (0, 0, 0, 0, 1, 0)),
        )  # fmt: skip


def _to_end(log2_decay: Tensor, p: int) -> tuple[Tensor, Tensor]:
    """Decay from each token to the end of its chunk ``(n, k - 1, q, h)``, and over a chunk ``(n, k - 1, h p)``."""
    total = log2_decay[:, :-1, -1]
    to_end = (total[:, :, None] - log2_decay[:, :-1]).clamp_min_(SMALLEST_LOG2_DECAY).exp2_()
    return to_end, total.clamp_min(SMALLEST_LOG2_DECAY).exp2_().repeat_interleave(p, -1)


def _since_start(log2_decay: Tensor) -> Tensor:
    """Decay from the start of its chunk to each token, ``(n, k - 1, q, h, 1)``; the first chunk has no state."""
    return log2_decay[:, 1:].clamp_min(SMALLEST_LOG2_DECAY).exp2_()[..., None]


def _states(weighted: Tensor, B: Tensor, decay: Tensor) -> Tensor:
    """State at the end of every chunk but the last, ``(n, k - 1, s, h p)``."""
    states = (B[:, :-1].transpose(-1, -2) @ weighted.flatten(3)).to(decay.dtype)
    for j in range(1, states.shape[1]):
        states[:, j].addcmul_(decay[:, j, None], states[:, j - 1])
    return states


class _DecayedAttention(torch.autograd.Function):
    """``y_l = D x_l + sum over t <= l of scores_lt 2^(log2_decay_l - log2_decay_t) dt_t x_t``.

    The backward pass computes weights again. Shapes: scores ``(k, q, q)``, lower triangular; log2_decay and dt
    ``(k, q, h)``; x ``(k, q, h, p)``; D ``(h,)``.
    """

    @staticmethod
    def forward(ctx, scores: Tensor, log2_decay: Tensor, dt: Tensor, x: Tensor, D: Tensor) -> Tensor:
        ctx.save_for_backward(scores, log2_decay, dt, x, D)
        weights = _decays(log2_decay).mul_(scores[:, None])  # (k, h, q, q)
        y = weights.to(x.dtype) @ _by_head(x, dt)  # (k, h, q, p)
        return _add_direct(y.transpose(1, 2), x, D)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        scores, log2_decay, dt, x, D = ctx.saved_tensors
        by_head = grad.transpose(1, 2).contiguous()  # (k, h, q, p)
        decays = _decays(log2_decay)
        weights = decays * scores[:, None]
        grad_stepped = (weights.to(x.dtype).transpose(-1, -2) @ by_head).transpose(1, 2)  # of dt x, (k, q, h, p)
        grad_weights = (by_head @ _by_head(x, dt).transpose(-1, -2)).to(dt.dtype)  # (k, h, q, q)
        grad_scores = decays.mul_(grad_weights).sum(1).tril_().to(scores.dtype)
        grad_log = weights.mul_(grad_weights)  # with respect to the logarithm of the weights
        # A token's own weight depends on no decay: its term would cancel in the difference, but only up to rounding.
        grad_log.diagonal(dim1=-2, dim2=-1).zero_()
        grad_log2_decay = (grad_log.sum(-1) - grad_log.sum(-2)).mul_(math.log(2)).transpose(1, 2)  # (k, q, h)
        grad_dt = (grad_stepped * x).sum(-1, dtype=dt.dtype)  # (k, q, h)
        grad_x = _add_direct(grad_stepped.mul_(dt.to(x.dtype)[..., None]), grad, D)
        grad_D = (grad * x).sum((0, 1, 3), dtype=D.dtype)
        return grad_scores, grad_log2_decay, grad_dt, grad_x, grad_D


def _by_head(x: Tensor, dt: Tensor) -> Tensor:
    """``dt x`` with tokens next to channels, for matrix products: ``(k, q, h, p)`` to ``(k, h, q, p)`` in one copy."""
    k, q, h, p = x.shape
    return torch.mul(x.transpose(1, 2), dt.to(x.dtype).transpose(1, 2)[..., None], out=x.new_empty(k, h, q, p))


def _add_direct(y: Tensor, x: Tensor, D: Tensor) -> Tensor:
    """``y + D x``, both ``(k, q, h, p)`` in any order of memory, as a new contiguous tensor."""
    return torch.addcmul(y, x, D.to(x.dtype)[:, None], out=x.new_empty(x.shape))


def _decays(log2_decay: Tensor) -> Tensor:
    """``2^(log2_decay_l - log2_decay_t)`` for ``t <= l``, ``(k, q, h)`` to ``(k, h, q, q)``; elsewhere any finite number."""
    log2_decay = log2_decay.transpose(1, 2)  # (k, h, q)
    exponent = log2_decay[..., None] - log2_decay[:, :, None]  # (k, h, q, q)
    # Masking the upper triangle by -inf would also do, but makes this function ten times slower on a CPU.
    return exponent.clamp_(SMALLEST_LOG2_DECAY, 0).exp2_()
