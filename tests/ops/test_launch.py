"""Kernels are run, or only compiled: each kind of call once, in threads, with the fault of a compiler raised."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from scmamba_scvi.ops.launch import compiling, launch, n_blocks, power_of_two, running

X = torch.zeros(3, 4)


class Kernel:
    """Called as triton's are; knows what it was asked to run."""

    def __init__(self, fault=None):
        self.calls, self.fault = [], fault

    def __getitem__(self, grid):
        def run(*arguments, **options):
            if self.fault is not None:
                raise self.fault
            self.calls.append((grid, arguments, options))

        return run


def test_a_kernel_runs_with_its_arguments():
    kernel = Kernel()
    launch(kernel, (2, 3), X, X, 7, D=4)
    ((grid, arguments, options),) = kernel.calls
    assert grid == (2, 3)
    assert arguments[0] is X
    assert arguments[1] == 7
    assert options == {"D": 4}


def test_while_compiling_no_program_runs_and_each_kind_of_call_is_compiled_once():
    kernel, other = Kernel(), Kernel()
    with compiling():
        for tensor in (X, X + 1, X.double()):
            launch(kernel, (2, 3), X, tensor, D=4)
        launch(kernel, (5,), X, X, D=8)
        launch(other, (2,), X, X, D=4)
    assert sorted(grid for grid, _, _ in kernel.calls) == [(0,), (0, 0), (0, 0)]
    assert [grid for grid, _, _ in other.calls] == [(0,)]
    launch(kernel, (2,), X, X, D=4)
    assert kernel.calls[-1][0] == (2,)


def test_a_check_inside_runs_and_compiles_by_itself():
    kernel = Kernel()
    with compiling():
        with running():
            with compiling():
                launch(kernel, (1,), X)
            launch(kernel, (2,), X)
        launch(kernel, (3,), X)
    assert [grid for grid, _, _ in kernel.calls] == [(0,), (2,), (0,)]


def test_other_threads_run_their_kernels_while_one_compiles():
    kernel, here = Kernel(), Kernel()
    with compiling(), ThreadPoolExecutor(1) as other:
        other.submit(launch, kernel, (5,), X).result()
        launch(here, (5,), X)
    assert kernel.calls[0][0] == (5,)
    assert here.calls[0][0] == (0,)


def test_gradients_are_of_the_thread_that_compiles():
    threads = []
    x = torch.ones(3, requires_grad=True)
    x.register_hook(lambda grad: threads.append(threading.get_ident()))
    with compiling():
        (x * 2).sum().backward()
    assert threads == [threading.get_ident()]


def test_what_a_compiler_raises_is_raised_and_kernels_run_again():
    with pytest.raises(RuntimeError, match="ptxas"), compiling():
        launch(Kernel(), (1,), X, D=1)
        launch(Kernel(RuntimeError("ptxas")), (1,), X, D=1)
    kernel = Kernel()
    launch(kernel, (1,), X)
    assert kernel.calls[0][0] == (1,)


def test_sizes():
    assert [power_of_two(n) for n in (1, 2, 3, 4, 5, 64, 65)] == [1, 2, 4, 4, 8, 64, 128]
    assert [n_blocks(n, 4) for n in (1, 4, 5, 8)] == [1, 1, 2, 2]
