"""What a training step, the loader and the memory cost on this machine.

    python benchmarks/speed.py             # a training step beside its own matrix products, and the loader
    python benchmarks/speed.py --published # only the part of it that times the published network
    python benchmarks/speed.py --memory    # peak memory of setup, training and embedding beside the MuData itself

Results go to benchmarks/results/speed.json and memory.json, with machine and versions, and from there into
docs/performance.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import sys
import threading
import time
import warnings
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT / "benchmarks"))

#: Cells x (genes, peaks) of the shapes that are measured; densities are those of `simulate_multiome`.
SHAPES = {"20k genes + 100k peaks": (2_000, 20_000, 100_000), "2k genes + 10k peaks": (2_000, 2_000, 10_000)}
#: Cells of a minibatch of preset "base", whose step takes seconds on a CPU.
BASE_BATCH = 64
#: Of the published network, which is two hundred times larger than ours: smaller shape and minibatch on a CPU.
PUBLISHED = (500, 2_000, 10_000)
#: Of the memory measurement.
ATLAS = (20_000, 20_000, 100_000)


def machine() -> dict[str, object]:
    import torch

    return {
        "processor": platform.machine(), "cores": os.cpu_count(), "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {n: version(n) for n in ("scmamba-scvi", "scvi-tools", "torch", "anndata", "numpy", "scipy")},
    }  # fmt: skip


def training_step(shape: tuple[int, int, int], preset: str, batch_size: int, device: str = "cpu", **options: object):
    """Of a model on simulated counts: one training step (forward, loss, backward, clipping, optimizer), the joint
    embedding of the same minibatch, and the data."""
    import numpy as np
    import torch

    from scmamba_scvi import SCMAMBA
    from scmamba_scvi.config import TrainConfig
    from scmamba_scvi.data import simulate_multiome
    from scmamba_scvi.model._plan import ContrastivePlan

    n_cells, n_genes, n_peaks = shape
    mdata = simulate_multiome(n_cells=n_cells, n_genes=n_genes, n_peaks=n_peaks, seed=0)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, preset=preset, **options)
    model._start_from(np.arange(n_cells))
    dataset = model.adata_manager.create_torch_dataset()
    model.to_device(device)
    batch = {name: tensor.to(device) for name, tensor in dataset[list(range(batch_size))].items()}
    groups = ContrastivePlan(model.module, config=TrainConfig())._parameter_groups()
    optimizer = torch.optim.AdamW(groups, fused=True)

    def step() -> None:
        model.module.train()
        _, _, output = model.module(batch)
        optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
        optimizer.step()

    kinds = list(model.kinds)

    def embed() -> None:
        model.module.eval()
        with torch.inference_mode():
            model._embed(batch, kinds, jointly=True)

    return step, embed, dataset


def measure_loader(dataset, batch_size: int, rounds: int = 20) -> float:
    """Median milliseconds of one minibatch of random cells."""
    import numpy as np

    rng, seconds = np.random.default_rng(0), []
    for _ in range(rounds):
        cells = rng.choice(len(dataset), batch_size, replace=False)
        begun = time.perf_counter()
        dataset[cells]
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds) * 1e3


def measure_speed(batch_size: int = 512) -> dict[str, object]:
    from matmul_share import measure

    found: dict[str, object] = {"batch_size": batch_size, **machine(), "steps": []}
    for preset, (name, shape) in itertools.product(("small", "base"), SHAPES.items()):
        step, embed, dataset = training_step(shape, preset, batch_size if preset == "small" else BASE_BATCH)
        row = {"shape": name, "preset": preset, "batch_size": batch_size if preset == "small" else BASE_BATCH}
        for what, call in (("step", step), ("embed", embed)):
            share = measure(call, rounds=7 if preset == "small" else 3, warmup=2 if preset == "small" else 1)
            row |= {
                f"{what}_ms": round(share.step_s * 1e3, 1), f"{what}_matmul_ms": round(share.matmul_s * 1e3, 1),
                f"{what}_ratio": round(share.ratio, 2), f"{what}_cells_per_s": round(row["batch_size"] / share.step_s),
            }  # fmt: skip
        row["loader_ms"] = round(measure_loader(dataset, batch_size), 2)
        print(row, flush=True)
        found["steps"].append(row)
    return {**found, **measure_published()}


def measure_published(batch_size: int = 16, rounds: int = 3) -> dict[str, object]:
    """A training step of the published network in plain torch beside ours, same data, same minibatch.

    The published shape comes from the same modules, ``preset="paper"``: many blocks as wide as the paper's, one projection
    shared by all patches, last token. Its scan by mamba-ssm's kernels is timed only where they can be imported.
    """
    import torch

    from scmamba_scvi.ops.backend import available_backends

    device = "cuda" if torch.cuda.is_available() else "cpu"
    clock = time.perf_counter if device == "cuda" else time.process_time  # others may use the processor as well
    cases = [
        ("published shape, plain torch", "paper", {"ssd_backend": "torch"}),
        ("published shape, mamba-ssm kernels", "paper", {"ssd_backend": "mamba_ssm"}),
        ("ours", "small", {}),
    ]
    rows = []
    for name, preset, options in cases:
        row: dict[str, object] = {"network": name, "preset": preset}
        if options.get("ssd_backend") == "mamba_ssm" and "mamba_ssm" not in available_backends(device):
            rows.append({**row, "note": "not measured: mamba-ssm cannot be imported or there is no GPU"})
            continue
        step, _, dataset = training_step(PUBLISHED, preset, batch_size, device=device, **options)
        step()
        seconds = []
        for _ in range(rounds):
            begun = clock()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(clock() - begun)
        step_s = statistics.median(seconds)
        rows.append({**row, "step_ms": round(step_s * 1e3, 1), "cells_per_s": round(batch_size / step_s, 1)})
        print(rows[-1], flush=True)
    return {"published": {"cells_genes_peaks": PUBLISHED, "batch_size": batch_size, "rows": rows, **machine()}}


# -- memory ----------------------------------------------------------------------------------------------------------


class PeakRSS:
    """Highest resident memory of this process while the block runs, in bytes, sampled every 10 ms."""

    def __enter__(self) -> PeakRSS:
        self.before = self.peak = rss()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, rss())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def rss() -> int:
    """Resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _train(mdata, batch_size: int, **arguments: object):
    from scmamba_scvi import SCMAMBA

    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, preset="small")
    model.train(max_epochs=1, batch_size=batch_size, enable_progress_bar=False, accelerator="cpu", **arguments)
    return model


def _of_network(path: str, batch_size: int, queue) -> None:
    """What a network of this size takes by itself: the same steps on two minibatches of the same data."""
    import mudata

    warnings.simplefilter("ignore")
    few = mudata.read_h5mu(path)
    _warm_up()
    with PeakRSS() as memory:
        _train(few, batch_size, limit_train_batches=2, limit_val_batches=1)
    queue.put(memory.peak - memory.before)


def _of_everything(path: str, batch_size: int, queue) -> None:
    """Setup, training and embedding of the whole MuData, beside what is there once it has been read."""
    import mudata

    warnings.simplefilter("ignore")
    _warm_up()
    empty = rss()
    mdata = mudata.read_h5mu(path)
    size = sum(v.X.data.nbytes + v.X.indices.nbytes + v.X.indptr.nbytes for v in mdata.mod.values())
    with PeakRSS() as memory:
        model = _train(mdata, batch_size)
        model.get_latent_representation()
    queue.put({"mudata": size, "read": memory.before - empty, "raised": memory.peak - memory.before})


def _warm_up() -> None:
    """Import and run everything once on a handful of cells, so that no library's own memory is counted."""
    from scmamba_scvi.data import simulate_multiome

    _train(simulate_multiome(n_cells=100, n_genes=60, n_peaks=100, n_cell_types=2), 20).get_latent_representation()


def measure_memory(batch_size: int = 512) -> dict[str, object]:
    """Peak memory of a run, less what the network takes by itself, as a share of the MuData."""
    import tempfile

    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        whole, few = f"{folder}/whole.h5mu", f"{folder}/few.h5mu"
        in_process(context, _simulate, whole, few, batch_size)
        network = in_process(context, _of_network, few, batch_size)
        run = in_process(context, _of_everything, whole, batch_size)
    beyond = run["raised"] - network
    mb = 2**20
    found = {
        "cells_genes_peaks": ATLAS, "batch_size": batch_size, "mudata_mb": round(run["mudata"] / mb),
        "raised_mb": round(run["raised"] / mb), "network_alone_mb": round(network / mb), "beyond_mb": round(beyond / mb),
        "share_of_mudata": round(beyond / run["mudata"], 3), **machine(),
    }  # fmt: skip
    print(f"MuData {found['mudata_mb']} MB; the run raises memory by {found['raised_mb']} MB, of which the network, its optimizer "
          f"and activations take {found['network_alone_mb']} MB; the rest is {found['share_of_mudata']:.1%} of the MuData")  # fmt: skip
    return found


def _simulate(whole: str, few: str, batch_size: int, queue) -> None:
    from scmamba_scvi.data import simulate_multiome

    mdata = simulate_multiome(n_cells=ATLAS[0], n_genes=ATLAS[1], n_peaks=ATLAS[2], seed=0)
    mdata.write_h5mu(whole)
    mdata[: 3 * batch_size].copy().write_h5mu(few)
    queue.put(None)


def in_process(context, function, *arguments):
    queue = context.Queue()
    process = context.Process(target=function, args=(*arguments, queue))
    process.start()
    found = queue.get()
    process.join()
    return found


def write_page() -> None:
    """docs/performance.md from the results that are there."""
    lines = [
        "# Performance",
        "",
        "Written by `python benchmarks/speed.py`, `scaling.py` and `metrics_cost.py` from `benchmarks/results/`.",
    ]
    speed, memory = RESULTS / "speed.json", RESULTS / "memory.json"
    if speed.exists():
        found = json.loads(speed.read_text())
        lines += [
            "", "## A training step", "",
            "Forward, loss, backward, clipping and optimizer of one minibatch, and the joint embedding of one minibatch, each beside",
            "the matrix products of that work alone (same shapes, same run), and the loader.",
            "", "| preset | features | cells | | ms | products alone ms | ratio | cells/s |", "|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for row in found["steps"]:
            for what, words in (("step", "training"), ("embed", "embedding")):
                keys = ("ms", "matmul_ms", "ratio", "cells_per_s")
                cost = [str(row[f"{what}_{key}"]) for key in keys]
                lines.append(
                    "| " + " | ".join([row["preset"], row["shape"], str(row["batch_size"]), words, *cost]) + " |"
                )
        loader = {row["shape"]: row["loader_ms"] for row in found["steps"] if row["preset"] == "small"}
        lines += [
            "",
            f"The loader takes {' and '.join(f'{ms} ms ({shape})' for shape, ms in loader.items())} for {found['batch_size']} cells.",
        ]
        lines += ["", measured_on(found)]
        if "published" in found:
            lines += published_section(found["published"])
    if memory.exists():
        found = json.loads(memory.read_text())
        cells, genes, peaks = found["cells_genes_peaks"]
        lines += [
            "", "## Memory", "",
            f"Setup, spectral start, one epoch and embedding of a simulated MuData of {cells:,} cells, {genes:,} genes and",
            f"{peaks:,} peaks ({found['mudata_mb']} MB). Peak resident memory rises by {found['raised_mb']} MB; the same network takes",
            f"{found['network_alone_mb']} MB on a few cells (weights, optimizer, activations of minibatches of {found['batch_size']}). What",
            f"grows with the data is the rest, {found['beyond_mb']} MB or {found['share_of_mudata']:.1%} of the MuData.",
            "", measured_on(found),
        ]  # fmt: skip
    scores = RESULTS / "metrics.json"
    if scores.exists():
        from metrics_cost import section

        lines += section(json.loads(scores.read_text()))
    scan = RESULTS / "scan.json"
    if scan.exists():
        lines += scan_section(json.loads(scan.read_text()))
    scaling = RESULTS / "scaling.json"
    if scaling.exists():
        import scaling as of_sizes

        lines += of_sizes.section(json.loads(scaling.read_text()))
    disk = RESULTS / "larger_than_memory.json"
    if disk.exists():
        import larger_than_memory

        lines += larger_than_memory.section(json.loads(disk.read_text()))
    lines += ["", "## On a GPU", "", "Not yet measured."]
    (ROOT / "docs" / "performance.md").write_text("\n".join(lines) + "\n")


def scan_section(found: dict) -> list[str]:
    """Written from what scan.py measured."""
    lines = [
        "", "## The scan alone", "",
        f"Its implementations on {found['gpu'] or 'a CPU'} in {found['dtype']}, random inputs; memory is that beyond the inputs.",
        "", "| shape | cells | back-end | forward ms | forward and backward ms | MB at peak |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    keys = ("shape", "cells", "backend", "forward_ms", "training_ms", "peak_mb")
    lines += ["| " + " | ".join(str(row.get(k, "")) for k in keys) + " |" for row in found["rows"]]
    return [*lines, "", measured_on(found)]


def published_section(found: dict) -> list[str]:
    cells, genes, peaks = found["cells_genes_peaks"]
    threads = "one thread" if found["torch_threads"] == 1 else f"{found['torch_threads']} threads"
    lines = [
        "", "## Beside the published network", "",
        f"The same training step, minibatches of {found['batch_size']} cells with {genes:,} genes and {peaks:,} peaks, with the network in",
        "the paper's shape (10 and 12 blocks of width 512) made of the same modules; time in seconds of the process itself,",
        f"{threads}." if found["gpu"] is None else f"on {found['gpu']}.",
        "", "| network | preset | step ms | cells/s |", "|---|---|---|---|",
    ]  # fmt: skip
    for row in found["rows"]:
        cost = [row["note"], ""] if "note" in row else [str(row["step_ms"]), str(row["cells_per_s"])]
        lines.append("| " + " | ".join([row["network"], row["preset"], *cost]) + " |")
    return [*lines, "", measured_on(found)]


def measured_on(found: dict) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    return f"Measured on {found['cores']} cores ({found['processor']}), Python {found['python']}, {versions}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--published", action="store_true", help="time the published network only, keep the rest")
    parser.add_argument("--batch-size", type=int, default=512)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    RESULTS.mkdir(exist_ok=True)
    if arguments.memory:
        found = measure_memory(arguments.batch_size)
    elif arguments.published:
        found = {**json.loads((RESULTS / "speed.json").read_text()), **measure_published()}
    else:
        found = measure_speed(arguments.batch_size)
    (RESULTS / ("memory.json" if arguments.memory else "speed.json")).write_text(json.dumps(found, indent=1) + "\n")
    write_page()


if __name__ == "__main__":
    main()
