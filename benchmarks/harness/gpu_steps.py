"""Whole training steps on a GPU, with each kernel of the package switched off in turn, and with the scan of mamba-ssm.

Networks, loss and optimizer are those of the presets; the input is random, transformed already, as sparse as counts are.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F

from scmamba_scvi import nn
from scmamba_scvi.config import ModelConfig, resolve_config
from scmamba_scvi.nn import block, mamba2
from scmamba_scvi.nn.mamba2 import Mamba2
from scmamba_scvi.ops import fused, plain_layers
from scmamba_scvi.ops.mamba_ssm import load_mamba_ssm

#: Cells of a minibatch.
N_CELLS = 512
#: Genes and peaks, and the fraction of them that a cell has.
FEATURES, DENSITY = {"rna": 29_095, "atac": 107_194}, 0.07
#: Kernels that are switched off, and the functions of `plain_layers` that then take their place.
LAYERS = {
    "add_norm": ("add_norm_values", "add_norm_gradients"), "gated_norm": ("gated_norm_values", "gated_norm_gradients"),
    "swiglu": ("swiglu_values", "swiglu_gradient"), "causal_conv_silu": ("conv_values", "conv_gradients"),
}  # fmt: skip
KERNELS = ("scan", *LAYERS, "joined_steps")
#: The scan, switched off for that of mamba-ssm, where it is installed.
MAMBA_SSM = "scan (mamba-ssm in its place)"
SCANS = {"scan": "torch", MAMBA_SSM: "mamba_ssm"}
#: What is switched off in the steps of each preset: networks of the size of `small` are launched as graphs.
SWITCHED_OFF = {"paper": KERNELS, "base": (), "small": ("graph",)}


@contextlib.contextmanager
def without(kernel: str | None, encoders: torch.nn.ModuleDict) -> Iterator[None]:
    """Within the block, plain torch in place of one of `KERNELS`, another scan, or launches one by one in place of a graph."""
    if kernel == "graph":
        graphs = [(encoder.network, encoder.network.graph) for encoder in encoders.values()]
        for network, _ in graphs:
            network.graph = None
        try:
            yield
        finally:
            for network, graph in graphs:
                network.graph = graph
        return
    mixers = [module for module in encoders.modules() if isinstance(module, Mamba2)]
    backend, chosen = mixers[0].ssd_backend, fused.layers_for
    joined = mamba2.load_mixer, block.gated_mlp
    if kernel not in (None, "add_norm", *SCANS):  # layer by layer, each with its own step of autograd
        mamba2.load_mixer = lambda *args: None
        block.gated_mlp = lambda x, inner, outer: F.linear(fused.swiglu(F.linear(x, inner)), outer)
    if kernel in SCANS:
        for mixer in mixers:
            mixer.ssd_backend = SCANS[kernel]
    elif kernel not in (None, "joined_steps"):

        def others(x, width=1):
            plain = {name: getattr(plain_layers, name) for name in LAYERS[kernel]}
            return types.SimpleNamespace(**{**vars(chosen(x, width)), **plain})

        fused.layers_for = others
    try:
        yield
    finally:
        fused.layers_for = chosen
        mamba2.load_mixer, block.gated_mlp = joined
        for mixer in mixers:
            mixer.ssd_backend = backend


def random_values(n_cells: int, n_features: int, device: str) -> torch.Tensor:
    values = torch.rand(n_cells, n_features, device=device)
    return torch.where(values < DENSITY, 0.5 + values, 0.0).to_sparse_csr()


def layout(config: ModelConfig, kind: str, f: int) -> tuple[torch.Tensor, int, int]:
    """Slots, patches and features per patch of `f` features in any order."""
    w = config.of_kind("patch_size", kind) or -(-f // config.max_patches)
    return torch.arange(f), -(-f // w), w


class Work:
    """A training step and the embedding of one minibatch."""

    def __init__(self, preset: str, n_cells: int, features: dict[str, int], device: str, **options: object) -> None:
        torch.manual_seed(0)
        self.device, self.config, self.n_cells = device, resolve_config(preset, **options), n_cells
        encoders = {kind: nn.Encoder(self.config, kind, *layout(self.config, kind, f)) for kind, f in features.items()}
        self.encoders = torch.nn.ModuleDict(encoders).to(device)
        if self.config.linear_branch:  # with a closed gate a network would learn nothing yet
            for encoder in encoders.values():
                torch.nn.init.constant_(encoder.gate, 0.1)
        self.temperature = torch.tensor(self.config.temperature, device=device)
        self.optimizer = torch.optim.AdamW(self.encoders.parameters(), lr=1e-4, fused=True)
        self.values = {kind: random_values(n_cells, f, device) for kind, f in features.items()}
        self.present = dict.fromkeys(features)  # as the loader says where every cell has every modality
        self._is_compiled = False

    def step(self) -> torch.Tensor:
        self.encoders.train()
        with torch.autocast(self.device, torch.bfloat16):
            if not self._is_compiled:  # as at the start of a training
                for encoder in self.encoders.values():
                    encoder.network.compile_kernels(self.n_cells)
                    encoder.network.record_graph(self.n_cells)
                self._is_compiled = True
            z = {kind: encoder(self.values[kind]) for kind, encoder in self.encoders.items()}
        loss = nn.multimodal_loss(
            z, self.present, self.temperature, contrastive_weight=self.config.contrastive_weight,
            cosine_weight=self.config.cosine_weight, own_negatives=self.config.negatives == "both",
        )["loss"]  # fmt: skip
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.encoders.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()

    def embed(self) -> None:
        self.encoders.eval()
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16):
            for kind, encoder in self.encoders.items():
                encoder(self.values[kind])

    def time(self, call: Callable[[], object], rounds: int = 5, warmup: int = 2) -> dict[str, float]:
        """Median milliseconds of `call`, seconds of the first call, and peak memory in GB."""
        cuda = self.device == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        begun = time.perf_counter()
        timed_ms(call, self.device)
        first = time.perf_counter() - begun
        ms = median_ms(call, self.device, rounds, warmup - 1)
        peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0
        return {"ms": round(ms, 2), "cells_per_s": round(self.n_cells / ms * 1e3), "peak_gb": round(peak, 2), "first_s": round(first, 1)}  # fmt: skip


def median_ms(call: Callable[[], object], device: str, rounds: int = 5, warmup: int = 2) -> float:
    """Median milliseconds of `call` after some calls that are not counted."""
    return statistics.median([timed_ms(call, device) for _ in range(warmup + rounds)][warmup:])


def timed_ms(call: Callable[[], object], device: str) -> float:
    """Milliseconds of one call, on a GPU by its own clock."""
    if device != "cuda":
        begun = time.perf_counter()
        call()
        return (time.perf_counter() - begun) * 1e3
    torch.cuda.synchronize()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def setting(tiny: bool) -> tuple[str, int, dict[str, int]]:
    """Device, cells and features, by their kind."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return device, *((8, {"rna": 600, "atac": 900}) if tiny else (N_CELLS, FEATURES))


def measure(*, tiny: bool = False, budget_s: float = 50.0, report: Callable[[dict], None] = print) -> None:
    """Rows of results, each handed to ``report`` as soon as it is known; what time does not suffice for is left out.

    Ends with code 1 if something failed, when all else is measured.
    """
    device, n_cells, features = setting(tiny)
    rounds = {"rounds": 1, "warmup": 1} if tiny else {}
    begun, has_failed = time.perf_counter(), False

    def add(**row: object) -> None:
        report({**row, "at_s": round(time.perf_counter() - begun, 1)})

    def attempt(work: Work, what: str, without_kernel: str | None = None, **more: int) -> None:
        nonlocal has_failed
        if time.perf_counter() - begun > budget_s:
            return
        try:
            with without(without_kernel, work.encoders):
                found = work.time(getattr(work, what), **{**rounds, **more})
            add(preset=preset, what=what, without=without_kernel, **found)
        except torch.OutOfMemoryError:
            add(preset=preset, what=what, without=without_kernel, note="out of memory")
        except Exception:  # noqa: BLE001 - one measurement's fault must not end the others
            traceback.print_exc()
            has_failed = True

    for preset in ("paper", "base", "small"):
        work = Work(preset, n_cells, features, device)
        attempt(work, "step")
        attempt(work, "embed")
        for kernel in SWITCHED_OFF[preset]:
            attempt(work, "step", kernel, **({} if tiny else {"rounds": 3, "warmup": 1}))
        del work
        if device == "cuda":
            torch.cuda.empty_cache()
    if device == "cuda" and load_mamba_ssm()[0]:  # last, since it compiles for minutes
        preset = "paper"
        attempt(Work(preset, n_cells, features, device), "step", MAMBA_SSM)
    if has_failed:
        sys.exit(1)


# -- what the time is spent on: printed, and not kept -----------------------------------------------------------------


def print_profile(*, tiny: bool = False) -> None:
    """Kernels of a step by their time, and the matrix products of `paper` by themselves; what fails ends nothing else."""
    device, n_cells, features = setting(tiny)
    for title, table in (
        ("A step of paper", lambda: kernels_of_steps("paper", n_cells, features, device)),
        ("Matrix products of paper", lambda: products(n_cells, features, device)),
        ("A step of small", lambda: kernels_of_steps("small", n_cells, features, device)),
    ):
        print(title, flush=True)
        try:
            print(table(), flush=True)
        except Exception:  # noqa: BLE001 - profilers fail for reasons of the machine
            traceback.print_exc()


def kernels_of_steps(preset: str, n_cells: int, features: dict[str, int], device: str, n_steps: int = 3) -> str:
    """The kernels that take the most time, on a CPU torch's functions: milliseconds and calls of one step."""
    work = Work(preset, n_cells, features, device)
    for _ in range(3):
        work.step()
    cuda = device == "cuda"
    activity = torch.profiler.ProfilerActivity.CUDA if cuda else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profiled:
        for _ in range(n_steps):
            work.step()
        if cuda:
            torch.cuda.synchronize()
    found = [
        ((kernel.self_device_time_total if cuda else kernel.self_cpu_time_total) / 1e3 / n_steps, kernel.count / n_steps, kernel.key)
        for kernel in profiled.key_averages()
    ]  # fmt: skip
    lines = [f"{ms:9.3f} ms {calls:7.1f} calls  {name[:120]}" for ms, calls, name in sorted(found, reverse=True)[:25]]
    return "\n".join(
        [*lines, f"{sum(ms for ms, *_ in found):9.3f} ms {sum(calls for _, calls, _ in found):7.1f} calls  in all"]
    )


def products(n_cells: int, features: dict[str, int], device: str) -> str:
    """Times of the matrix products of a block of `paper`: four maps, each forward and for the gradients of input and weight.

    By modality, as they have different numbers of patches; the sum is that of all blocks, one with attention taken for
    another.
    """
    config, lines, whole = resolve_config("paper"), [], 0.0
    d, i, s = config.d_model, config.expand * config.d_model, config.d_state
    maps = {
        "mixer, in": (d, 2 * i + 2 * s + i // config.headdim), "mixer, out": (i, d),
        "MLP, in": (d, 2 * config.d_mlp), "MLP, out": (config.d_mlp, d),
    }  # fmt: skip
    for kind, f in features.items():
        n_tokens = n_cells * layout(config, kind, f)[1]
        for name, (n_in, n_out) in maps.items():
            x, dy, weight = (
                torch.randn(size, device=device, dtype=torch.bfloat16)
                for size in ((n_tokens, n_in), (n_tokens, n_out), (n_out, n_in))
            )
            for what, call in {
                "forward": partial(F.linear, x, weight),
                "gradient of input": partial(torch.matmul, dy, weight),
                "gradient of weight": partial(torch.matmul, dy.T, x),
            }.items():
                ms = median_ms(call, device)
                whole += ms * config.of_kind("n_layers", kind)
                rate = 2 * n_tokens * n_in * n_out / ms / 1e9
                lines.append(f"{kind:5} {n_tokens:7} tokens, {name:10} {what:18} {ms:8.3f} ms {rate:6.0f} TFLOP/s")
    return "\n".join([*lines, f"all blocks {whole:.1f} ms"])
