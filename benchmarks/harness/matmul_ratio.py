"""How much of a training step its matrix products would take alone.

`measure` runs a step once under a recorder that sees every matrix product, those of the backward pass included, then
times the step and, alternating with it, exactly those products on random operands of the same shapes, strides and types.
The ratio of the two medians says what everything that is not a matrix product costs. Both come from one run on one machine,
so the ratio varies less than either time.

The replay is strict: addends of ``addmm`` and ``baddbmm`` are left out, and operands of equal description share their
memory, so that the products find them in cache more often than they do in the step.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
#: Operator -> positions of its two factors.
DENSE = {
    aten.mm.default: (0, 1), aten.mm.out: (0, 1), aten.bmm.default: (0, 1), aten.bmm.out: (0, 1),
    aten.addmm.default: (1, 2), aten.addmm.out: (1, 2), aten.addmm_.default: (1, 2),
    aten.baddbmm.default: (1, 2), aten.baddbmm.out: (1, 2), aten.baddbmm_.default: (1, 2),
    aten.mv.default: (0, 1), aten.addmv.default: (1, 2), aten.mv.out: (0, 1),
}  # fmt: skip
#: Bags with weights per sample are products of a sparse and a dense matrix; replayed with the arguments they had.
BAGS = (aten._embedding_bag.default, aten._embedding_bag_forward_only.default)


@dataclasses.dataclass(frozen=True)
class Operand:
    """What decides how fast a factor can be multiplied."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, t: Tensor) -> Operand:
        return cls(tuple(t.shape), tuple(t.stride()), t.dtype, t.device)

    def random(self) -> Tensor:
        # expanded axes (stride 0) are products as well, of fewer numbers
        size = 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        return torch.randn(size, device=self.device).to(self.dtype).as_strided(self.shape, self.stride)


@dataclasses.dataclass(frozen=True)
class Product:
    """One recorded product: two dense factors, or an operator with the arguments it had."""

    factors: tuple[Operand, ...] = ()
    operator: Any = None
    arguments: tuple[Any, ...] = ()


class Recorder(TorchDispatchMode):
    """Collects every matrix product that runs while it is active, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.is_inference_mode_enabled():  # there, layers such as linear arrive before they are split into products
            with self:
                result = func.decompose(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        tensors = [a for a in args if isinstance(a, Tensor)]
        if func in DENSE and all(t.layout is torch.strided for t in tensors):
            self.products.append(Product(tuple(Operand.of(args[i]) for i in DENSE[func])))
        elif func in BAGS or func in DENSE or "sparse_mm" in str(func):
            arguments = tuple(a.detach() if isinstance(a, Tensor) else a for a in args)
            self.products.append(Product(operator=func, arguments=arguments))
        return func(*args, **(kwargs or {}))


@dataclasses.dataclass(frozen=True)
class MatmulRatio:
    """Medians over the rounds."""

    step_s: float
    matmul_s: float

    @property
    def ratio(self) -> float:
        return self.step_s / self.matmul_s


def record_products(step: Callable[[], Any]) -> list[Product]:
    """Every matrix product of ``step()``, forward and backward, in order."""
    with Recorder() as recorder:
        step()
    return recorder.products


def measure(step: Callable[[], Any], *, rounds: int = 7, warmup: int = 2) -> MatmulRatio:
    """Time ``step`` and its matrix products alone, alternating.

    Parameters
    ----------
    step
        One training step without arguments: forward, backward, and whatever else belongs to it.
    rounds, warmup
        Timed and untimed repetitions.
    """
    for _ in range(warmup):
        step()
    operands: dict[Operand, Tensor] = {}
    calls = [_replayed(product, operands) for product in record_products(step)]
    steps, alone = [], []
    for i in range(rounds + 1):
        step_s = _timed(step)
        with torch.no_grad():
            alone_s = sum(map(_timed, calls))
        if i:  # the first replay warms up
            steps.append(step_s), alone.append(alone_s)
    return MatmulRatio(statistics.median(steps), statistics.median(alone))


def _replayed(product: Product, operands: dict[Operand, Tensor]) -> Callable[[], Any]:
    if not product.factors:
        return lambda: product.operator(*product.arguments)
    for factor in product.factors:
        if factor not in operands:
            operands[factor] = factor.random()
    left, right = (operands[factor] for factor in product.factors)
    return lambda: torch.matmul(left, right)


def _timed(call: Callable[[], Any]) -> float:
    _synchronize()
    start = time.perf_counter()
    call()
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
