"""The selective scan as it is written, one token after the other: what every implementation is compared with."""

from __future__ import annotations

import torch


def ssd_recurrent(x, dt, A, B, C, D):
    """Arguments as in `scmamba_scvi.ops.ssd`; the result is ``(n, c, h, p)`` in the dtype of ``x``."""
    n, c, h, p = x.shape
    acc = torch.promote_types(x.dtype, torch.float32)
    xf, dtf, Bf, Cf = (t.to(acc) for t in (x, dt, B, C))
    decay = torch.exp(dtf * A.to(acc))  # (n, c, h)
    state = xf.new_zeros(n, h, p, B.shape[-1])
    outputs = []
    for t in range(c):
        entering = torch.einsum("nh,nhp,ns->nhps", dtf[:, t], xf[:, t], Bf[:, t])
        state = decay[:, t, :, None, None] * state + entering
        outputs.append(torch.einsum("nhps,ns->nhp", state, Cf[:, t]))
    y = torch.stack(outputs, 1) + D.to(acc)[:, None] * xf
    return y.to(x.dtype)
