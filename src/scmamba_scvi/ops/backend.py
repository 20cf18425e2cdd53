"""Which implementation of the scan runs: a table of names, and one rule for ``"auto"``."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from ..errors import ScmambaError, UnknownNameError
from .fastest import Case, fastest
from .mamba_ssm import load_mamba_ssm, ssd_mamba_ssm
from .ssd import ssd_chunked, ssd_recurrent


def ssd_triton(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, chunk_size: int | None = None
) -> Tensor:
    """The scan by the kernels of `scmamba_scvi.ops.triton_ssd`, which are imported on first use."""
    kernel, reason = load_triton()
    if kernel is None:
        raise ScmambaError(f"ssd_backend='triton' cannot be used: {reason}. Pass ssd_backend='torch' or 'auto'.")
    return kernel(x, dt, A, B, C, D, chunk_size=chunk_size)


#: Implementations of the scan by name; one signature, results equal up to rounding.
BACKENDS: Final[dict[str, Callable[..., Tensor]]] = {
    "recurrent": ssd_recurrent,
    "torch": ssd_chunked,
    "triton": ssd_triton,
    "mamba_ssm": ssd_mamba_ssm,
}
#: The fastest back-end by case, as `fastest` measured it in this process.
_MEASURED: Final[dict[Case, str]] = {}


def ssd(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, chunk_size: int | None = None, backend: str = "auto"
) -> Tensor:  # fmt: skip
    """The selective scan of Mamba2, see `scmamba_scvi.ops.ssd` for the equations.

    Parameters
    ----------
    x, dt, A, B, C, D
        ``(n, c, h, p)``, ``(n, c, h)``, ``(h,)``, ``(n, c, s)`` twice and ``(h,)``; their meanings stand there too.
    chunk_size
        Tokens per chunk; `None` chooses for the back-end and the shapes. Changes speed, not results.
    backend
        A name of `BACKENDS`, or ``"auto"``: plain torch, except on CUDA, where the kernels that can be imported and
        plain torch are compared once per shape and the fastest of those that agree is kept.

    Returns
    -------
    ``(n, c, h, p)`` in the dtype of ``x``.

    Raises
    ------
    ScmambaError
        The back-end does not exist, or cannot run here, with the reason. If ``"auto"`` cannot use kernels that are
        installed, one warning says why.

    Examples
    --------
    >>> x, dt, A, D = torch.randn(2, 10, 1, 8), torch.rand(2, 10, 1), -torch.ones(1), torch.ones(1)
    >>> B, C = torch.randn(2, 2, 10, 4)
    >>> ssd(x, dt, A, B, C, D).shape  # (n, c, h, p)
    torch.Size([2, 10, 1, 8])
    """
    if check_backend(backend) == "auto":
        backend = choose_backend(x, B, training=any(t.requires_grad for t in (x, dt, A, B, C, D)))
    return BACKENDS[backend](x, dt, A, B, C, D, chunk_size=chunk_size)


def check_backend(name: str) -> str:
    """``name`` itself if it is ``"auto"`` or in `BACKENDS`."""
    if name != "auto" and name not in BACKENDS:
        raise UnknownNameError("ssd_backend", name, ["auto", *BACKENDS])
    return name


def choose_backend(x: Tensor, B: Tensor, *, training: bool = False) -> str:
    """The name of `BACKENDS` that ``"auto"`` means for inputs ``x`` ``(n, c, h, p)`` and ``B`` ``(n, c, s)``."""
    if x.device.type != "cuda":
        return "torch"
    names = candidates(x.dtype)
    if len(names) == 1 or torch.compiler.is_compiling() or torch.cuda.is_current_stream_capturing():
        return names[0]  # a graph has no place for a measurement
    return measured(names, Case.of(x, B, training and torch.is_grad_enabled()))


def measured(names: list[str], case: Case) -> str:
    """The fastest of ``names`` for ``case``, measured once; the first of them if memory does not suffice to measure."""
    if case not in _MEASURED:
        try:
            _MEASURED[case] = fastest({name: BACKENDS[name] for name in names}, "torch", case)
        except torch.OutOfMemoryError:
            _warn_once(f"Too little memory to compare implementations of the scan: ssd_backend={names[0]!r} is used.")
            _MEASURED[case] = names[0]
    return _MEASURED[case]


@torch.compiler.assume_constant_result
def candidates(dtype: torch.dtype) -> list[str]:
    """What ``"auto"`` chooses from on CUDA, in the order of preference where nothing can be measured."""
    names, reasons = _load_kernels()
    if not names:
        reason = "; ".join(reasons.values())
        _warn_once(f"The scan runs in plain torch, which is slow on a GPU: {reason}. Install triton.")
    for name, reason in reasons.items() if names else ():
        if importlib.util.find_spec(name) is not None:  # a package that nobody installed is not missed
            _warn_once(f"The scan runs without ssd_backend={name!r}: {reason}.")
    if dtype == torch.float64:  # which no kernel computes in
        names = []
    if dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest":
        names = [name for name in names if name != "mamba_ssm"]  # its kernels multiply in TF32 whatever torch is told
    return [*names, "torch"]


@functools.cache
def load_triton() -> tuple[Callable[..., Tensor] | None, str]:
    """The scan by our own kernels and an empty string, or `None` and the reason; looked for once per process."""
    try:
        from . import triton_ssd
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return None, f"triton cannot be imported ({type(error).__name__}: {error})"
    return triton_ssd.ssd_triton, ""


#: Loaders of kernels by the name of the back-end, which is also that of the package it needs.
_KERNELS: Final = {"triton": load_triton, "mamba_ssm": load_mamba_ssm}


def available_backends(device: torch.device | str = "cpu") -> list[str]:
    """Names of `BACKENDS` that can run on ``device``.

    Examples
    --------
    >>> available_backends("cpu")
    ['recurrent', 'torch']
    """
    kernels = _load_kernels()[0] if torch.device(device).type == "cuda" else []
    return [name for name in BACKENDS if name not in _KERNELS or name in kernels]


def explain_backend(device: torch.device | str = "cpu") -> str:
    """One sentence on what ``"auto"`` means on ``device``, and why.

    Examples
    --------
    >>> explain_backend("cpu")
    'torch (the chunked scan in plain torch; kernels need CUDA, this is cpu)'
    """
    device = torch.device(device)
    if device.type != "cuda":
        return f"torch (the chunked scan in plain torch; kernels need CUDA, this is {device.type})"
    names, reasons = _load_kernels()
    missing = "; ".join(reason.rstrip(".") for reason in reasons.values())
    if not names:
        return f"torch (the chunked scan in plain torch; {missing})"
    meaning = f"the fastest of {', '.join(names)} and torch, measured once per shape"
    return f"{meaning} ({missing})" if missing else meaning


def _load_kernels() -> tuple[list[str], dict[str, str]]:
    """Names of the kernels that can be imported, in the order of preference, and the reasons why the others cannot."""
    loaded = {name: load() for name, load in _KERNELS.items()}
    names = [name for name, (kernel, _) in loaded.items() if kernel is not None]
    return names, {name: reason for name, (kernel, reason) in loaded.items() if kernel is None}


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=2)
