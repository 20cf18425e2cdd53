"""What each implementation of the scan costs in time and memory on this machine.

    python benchmarks/scan.py              # on the GPU if there is one, in bfloat16; otherwise on the CPU, in float32

Inputs are random, in the shapes of the presets and of the longest sequence that was measured; every row is a forward
pass, or a forward and a backward pass, through the scan alone. Results go to benchmarks/results/scan.json and from there
into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from harness.paths import RESULTS
from harness.performance_page import machine, write_page
from harness.process import MB

from scmamba_scvi.ops.backend import BACKENDS, available_backends

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


def measure(name, inputs, weights, device, rounds):
    def forward():
        with torch.no_grad():
            BACKENDS[name](*inputs)

    def training():
        torch.autograd.grad(BACKENDS[name](*inputs), inputs, weights)

    row = {"forward_ms": median_ms(forward, device, rounds)}
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    row["training_ms"] = median_ms(training, device, rounds)
    if device == "cuda":
        row["peak_mb"] = round((torch.cuda.max_memory_allocated() - before) / MB)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    found = {"device": device, "dtype": str(dtype).removeprefix("torch."), **machine(), "rows": []}
    for name, (shape, on_gpu, on_cpu) in SHAPES.items():
        n = on_gpu if device == "cuda" else on_cpu
        inputs, weights = make_inputs(shape, n, device, dtype)
        for backend in available_backends(device):
            if backend == "recurrent":
                continue  # for tests
            row = {"shape": name, "cells": n, "backend": backend, **measure(backend, inputs, weights, device, rounds)}
            print(row)
            found["rows"].append(row)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scan.json").write_text(json.dumps(found, indent=1) + "\n")
    write_page()


if __name__ == "__main__":
    main()
