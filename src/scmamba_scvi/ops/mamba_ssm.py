"""mamba-ssm's Triton kernels of the scan, behind the signature of `scmamba_scvi.ops.ssd`."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor

from .._compat import import_without_package
from ..errors import ScmambaError

#: The longest chunk is mamba-ssm's default, for which its kernels are tuned; short sequences take shorter ones.
MAX_CHUNK, MIN_CHUNK = 256, 64


def ssd_mamba_ssm(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, chunk_size: int | None = None
) -> Tensor:
    """The scan by mamba-ssm's kernels; arguments and result as in `scmamba_scvi.ops.ssd`."""
    kernel, reason = load_mamba_ssm()
    if kernel is None:
        raise ScmambaError(f"ssd_backend='mamba_ssm' cannot be used: {reason}. Pass ssd_backend='torch' or 'auto'.")
    if x.device.type != "cuda":
        raise ScmambaError(
            f"ssd_backend='mamba_ssm' needs tensors on a CUDA device, got {x.device}. "
            "Pass ssd_backend='torch' or 'auto'."
        )
    return call_kernel(kernel, x, dt, A, B, C, D, chunk_size or choose_chunk_size(x.shape[1]))


def call_kernel(
    kernel: Callable[..., Tensor],
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    chunk_size: int,
) -> Tensor:
    """Our arguments in the layout of ``mamba_chunk_scan_combined``: B and C have an axis of groups, of length one."""
    B, C = (t.to(x.dtype).unsqueeze(2) for t in (B, C))  # (n, c, 1, s)
    return kernel(x, dt.float(), A.float(), B, C, chunk_size, D=D.float(), dt_softplus=False)


def choose_chunk_size(c: int) -> int:
    """Smallest power of two that holds ``c`` tokens, within what the kernels are tuned for."""
    return min(max(1 << (c - 1).bit_length(), MIN_CHUNK), MAX_CHUNK)


@functools.cache
def load_mamba_ssm() -> tuple[Callable[..., Tensor] | None, str]:
    """mamba-ssm's kernel and an empty string, or `None` and the reason; looked for once per process."""
    try:
        module = import_without_package("mamba_ssm.ops.triton.ssd_combined")
        return module.mamba_chunk_scan_combined, ""
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return None, f"mamba-ssm cannot be imported ({type(error).__name__}: {error})"
