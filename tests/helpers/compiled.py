"""Kernels of triton compiled as launches ask for them, for GPUs that are not there.

What triton knows of the arguments decides what it builds: which pointers and strides are divisible by 16, which are 1.
So the functions that launch kernels are called, on tensors without memory, and each launch is compiled instead. This takes
a process of its own, without triton's interpreter.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

#: Bytes of shared memory that a program may have, by compute capability: T4, A100, RTX 4090, H100, B200.
SHARED = {75: 64 * 1024, 80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}

#: Of those that compute in bfloat16.
WITH_BFLOAT16 = [capability for capability in SHARED if capability >= 80]


class Built(NamedTuple):
    """A kernel, and what its programs take: bytes of shared memory, and of registers spilled per thread."""

    kernel: str
    shared: int
    stack: int
    is_wide: bool  # uses the wide products of capability 9
    n_launches: int  # with these arguments or others for which it need not be compiled again


def compiled(capability: int, calls: str) -> list[Built]:
    """What the statements ``calls`` launch: they know ``torch``, the kernels as ``scan`` and ``layers``, and `empty`."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, __file__, str(capability), calls]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr[-3000:]
    return [Built(*built) for built in json.loads(child.stdout.splitlines()[-1])]


def empty(*shape: int, dtype):
    """A tensor without memory, whose address is divisible by 16 as those on a GPU are."""
    import torch

    return torch.empty(shape, dtype=dtype, device="meta")


def _main(capability: int, calls: str) -> None:
    import torch
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    from scmamba_scvi.ops import triton_fused, triton_sizes, triton_ssd

    class Driver:
        """Answers what triton asks of a GPU before a launch."""

        get_current_target = staticmethod(lambda: GPUTarget("cuda", capability, 32))
        get_current_device = staticmethod(lambda: 0)
        get_current_stream = staticmethod(lambda device=0: 0)

    driver.set_active(Driver())
    found: dict[int, list] = {}  # by kernel as compiled, of which triton keeps one

    def launch(kernel, grid, x, *arguments, **options):
        built = kernel.warmup(*arguments, grid=grid, **options)
        found.setdefault(id(built), [kernel, built, 0])[-1] += 1

    triton_ssd.launch = triton_fused.launch = launch
    triton_sizes.capability = lambda device: capability // 10
    exec(calls, {"torch": torch, "empty": empty, "scan": triton_ssd, "layers": triton_fused})
    rows = [
        (kernel.__name__, built.metadata.shared, _stack(built.asm["cubin"]), "wgmma" in built.asm["ptx"], n)
        for kernel, built, n in found.values()
    ]
    print(json.dumps(rows))


def _stack(cubin: bytes) -> int:
    import triton

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        program = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        text = subprocess.run([program, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", text)[1])


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
