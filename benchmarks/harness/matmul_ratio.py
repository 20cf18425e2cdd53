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
from collections import Counter
from collections.abc import Callable, Sequence
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

    def __str__(self) -> str:
        order = "" if self.stride[-1] == 1 else "'"
        return f"{tuple(self.shape)}{order}"


@dataclasses.dataclass(frozen=True)
class Product:
    """One recorded product: two dense factors, or (``arguments``) an operator with the arguments it had."""

    name: str
    factors: tuple[Operand, ...] = ()
    arguments: tuple[Any, ...] = dataclasses.field(default=(), compare=False)
    operator: Any = dataclasses.field(default=None, compare=False)
    key: str = ""

    @property
    def flops(self) -> int:
        if not self.factors:
            return 0
        left, right = self.factors
        columns = right.shape[-1] if len(right.shape) > 1 else 1
        return 2 * torch.Size(left.shape).numel() * columns

    def __str__(self) -> str:
        return f"{self.name} {' x '.join(map(str, self.factors)) or self.key}"


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
            factors = tuple(Operand.of(args[i]) for i in DENSE[func])
            self.products.append(Product("bmm" if len(factors[0].shape) == 3 else "mm", factors))
        elif func in BAGS or (func in DENSE or "sparse_mm" in str(func)):
            key = " x ".join(str(tuple(t.shape)) for t in tensors)
            arguments = tuple(a.detach() if isinstance(a, Tensor) else a for a in args)
            self.products.append(Product(f"sparse {func.name().split('::')[1]}", (), arguments, func, key))
        return func(*args, **(kwargs or {}))


@dataclasses.dataclass(frozen=True)
class MatmulRatio:
    """Medians over the rounds."""

    step_s: float
    matmul_s: float
    table: list[tuple[str, int, float, float]]  # product, calls per step, ms of all calls, GFLOP/s

    @property
    def ratio(self) -> float:
        return self.step_s / self.matmul_s

    def __str__(self) -> str:
        step, alone = self.step_s * 1e3, self.matmul_s * 1e3
        head = f"step {step:.1f} ms, its products alone {alone:.1f} ms, ratio {self.ratio:.2f}"
        rows = [f"{ms:9.2f} ms {calls:6d} x {gflops:7.0f} GFLOP/s  {name}" for name, calls, ms, gflops in self.table]
        return "\n".join([head, *rows])


def record_products(step: Callable[[], Any]) -> list[Product]:
    """Every matrix product of ``step()``, forward and backward, in order."""
    with Recorder() as recorder:
        step()
    return recorder.products


def measure(
    step: Callable[[], Any],
    *,
    rounds: int = 7,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> MatmulRatio:
    """Time ``step`` and its matrix products alone, alternating.

    Parameters
    ----------
    step
        One training step without arguments: forward, backward, and whatever else belongs to it.
    rounds, warmup
        Timed and untimed repetitions.
    clock
        Seconds. On a machine that others use as well, `time.thread_time` with ``torch.set_num_threads(1)`` counts
        only what the step itself computes; threads that wait for one another make every other clock unfair to the
        many small operations.
    """
    for _ in range(warmup):
        step()
    products = record_products(step)
    operands: dict[Operand, Tensor] = {}
    calls = [_replayed(product, operands) for product in products]
    steps, alone, each = [], [], []
    for i in range(rounds + 1):
        step_s, per_call = _timed(step, clock), _replay(calls, clock)
        if i:  # the first replay warms up
            steps.append(step_s), alone.append(sum(per_call)), each.append(per_call)
    per_call = [statistics.median(times) for times in zip(*each, strict=True)]
    return MatmulRatio(statistics.median(steps), statistics.median(alone), _table(products, per_call))


def _replayed(product: Product, operands: dict[Operand, Tensor]) -> Callable[[], Any]:
    if not product.factors:
        return lambda: product.operator(*product.arguments)
    for factor in product.factors:
        if factor not in operands:
            operands[factor] = factor.random()
    left, right = (operands[factor] for factor in product.factors)
    return lambda: torch.matmul(left, right)


def _replay(calls: Sequence[Callable[[], Any]], clock: Callable[[], float]) -> list[float]:
    with torch.no_grad():
        return [_timed(call, clock) for call in calls]


def _timed(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    _synchronize()
    start = clock()
    call()
    _synchronize()
    return clock() - start


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _table(products: Sequence[Product], seconds: Sequence[float]) -> list[tuple[str, int, float, float]]:
    calls, total, flops = Counter(), Counter(), Counter()
    for product, s in zip(products, seconds, strict=True):
        calls[str(product)] += 1
        total[str(product)] += s
        flops[str(product)] += product.flops
    return [(name, calls[name], 1e3 * s, flops[name] / s / 1e9) for name, s in total.most_common()]
