"""Launching kernels of triton, or only compiling them, side by side, before a training needs them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

#: ``compiler`` of this thread, if it is within `compiling`: other threads may run kernels meanwhile.
_of_thread = threading.local()


class _Compiler:
    """Compiles each kind of call once, in threads: most of the time goes to compilers outside of Python."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self.begun: dict[Any, Future] = {}

    def __call__(self, kernel: Any, n_axes: int, x: Tensor, arguments: tuple, options: dict[str, Any]) -> None:
        kind = tuple(a.dtype if isinstance(a, Tensor) else a for a in arguments), tuple(options.items())
        if (kernel, *kind) in self.begun:
            return
        # triton compiles what it is to launch, even if no program is to run
        self.begun[kernel, *kind] = self._threads.submit(_launch, kernel, (0,) * n_axes, x, arguments, options)
        if len(self.begun) == 1:  # alone: it sets triton up
            self.begun[kernel, *kind].result()


def n_blocks(length: int, of: int) -> int:
    """Blocks that cover a length. Triton's own function takes several microseconds, in which a GPU is done with a kernel."""
    return -(-length // of)


def power_of_two(length: int) -> int:
    """The power of two that is not smaller."""
    return 1 << (length - 1).bit_length()


def launch(kernel: Any, grid: tuple[int, ...], x: Tensor, *arguments: Any, **options: Any) -> None:
    """Run ``kernel[grid](*arguments, **options)`` on the device of ``x``; within `compiling`, only compile it."""
    compiler = getattr(_of_thread, "compiler", None)
    if compiler is None:
        _launch(kernel, grid, x, arguments, options)
    else:
        compiler(kernel, len(grid), x, arguments, options)


def _launch(kernel: Any, grid: tuple[int, ...], x: Tensor, arguments: tuple, options: dict[str, Any]) -> None:
    with torch.cuda.device(x.get_device()):
        kernel[grid](*arguments, **options)


@contextmanager
def compiling() -> Iterator[None]:
    """Within the block kernels are compiled and not run: what they would write stays as it was allocated.

    One after the other, the kernels of a network take a compiler up to 15 seconds, of which it uses one core.
    """
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:
        compiler = _Compiler(threads)
        # else gradients would be computed in a thread of autograd's own, which would run the kernels
        with _launching_by(compiler), torch.autograd.set_multithreading_enabled(False):
            yield
    for compiled in compiler.begun.values():
        compiled.result()  # raises what the compiler raised


def running() -> AbstractContextManager[None]:
    """Within the block kernels are run, also inside of `compiling`."""
    return _launching_by(None)


@contextmanager
def _launching_by(compiler: _Compiler | None) -> Iterator[None]:
    before = getattr(_of_thread, "compiler", None)
    _of_thread.compiler = compiler
    try:
        yield
    finally:
        _of_thread.compiler = before
