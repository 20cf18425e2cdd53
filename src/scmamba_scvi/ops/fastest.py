"""Which of several implementations of the scan is fastest for a shape, and whether its numbers are right."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor

from .isolated_autograd import isolated_autograd

#: Cells of the example: enough to occupy a GPU, few enough to fit beside a network that is being trained.
N_CELLS: Final = 32
#: Timed repetitions, and untimed ones before them, in which kernels are compiled.
ROUNDS, WARMUP = 5, 2
#: Largest relative difference to the reference, in the norm of a whole tensor. Rounding gives a tenth of it; a kernel
#: that was miscompiled or mishandles a shape gives far more.
TOLERANCE: Final = {torch.float32: 0.02, torch.bfloat16: 0.1, torch.float16: 0.1}


class Case(NamedTuple):
    """What decides which implementation is fastest; why the number of cells is not part of it, see `fastest`."""

    device: torch.device
    dtype: torch.dtype
    c: int
    h: int
    p: int
    s: int
    training: bool

    @classmethod
    def of(cls, x: Tensor, B: Tensor, training: bool) -> Case:
        """The case of inputs ``x`` ``(n, c, h, p)`` and ``B`` ``(n, c, s)``."""
        c, h, p = x.shape[1:]
        return cls(x.device, x.dtype, c, h, p, B.shape[-1], training)


def fastest(functions: Mapping[str, Callable[..., Tensor]], reference: str, case: Case) -> str:
    """Name of the function that takes the least time for ``case``, among those that agree with the reference.

    The number of cells is always `N_CELLS`. If it were that of the minibatch, the choice, and with it the rounding of a
    cell's embedding, could depend on the other cells in the minibatch. ``functions`` have the arguments of
    `scmamba_scvi.ops.ssd`; the one named ``reference`` is chosen if no other works. For each function that fails or differs a
    warning says why.
    """
    with isolated_autograd(case.device, grad=case.training):  # this runs in the middle of a forward pass
        inputs, weights = _example(case)
        expected = _results(functions[reference], inputs, weights)
        seconds = {reference: _time(functions[reference], inputs, weights)}
        for name, function in functions.items():
            if name == reference:
                continue
            fault = _fault(function, inputs, weights, expected)
            if fault:
                what = f"{case.c} tokens, {case.h} heads of {case.p}, {case.s} state dimensions in {case.dtype}"
                warnings.warn(f"ssd_backend={name!r} is not used for {what} on {case.device}: {fault}", stacklevel=2)
            else:
                seconds[name] = _time(function, inputs, weights)
    return min(seconds, key=seconds.__getitem__)


def _fault(function: Callable, inputs: list[Tensor], weights: Tensor, expected: list[Tensor]) -> str:
    """Why the function cannot be used, empty if it can."""
    try:
        found = _results(function, inputs, weights)
    except Exception as error:  # noqa: BLE001  a compiler, its driver and its toolchain fail in their own ways
        return f"it fails ({type(error).__name__}: {error})."
    for name, a, b in zip(("values", "x", "dt", "A", "B", "C", "D"), found, expected, strict=False):
        difference = float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30))
        if not difference <= TOLERANCE.get(a.dtype, TOLERANCE[torch.float32]):  # NaN is no agreement
            what = name if name == "values" else f"gradients of {name}"
            return f"its {what} differ from the reference by {difference:.2g} of their norm."
    return ""


def _results(function: Callable, inputs: list[Tensor], weights: Tensor) -> list[Tensor]:
    y = function(*inputs)
    return [y.detach(), *(torch.autograd.grad(y, inputs, weights) if y.requires_grad else ())]


def _time(function: Callable, inputs: list[Tensor], weights: Tensor) -> float:
    for rounds in (WARMUP, ROUNDS):
        begun = time.perf_counter()
        for _ in range(rounds):
            _results(function, inputs, weights)
        if weights.device.type == "cuda":
            torch.cuda.synchronize(weights.device)
    return time.perf_counter() - begun


def _example(case: Case) -> tuple[list[Tensor], Tensor]:
    """Inputs in the ranges that a mixer starts from, and a gradient of the output; the global generator is not used."""
    device, dtype, c, h, p, s, training = case
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, device=device)

    inputs = [
        normal(N_CELLS, c, h, p), uniform(0.001, 0.1, N_CELLS, c, h), -uniform(1, 16, h), normal(N_CELLS, c, s),
        normal(N_CELLS, c, s), uniform(0.5, 1.5, h),
    ]  # fmt: skip
    return [t.requires_grad_(training) for t in inputs], normal(N_CELLS, c, h, p)
