"""The scan by the kernels of mamba-ssm, where that package is installed and named."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable

from torch import Tensor

from ..errors import ScmambaError


def ssd_mamba_ssm(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The scan by ``mamba_chunk_scan_combined``, which compiles for minutes at the first step."""
    kernel, reason = load_mamba_ssm()
    if kernel is None:
        raise ScmambaError(f"ssd_backend='mamba_ssm' cannot be used: {reason}. Pass ssd_backend='auto' or 'torch'.")
    return call_kernel(kernel, x, dt, A, B, C, D)


def call_kernel(
    kernel: Callable[..., Tensor], x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> Tensor:
    """``kernel`` with our arguments: its B and C have an axis of groups, here of length one."""
    B, C = (t.to(x.dtype).unsqueeze(2) for t in (B, C))  # (n, c, 1, s)
    # the longest is its default, for which it is tuned
    chunk_size = min(max(1 << (x.shape[1] - 1).bit_length(), 64), 256)
    return kernel(x, dt.float(), A.float(), B, C, chunk_size, D=D.float(), dt_softplus=False)


@functools.cache
def load_mamba_ssm() -> tuple[Callable[..., Tensor] | None, str]:
    """``mamba_chunk_scan_combined`` and an empty string, or `None` and the reason."""
    spec = importlib.util.find_spec("mamba_ssm")
    if spec is None:
        return None, "the package mamba-ssm is not installed"
    without_init = "mamba_ssm" not in sys.modules  # it imports language models and what they need
    if without_init:
        sys.modules["mamba_ssm"] = importlib.util.module_from_spec(spec)
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return None, f"mamba-ssm cannot be imported ({type(error).__name__}: {error})"
    finally:
        if without_init:
            del sys.modules["mamba_ssm"]  # a later import of the package runs its __init__ as usual
    return mamba_chunk_scan_combined, ""
