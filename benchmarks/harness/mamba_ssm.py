"""mamba-ssm's kernels of the scan as one more back-end of the package, to be timed beside its own."""

from __future__ import annotations

import importlib.util
import sys

from scmamba_scvi.ops.backend import BACKENDS


def register() -> bool:
    """Put them among the back-ends under the name ``"mamba_ssm"``; `False` where they cannot be imported."""
    spec = importlib.util.find_spec("mamba_ssm")
    if spec is None:
        return False
    # without its __init__, which imports language models and what they need
    sys.modules.setdefault("mamba_ssm", importlib.util.module_from_spec(spec))
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except (ImportError, OSError, RuntimeError, AttributeError):
        return False
    BACKENDS["mamba_ssm"] = in_our_layout(mamba_chunk_scan_combined)
    return True


def in_our_layout(kernel):
    """``mamba_chunk_scan_combined`` with our arguments: its B and C have an axis of groups, here of length one."""

    def scan(x, dt, A, B, C, D):
        B, C = (t.to(x.dtype).unsqueeze(2) for t in (B, C))  # (n, c, 1, s)
        # the longest is its default, for which it is tuned
        chunk_size = min(max(1 << (x.shape[1] - 1).bit_length(), 64), 256)
        return kernel(x, dt.float(), A.float(), B, C, chunk_size, D=D.float(), dt_softplus=False)

    return scan
