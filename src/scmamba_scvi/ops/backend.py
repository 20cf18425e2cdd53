"""Which implementation of the scan runs: a table of names, and one rule for ``"auto"``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from ..errors import UnknownNameError
from .mamba_ssm import load_kernel, ssd_mamba_ssm
from .ssd import ssd_chunked, ssd_recurrent

#: Implementations of the scan by name; one signature, results equal to rounding.
BACKENDS: Final[dict[str, Callable[..., Tensor]]] = {
    "recurrent": ssd_recurrent,
    "torch": ssd_chunked,
    "mamba_ssm": ssd_mamba_ssm,
}


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    chunk_size: int | None = None,
    backend: str = "auto",
) -> Tensor:
    """The selective scan of Mamba2, see `scmamba_scvi.ops.ssd` for the equations.

    Parameters
    ----------
    x
        ``(n, c, h, p)``.
    dt
        ``(n, c, h)``, positive: softplus already applied.
    A
        ``(h,)``, negative.
    B, C
        ``(n, c, s)``.
    D
        ``(h,)``.
    chunk_size
        Tokens per chunk; `None` chooses for the back-end and the shapes. Changes speed, not results.
    backend
        A name of `BACKENDS`, or ``"auto"``.

    Returns
    -------
    ``(n, c, h, p)`` in the dtype of ``x``.

    Raises
    ------
    UnknownNameError
        For a back-end that does not exist.
    ScmambaError
        For a back-end that exists but cannot run here, with the reason.
    """
    return BACKENDS[resolve_backend(backend, x.device)](x, dt, A, B, C, D, chunk_size=chunk_size)


def resolve_backend(name: str, device: torch.device | str) -> str:
    """The name of `BACKENDS` that ``name``, which may be ``"auto"``, means on ``device``."""
    check_backend(name)
    if name == "auto":
        return "mamba_ssm" if torch.device(device).type == "cuda" and load_kernel()[0] is not None else "torch"
    return name


def check_backend(name: str) -> str:
    """``name`` itself if it is ``"auto"`` or in `BACKENDS`."""
    if name != "auto" and name not in BACKENDS:
        raise UnknownNameError("ssd_backend", name, ["auto", *BACKENDS])
    return name


def available_backends(device: torch.device | str = "cpu") -> list[str]:
    """Names of `BACKENDS` that can run on ``device``."""
    usable = torch.device(device).type == "cuda" and load_kernel()[0] is not None
    return [name for name in BACKENDS if name != "mamba_ssm" or usable]


def explain_backend(device: torch.device | str = "cpu") -> str:
    """One sentence on what ``"auto"`` means on ``device``, and why."""
    device = torch.device(device)
    if device.type != "cuda":
        return f"torch (the chunked scan in plain torch; mamba-ssm's kernels need CUDA, this is {device.type})"
    kernel, reason = load_kernel()
    if kernel is None:
        return f"torch (the chunked scan in plain torch; {reason.rstrip('.')})"
    return "mamba_ssm (its Triton kernels)"
