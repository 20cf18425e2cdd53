"""What each implementation of the scan costs in time and memory on this machine.

    python benchmarks/scan.py           # on the GPU if there is one, in bfloat16; otherwise on the CPU, in float32
    python benchmarks/scan.py --page    # measure nothing, only write docs/performance.md from the results

Inputs are random, in the shapes of the presets and of the longest sequence that was measured; every row is a forward
pass, or a forward and a backward pass, through the scan alone. Results go to benchmarks/results/scan.json and from there
into docs/performance.md.
"""

from __future__ import annotations

import statistics
import time

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


def measure(rounds: int) -> dict[str, object]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    backends = ["torch", "triton"] if device == "cuda" else ["torch"]
    if device == "cuda" and load_mamba_ssm()[0]:
        backends.append("mamba_ssm")
    found = {"device": device, "dtype": str(dtype).removeprefix("torch."), **machine(), "rows": []}
    for name, (shape, on_gpu, on_cpu) in SHAPES.items():
        n = on_gpu if device == "cuda" else on_cpu
        inputs, weights = make_inputs(shape, n, device, dtype)
        for backend in backends:
            cost = measure_one(backend, inputs, weights, device, rounds)
            found["rows"].append({"shape": name, "cells": n, "backend": backend, **cost})
            print(found["rows"][-1], flush=True)
    return found


def main() -> None:
    parser = command.parser(__doc__, page="docs/performance.md")
    parser.add_argument("--rounds", type=int, default=9, help="timed repetitions, of which the median is taken")
    arguments = parser.parse_args()
    if not arguments.page:
        write_json(RESULTS / "scan.json", measure(arguments.rounds))
    write_page()


if __name__ == "__main__":
    main()
