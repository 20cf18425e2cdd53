from __future__ import annotations

import os
import sys

# no test opens a window, whatever the machine; set before anything imports matplotlib
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

if not torch.cuda.is_available():
    # kernels are then run by triton's interpreter; read when they are first imported
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def _own_seed():
    """The seed that a test sets is its own; a test that sets none trains without one, in any order of tests."""
    yield
    if "scvi" in sys.modules:
        sys.modules["scvi"].settings.seed = None


#: What the machine or OMP_NUM_THREADS says, before any test has run.
N_THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def _own_threads():
    """Tests compute on the threads they were started with: scanpy's neighbours leave torch with one for every core."""
    torch.set_num_threads(N_THREADS)
    yield
    torch.set_num_threads(N_THREADS)
