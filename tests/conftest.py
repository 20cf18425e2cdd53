from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

# no test opens a window, whatever the machine; set before anything imports matplotlib
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

if not torch.cuda.is_available():
    # run kernels by triton's interpreter; triton reads this when kernels are first imported
    os.environ.setdefault("TRITON_INTERPRET", "1")


#: What the machine or OMP_NUM_THREADS says, before any test has run.
N_THREADS = torch.get_num_threads()


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(autouse=True)
def _own_settings():
    """Settings of scvi-tools that a test, or a script it runs, changes do not last: the order of tests must not matter."""
    before = sys.modules["scvi"].settings.verbosity if "scvi" in sys.modules else logging.INFO
    yield
    if "scvi" in sys.modules:
        sys.modules["scvi"].settings.seed = None
        sys.modules["scvi"].settings.verbosity = before


@pytest.fixture(autouse=True)
def _own_threads():
    """Every test has the number of threads of the run: scanpy's neighbours leave torch with one for every core."""
    torch.set_num_threads(N_THREADS)
    yield
    torch.set_num_threads(N_THREADS)


@pytest.fixture
def quick():
    """Arguments of a short training."""
    return {"max_epochs": 2, "enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture
def mdata():
    """200 cells with structure, fresh for every test: tests may change it."""
    from scmamba_scvi.data import simulate_multiome

    return simulate_multiome(n_cells=200, n_genes=150, n_peaks=400, n_cell_types=3, seed=1)


@pytest.fixture(scope="session")
def real_data():
    """Folder of real data; without one, the test is skipped."""
    folder = Path(os.environ.get("SCMAMBA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there (set SCMAMBA_DATA)")
    return folder
