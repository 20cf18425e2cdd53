"""Which implementation of the scan runs: a table of names, and one rule for ``"auto"``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from .._compat import explained
from ..errors import ScmambaError, UnknownNameError
from .fused import check_kernels, kernels_for
from .mamba_ssm import ssd_mamba_ssm
from .ssd import ssd_chunked

#: States up to which ``"auto"`` means kernels: those of more were not tried, and need more shared memory than many GPUs have.
MAX_STATE: Final = 128


def ssd_triton(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The scan by the kernels of `scmamba_scvi.ops.triton_ssd`, which are imported and checked on first use."""
    without = "ssd_backend='triton' cannot be used, pass ssd_backend='torch' or 'auto'"
    with explained(without):
        from . import triton_ssd
    if x.device.type == "cuda" and x.dtype != torch.float64:  # which they refuse themselves
        reason = check_kernels(x.device, x.dtype)[1]
        if reason:
            raise ScmambaError(f"{without}: {reason}")
    return triton_ssd.ssd_triton(x, dt, A, B, C, D)


#: Implementations of the scan by name; one signature, results equal up to rounding.
BACKENDS: Final[dict[str, Callable[..., Tensor]]] = {
    "torch": ssd_chunked,
    "triton": ssd_triton,
    "mamba_ssm": ssd_mamba_ssm,
}


def ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, backend: str = "auto") -> Tensor:
    """The selective scan of Mamba2, see `scmamba_scvi.ops.ssd` for the equations.

    Parameters
    ----------
    x, dt, A, B, C, D
        ``(n, c, h, p)``, ``(n, c, h)``, ``(h,)``, ``(n, c, s)`` twice and ``(h,)``; their meanings stand there too.
    backend
        A name of `BACKENDS`, or ``"auto"``: the kernels of this package on CUDA, plain torch elsewhere, for float64, for
        more than `MAX_STATE` states, and where triton does not work.

    Returns
    -------
    ``(n, c, h, p)`` in the dtype of ``x``.

    Raises
    ------
    ScmambaError
        The back-end does not exist, or cannot run here, with the reason. If ``"auto"`` cannot use kernels on CUDA, one
        warning says why.

    Examples
    --------
    >>> x, dt = torch.randn(2, 10, 1, 8), torch.rand(2, 10, 1)
    >>> A, D = -torch.ones(1), torch.ones(1)
    >>> B, C = torch.randn(2, 2, 10, 4)
    >>> ssd(x, dt, A, B, C, D).shape  # (n, c, h, p)
    torch.Size([2, 10, 1, 8])
    """
    if check_backend(backend) == "auto":
        backend = choose_backend(x, B.shape[-1])
    return BACKENDS[backend](x, dt, A, B, C, D)


def check_backend(name: str) -> str:
    """``name`` itself if it is ``"auto"`` or in `BACKENDS`."""
    if name != "auto" and name not in BACKENDS:
        raise UnknownNameError("ssd_backend", name, ["auto", *BACKENDS])
    return name


def choose_backend(x: Tensor, s: int) -> str:
    """The name of `BACKENDS` that ``"auto"`` means for inputs ``x`` and ``s`` states: our kernels, if all work there."""
    return "torch" if s > MAX_STATE or kernels_for(x) is None else "triton"


def load_mixer(x: Tensor, backend: str, width: int, s: int) -> Callable[..., Tensor] | None:
    """`scmamba_scvi.ops.triton_mixer.mixer` for a projection ``x``, or `None` where not all of its kernels are used."""
    kernels = kernels_for(x)
    if kernels is None or backend not in ("auto", "triton") or width > kernels.MAX_WIDTH or s > MAX_STATE:
        return None
    from .triton_mixer import mixer

    return mixer


def has_bfloat16(device: torch.device) -> bool:
    """Whether a GPU computes in bfloat16. Older ones emulate it: slower than float32, and compilers of kernels refuse it."""
    if torch.version.hip or not torch.cuda.is_available():
        return bool(torch.version.hip)
    return torch.cuda.get_device_properties(device).major >= 8


def explain_backend(device: torch.device | str = "cpu", d_state: int = 0) -> str:
    """One sentence on what ``"auto"`` means on ``device``, and why; on CUDA in bfloat16, or float32 where a GPU lacks it.

    On CUDA kernels are compiled and compared with plain torch, as before their first use, which takes some seconds.

    Parameters
    ----------
    device
        As torch names it, such as ``"cuda:0"``.
    d_state
        States of the scan; 0 for any that kernels take.

    Returns
    -------
    Name of the back-end, and in brackets the reason.

    Examples
    --------
    >>> explain_backend("cpu")
    'torch (the chunked scan in plain torch; kernels need CUDA, this is cpu)'
    """
    device = torch.device(device)
    if device.type != "cuda":
        return f"torch (the chunked scan in plain torch; kernels need CUDA, this is {device.type})"
    if d_state > MAX_STATE:
        return f"torch (the chunked scan in plain torch; kernels take up to {MAX_STATE} states, these are {d_state})"
    kernels, reason = check_kernels(device, torch.bfloat16 if has_bfloat16(device) else torch.float32)
    if kernels is None:
        return f"torch (the chunked scan in plain torch; {reason})"
    return "triton (the kernels of this package)"
