"""Whole training steps on a GPU, with each kernel of the package switched off in turn, and with the scan of mamba-ssm.

Networks, loss and optimizer are those of the presets; the input is random, transformed already, as sparse as counts are.
"""

from __future__ import annotations

import contextlib
import statistics
import time
import types
from collections.abc import Callable, Iterator

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
        synchronize = torch.cuda.synchronize if cuda else (lambda: None)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        times = []
        for i in range(warmup + rounds):
            synchronize()
            begun = time.perf_counter()
            if cuda:
                events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
                events[0].record()
                call()
                events[1].record()
                synchronize()
                ms = events[0].elapsed_time(events[1])
            else:
                call()
                ms = (time.perf_counter() - begun) * 1e3
            if i == 0:
                first = time.perf_counter() - begun
            if i >= warmup:
                times.append(ms)
        ms = statistics.median(times)
        peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0
        return {"ms": round(ms, 2), "cells_per_s": round(self.n_cells / ms * 1e3), "peak_gb": round(peak, 2), "first_s": round(first, 1)}  # fmt: skip


def measure(*, tiny: bool = False, budget_s: float = 50.0, report: Callable[[dict], None] = print) -> list[dict]:
    """Rows of results, each also handed to ``report`` as soon as it is known; what time does not suffice for is left out."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    n_cells, features = (8, {"rna": 600, "atac": 900}) if tiny else (N_CELLS, FEATURES)
    rounds = {"rounds": 1, "warmup": 1} if tiny else {}
    begun, rows = time.perf_counter(), []

    def add(**row: object) -> None:
        rows.append({**row, "at_s": round(time.perf_counter() - begun, 1)})
        report(rows[-1])

    def attempt(work: Work, what: str, without_kernel: str | None = None, **more: int) -> None:
        if time.perf_counter() - begun > budget_s:
            return
        try:
            with without(without_kernel, work.encoders):
                found = work.time(getattr(work, what), **{**rounds, **more})
            add(preset=preset, what=what, without=without_kernel, **found)
        except torch.OutOfMemoryError:
            add(preset=preset, what=what, without=without_kernel, note="out of memory")

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
    return rows
