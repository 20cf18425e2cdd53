"""Work in a fork of the test process, which may be killed."""

from __future__ import annotations

import os

import pytest
import torch

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def in_child(work):
    """Run ``work`` in a fork of this process, without its output, and return the exit status as `os.waitpid` does."""
    child = os.fork()
    if child == 0:
        try:
            # threads do not survive a fork, but OpenMP would wait for those it had
            torch.set_num_threads(1)
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
                work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]
