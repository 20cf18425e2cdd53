"""What each implementation of the scan costs in time and memory on this machine.

    python benchmarks/scan.py           # on the GPU if there is one, in bfloat16; otherwise on the CPU, in float32
    python benchmarks/scan.py --sweep   # on a GPU: the kernels with other sizes, beside those that they have
    python benchmarks/scan.py --tiny    # that the script runs, with or without --sweep; writes nothing
    python benchmarks/scan.py --page    # measure nothing, only write docs/performance.md from the results

Inputs are random, in the shapes of the presets and of the longest sequence that was measured; every row is a forward
pass, or a forward and a backward pass, through the scan alone. Results go to benchmarks/results/scan.json, after each row, and
from there into docs/performance.md. The sweep is kept beside them and is on no page.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
from functools import partial
from unittest import mock

import torch
from harness import command
from harness.files import write_json
from harness.paths import RESULTS
from harness.performance_page import machine, write_page
from harness.process import MB

from scmamba_scvi.ops.backend import ssd
from scmamba_scvi.ops.mamba_ssm import load_mamba_ssm

#: Name -> tokens, heads, dimensions of a head, state dimensions; and cells on a GPU and on a CPU.
SHAPES = {
    "small": ((24, 1, 64, 32), 4096, 128),
    "base": ((256, 8, 64, 64), 512, 4),
    "paper, 419 patches": ((419, 8, 128, 128), 256, 2),
    "paper, 4,510 patches": ((4510, 8, 128, 128), 32, 1),
}
TINY = {"tiny": ((24, 1, 32, 16), 2, 2)}
#: Shapes of the sweep, one of each width of a head.
SWEPT = ("paper, 419 patches", "base")
#: What is changed in the sizes that the kernels are compiled for: channels of a program, where they are fewer than now, its
#: warps, and chunks under way. The first changes nothing.
FORWARD = (
    {}, {"num_stages": 2}, {"num_warps": 4}, {"num_warps": 4, "num_stages": 2}, {"P": 64}, {"P": 64, "num_warps": 4},
    {"P": 64, "num_warps": 4, "num_stages": 2}, {"P": 32, "num_warps": 4},
)  # fmt: skip
BACKWARD = ({}, {"num_stages": 1}, {"num_stages": 3}, {"num_warps": 8}, {"num_warps": 8, "num_stages": 3}, {"P": 32})


def make_inputs(shape, n, device, dtype):
    c, h, p, s = shape
    g = torch.Generator(device).manual_seed(0)
    normal = lambda *size: torch.randn(size, generator=g, device=device).to(dtype)
    dt, A = torch.rand(n, c, h, generator=g, device=device) / 10, -1 - torch.rand(h, generator=g, device=device)
    inputs = [normal(n, c, h, p), dt, A, normal(n, c, s), normal(n, c, s), torch.ones(h, device=device)]
    return [t.requires_grad_() for t in inputs], normal(n, c, h, p)


def median_ms(step, device, rounds):
    seconds = []
    for i in range(rounds + 2):
        synchronize(device)
        begun = time.perf_counter()
        step()
        synchronize(device)
        if i > 1:
            seconds.append(time.perf_counter() - begun)
    return round(statistics.median(seconds) * 1e3, 3)


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def measure_one(name, inputs, weights, device, rounds):
    """Milliseconds of one implementation, and the memory that it adds on a GPU."""

    def forward():
        with torch.no_grad():
            ssd(*inputs, backend=name)

    def training():
        torch.autograd.grad(ssd(*inputs, backend=name), inputs, weights)

    row = {"forward_ms": median_ms(forward, device, rounds)}
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    row["training_ms"] = median_ms(training, device, rounds)
    if device == "cuda":
        row["peak_mb"] = round((torch.cuda.max_memory_allocated() - before) / MB)
    return row


def setting(tiny: bool):
    """Device, dtype, and shapes with their number of cells there."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    place = 1 if device == "cuda" else 2
    return device, dtype, {name: (one[0], one[place]) for name, one in (TINY if tiny else SHAPES).items()}


def measure(rounds: int, tiny: bool) -> None:
    device, dtype, shapes = setting(tiny)
    backends = ["torch", "triton"] if device == "cuda" else ["torch"]
    if device == "cuda" and load_mamba_ssm()[0]:
        backends.append("mamba_ssm")
    rows = []
    for name, (shape, n) in shapes.items():
        inputs, weights = make_inputs(shape, n, device, dtype)
        for backend in backends:
            cost = measure_one(backend, inputs, weights, device, rounds)
            rows.append({"shape": name, "cells": n, "backend": backend, **cost})
            print(rows[-1], flush=True)
            if not tiny:
                _keep({"device": device, "dtype": str(dtype).removeprefix("torch."), **machine(), "rows": rows})


def sweep(rounds: int, tiny: bool) -> None:
    """The kernels forward and backward, with each change of their sizes."""
    device, dtype, shapes = setting(tiny)
    if device == "cpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")  # before kernels are imported
    from scmamba_scvi.ops import triton_ssd

    rows = []
    for name in TINY if tiny else SWEPT:
        shape, n = shapes[name]
        inputs, dy = make_inputs(shape, n, device, dtype)
        inputs = [t.detach() for t in inputs]
        into = [torch.empty_like(inputs[i]) for i in (0, 3, 4)]  # of x, B and C

        def call(backward, dy=dy, inputs=inputs, into=into):
            return [*triton_ssd.scan_gradients(dy, *inputs, into), *into] if backward else [triton_ssd.scan(*inputs)]

        for backward, changes in enumerate((FORWARD, BACKWARD)):
            now = triton_ssd.tile_sizes(inputs[0], inputs[3], backward=bool(backward))
            changes = [change for change in changes if change.get("P", 0) < now["P"]]
            for found in _with_changes(changes, partial(call, backward), device, rounds):
                rows.append({"shape": name, "cells": n, "what": "backward" if backward else "forward", **found})
                print(rows[-1], flush=True)
                if not tiny:
                    _keep({"sweep": {**machine(), "rows": rows}})


def _with_changes(changes, call, device, rounds):
    """Per change, what it is, milliseconds, and how far results are from those of the first; or why it cannot be."""
    from scmamba_scvi.ops import triton_ssd
    from scmamba_scvi.ops.launch import compiling

    chosen, expected = triton_ssd.tile_sizes, None

    def changed(change):
        sizes = lambda x, B, *, backward: {**chosen(x, B, backward=backward), **change}
        return mock.patch.object(triton_ssd, "tile_sizes", sizes)

    if device == "cuda":  # all side by side first; what cannot be compiled is told of when it is to run
        with contextlib.suppress(Exception), compiling():
            for change in changes:
                with changed(change):
                    call()
    for change in changes:
        try:
            with changed(change):
                found = [t.float().clone() for t in call()]
                expected = expected or found
                row = {"ms": median_ms(call, device, rounds), "off_by": _difference(found, expected)}
        except Exception as error:  # noqa: BLE001 - a change that does not fit the GPU
            row = {"failed": f"{type(error).__name__}: {error}"[:120]}
        yield {"changed": change, **row}


def _difference(found, expected) -> float:
    """Largest relative difference of one of the results."""
    return float(f"{max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)):.1e}")


def _keep(found: dict[str, object]) -> None:
    """Write the results, with those of the file that are of something else."""
    path = RESULTS / "scan.json"
    before = json.loads(path.read_text()) if path.exists() else {**machine(), "device": "", "dtype": "", "rows": []}
    write_json(path, {**before, **found})


def main() -> None:
    parser = command.parser(__doc__, page="docs/performance.md")
    parser.add_argument("--rounds", type=int, default=9, help="timed repetitions, of which the median is taken")
    parser.add_argument("--sweep", action="store_true", help="time the kernels with other sizes instead")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal with tiny sizes, nothing is kept")
    arguments = parser.parse_args()
    if not arguments.page:
        (sweep if arguments.sweep else measure)(arguments.rounds, arguments.tiny)
    if not arguments.tiny:
        write_page()


if __name__ == "__main__":
    main()
