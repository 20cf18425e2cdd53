"""Launching kernels of triton, or only compiling them, side by side, before a training needs them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

#: ``launch`` of this thread, if it is within `compiling`: other threads may run kernels meanwhile.
_of_thread = threading.local()


def n_blocks(length: int, of: int) -> int:
    """Blocks that cover a length. Triton's own function takes several microseconds, in which a GPU is done with a kernel."""
    return -(-length // of)


def power_of_two(length: int) -> int:
    """The power of two that is not smaller."""
    return 1 << (length - 1).bit_length()


def launch(kernel: Any, grid: tuple[int, ...], x: Tensor, *arguments: Any, **options: Any) -> None:
    """Run ``kernel[grid](*arguments, **options)`` on the device of ``x``; within `compiling`, only compile it."""
    getattr(_of_thread, "launch", _launch)(kernel, grid, x, arguments, options)


def _launch(kernel: Any, grid: tuple[int, ...], x: Tensor, arguments: tuple, options: dict[str, Any]) -> None:
    with torch.cuda.device(x.get_device()):
        kernel[grid](*arguments, **options)


@contextmanager
def compiling() -> Iterator[None]:
    """Within the block kernels are compiled and not run: what they would write stays as it was allocated.

    One after the other, the kernels of a network take a compiler up to 15 seconds, of which it uses one core.
    """
    begun: dict[Any, Future] = {}

    def compile_once(kernel: Any, grid: tuple[int, ...], x: Tensor, arguments: tuple, options: dict[str, Any]) -> None:
        kind = kernel, *(a.dtype if isinstance(a, Tensor) else a for a in arguments), *options.items()
        if kind not in begun:
            # triton compiles what it is to launch, even if no program is to run
            begun[kind] = threads.submit(_launch, kernel, (0,) * len(grid), x, arguments, options)
            if len(begun) == 1:  # alone: it sets triton up
                begun[kind].result()

    # in threads, as most of the time goes to compilers outside of Python
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:
        # else gradients would be computed in a thread of autograd's own, which would run the kernels
        with _launching_by(compile_once), torch.autograd.set_multithreading_enabled(False):
            yield
    for compiled in begun.values():
        compiled.result()  # raises what the compiler raised


def running() -> AbstractContextManager[None]:
    """Within the block kernels are run, also inside of `compiling`."""
    return _launching_by(_launch)


@contextmanager
def _launching_by(launch: Callable[..., None]) -> Iterator[None]:
    before = getattr(_of_thread, "launch", _launch)
    _of_thread.launch = launch
    try:
        yield
    finally:
        _of_thread.launch = before
