"""From results of speed, memory and growth to docs/performance.md; each section is one file of results."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version

from scmamba_scvi import __version__

from .markdown import header, row
from .paths import DOCS, RESULTS

PAGE = DOCS / "performance.md"


def write_page() -> None:
    """The page, from the results that are there."""
    PAGE.write_text("\n".join(page_lines()) + "\n")


def page_lines() -> list[str]:
    """Lines of the page."""
    lines = [
        "# Performance", "",
        "Written by `python benchmarks/speed.py --page` from `benchmarks/results/`. Each section names the script that measures it.",
    ]  # fmt: skip
    for name, section in SECTIONS.items():
        path = RESULTS / f"{name}.json"
        if path.exists():  # scan.json wants a GPU, and is not there yet
            lines += ["", *section(json.loads(path.read_text()))]
    return lines


# runner.py has another one: the stored results of fits have its keys. These stand among the results themselves, where
# its "threads" and "device" would not say whose
def machine() -> dict[str, object]:
    """What a time depends on beside the code."""
    import torch

    return {
        "processor": platform.machine(), "cores": os.cpu_count(), "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {"scmamba-scvi": __version__, **dict(_versions())},
    }  # fmt: skip


def _versions() -> Iterable[tuple[str, str]]:
    for name in ("scvi-tools", "torch", "triton", "anndata", "numpy", "scipy"):
        try:
            yield name, version(name)
        except PackageNotFoundError:  # triton comes with torch for CUDA alone
            continue


def _measured_on(found: dict) -> list[str]:
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    return ["", f"Measured on {found['cores']} cores ({found['processor']}), Python {found['python']}, {versions}."]


def _threads(found: dict) -> str:
    return "one thread" if found["torch_threads"] == 1 else f"{found['torch_threads']} threads"


# -- sections --------------------------------------------------------------------------------------------------------


def _speed(found: dict) -> list[str]:
    lines = [
        "## A training step", "",
        f"`speed.py`, {_threads(found)}. A training step is forward, loss, backward, clipping and optimizer of one minibatch; embedding is the joint",
        "embedding of one minibatch. The products are the matrix products of that work alone, in the same shapes and the same run; the ratio",
        "is the whole over them.", "",
        *header(["preset", "features", "cells", "what", "ms", "products alone ms", "ratio", "cells/s"], n_left=4),
    ]  # fmt: skip
    for step in found["steps"]:
        for key, what in (("step", "training"), ("embed", "embedding")):
            cost = [str(step[f"{key}_{column}"]) for column in ("ms", "matmul_ms", "ratio", "cells_per_s")]
            lines.append(row([step["preset"], step["shape"], str(step["batch_size"]), what, *cost]))
    loader = {step["shape"]: step["loader_ms"] for step in found["steps"] if step["preset"] == "small"}
    return [
        *lines,
        "",
        f"The loader takes {' and '.join(f'{ms} ms ({shape})' for shape, ms in loader.items())} for {found['batch_size']} cells.",
        *_measured_on(found),
    ]


def _busy(found: dict) -> list[str]:
    n = found["cores"]
    lines = [
        "## Beside other programs", "",
        f"`speed.py --busy`. A training step of preset `small` with {found['shape']}, minibatches of {found['batch_size']}, on {n} cores: alone, and beside",
        f"{n} programs that compute without a pause. *Set* is what stood in the environment before Python began. Threads of torch wait",
        "for each other without sleeping unless `OMP_WAIT_POLICY` says so; one thread has nothing to wait for.", "",
        *header(["other programs", "set", "threads", "ms", "CPU ms of all threads"], n_left=2),
    ]  # fmt: skip
    for one in found["rows"]:
        cells = [str(one["others"]), f"`{one['set']}`" if "=" in one["set"] else one["set"]]
        lines.append(row([*cells, *(str(one[key]) for key in ("threads", "ms", "cpu_ms"))]))
    return [*lines, *_measured_on(found)]


def _memory(found: dict) -> list[str]:
    cells, genes, peaks = found["cells_genes_peaks"]
    return [
        "## Memory", "",
        f"`speed.py --memory`. Setup, spectral initialization, one epoch and embedding of a simulated MuData of {cells:,} cells, {genes:,} genes and",
        f"{peaks:,} peaks ({found['mudata_mb']} MB). Peak resident memory rises by {found['raised_mb']} MB; the same network takes",
        f"{found['network_alone_mb']} MB on a few cells (weights, optimizer, activations of minibatches of {found['batch_size']}). What",
        f"grows with the data is the rest, {found['beyond_mb']} MB or {found['share_of_mudata']:.1%} of the MuData.",
        *_measured_on(found),
    ]  # fmt: skip


def _metrics(found: dict) -> list[str]:
    return [
        "## Scores", "",
        f"`metrics_cost.py`, {_threads(found)}. Embeddings of {found['dimensions']} dimensions with {found['types']} cell types, each task in a process of its own;",
        "seconds are those that it computed, memory is that of the whole process, before (with torch and the data) and at its peak.", "",
        *header(["task", "cells", "CPU seconds", "MB before", "MB at peak"], n_left=2),
        *(row([str(task[key]) for key in ("task", "cells", "seconds", "before_mb", "peak_mb")]) for task in found["tasks"]),
        *_measured_on(found),
    ]  # fmt: skip


def _scan(found: dict) -> list[str]:
    keys = ("shape", "cells", "backend", "forward_ms", "training_ms", "peak_mb")
    return [
        "## The scan alone", "",
        f"`scan.py`. Its implementations on {found['gpu'] or 'a CPU'} in {found['dtype']}, random inputs; memory is that beyond the inputs.", "",
        *header(["shape", "cells", "back-end", "forward ms", "forward and backward ms", "MB at peak"], n_left=3),
        *(row([str(one.get(key, "")) for key in keys]) for one in found["rows"]),
        *_measured_on(found),
    ]  # fmt: skip


def _scaling(found: dict) -> list[str]:
    (n_genes, of_genes), (n_peaks, of_peaks) = found["features"].values()
    time_is = "seconds of the process itself on one thread" if found["gpu"] is None else f"seconds on {found['gpu']}"
    by_cells, by_peaks, by_patches, slopes = (found[key] for key in ("cells", "peaks", "patches", "slopes"))
    lines = [
        "## Cells, peaks and patches", "",
        f"`scaling.py`. Random counts of {n_genes:,} genes and {n_peaks:,} peaks; a cell has {of_genes:.0%} of the genes and {of_peaks:.0%} of the peaks. Preset `{found['preset']}`,",
        f"minibatches of at most {max(size['batch_size'] for size in by_cells)}; time in {time_is}, each size in a process of its own.",
        "\"Initialization and joint embedding\" is the rest of setup and training. It includes the first step.", "",
        "![Time and memory against cells and peaks, time against patches](_static/scaling.png)", "",
        *header(["cells", "counts MB", "initialization and joint embedding s", "epoch s", "embedding s",
                 "ms per cell, epoch", "ms per cell, embedding", "added by training MB"], n_left=0),
    ]  # fmt: skip
    for size in by_cells:
        seconds = [f"{size[key]:.1f}" for key in ("around_s", "epoch_s", "embed_s")]
        per_cell = [f"{size[key] / size['cells'] * 1e3:.2f}" for key in ("epoch_s", "embed_s")]
        lines.append(row([f"{size['cells']:,}", str(size["data_mb"]), *seconds, *per_cell, str(size["train_mb"])]))

    def powers(x: str, what: dict[str, str]) -> str:
        return ", ".join(f"{words} {slopes[x][key]}" for key, words in what.items())

    times = {"epoch_s": "an epoch", "embed_s": "embedding"}
    start, memory = {"around_s": "initialization and joint embedding"}, {"train_mb": "added memory"}
    return [
        *lines, "",
        "Slopes in the figure are exponents: time or memory grows with that power, and 1 is linear growth.", "",
        f"- With cells: {powers('cells', times | start | memory)}.",
        f"- With peaks, from {by_peaks[0]['peaks']:,} to {by_peaks[-1]['peaks']:,} in {by_peaks[0]['cells']:,} cells: {powers('peaks', times | start | memory)}.",
        f"- With patches, from {by_patches[0]['patches']} to {by_patches[-1]['patches']} of a cell: {powers('patches', times | memory)}. The scan is linear in the length of the",
        "  sequence, and the tokenizer does not depend on it.",
        *_measured_on(found),
    ]  # fmt: skip


def _larger_than_memory(found: dict) -> list[str]:
    lines = [
        "## Larger than memory", "",
        "`larger_than_memory.py`. Random counts in a zarr folder, opened with `scmamba_scvi.data.open_mudata`; `encoder='linear'` with 16 dimensions,",
        f"minibatches of {found['batch_size']}, `buffer_mb={found['buffer_mb']}`, {_threads(found)}. Seconds are those of the clock;",
        "milliseconds per cell are those of the processor, of all threads together. Memory is the peak of the whole process, of which the",
        "libraries take what stands in brackets.", "",
        *header(["genes, peaks", "cells", "file MB", "counts", "setup s", "initialization and joint embedding s", "epoch s", "embedding s",
                 "ms per cell, epoch", "ms per cell, embedding", "peak MB"]),
    ]  # fmt: skip
    order = list(found["shapes"])
    for run in sorted(found["rows"], key=lambda run: (order.index(run["shape"]), run["cells"])):
        features = ", ".join(f"{n:,}" for n, _ in found["shapes"][run["shape"]].values())
        seconds = [f"{run[key]:.1f}" for key in ("setup_s", "start_s", "epoch_s", "embed_s")]
        per_cell = [f"{run[key] / run['cells'] * 1e3:.2f}" for key in ("epoch_cpu_s", "embed_cpu_s")]
        peak = f"{run['peak_mb']:,} ({run['libraries_mb']:,})"
        lines.append(
            row([features, f"{run['cells']:,}", f"{run['file_mb']:,}", run["counts"], *seconds, *per_cell, peak])
        )
    return [*lines, *_measured_on(found)]


def _gpu(found: dict) -> list[str]:
    genes, peaks = found["features"].values()
    lines = [
        "## On a GPU", "",
        f"`speed.py --gpu`, on one {found['gpu'] or 'CPU'}. A training step and the embedding of a minibatch of {found['batch_size']} cells with {genes:,} genes and",
        f"{peaks:,} peaks, in bfloat16 where autocast allows it; random input that is on the device already. Medians; memory is the peak",
        "of what torch has allocated. The first run also compiles kernels that no row or call before it has compiled. \"Without\" is plain torch instead of one of the kernels, or launches one by one instead of a graph.", "",
        *header(["preset", "what", "kernels", "ms", "cells/s", "GB at peak", "first run s"], n_left=3),
    ]  # fmt: skip
    for one in found["rows"]:
        what = {"step": "training", "embed": "embedding"}[one["what"]]
        kernels = f"without `{one['without']}`" if one["without"] else "all"
        cost = [one["note"]] if "note" in one else [f"{one['ms']:,.1f}", f"{one['cells_per_s']:,}", str(one["peak_gb"]), str(one["first_s"])]  # fmt: skip
        lines.append(row([one["preset"], what, kernels, *cost, *[""] * (4 - len(cost))]))
    if any(one.get("without") == "rms_norm" for one in found["rows"]):  # a name of then
        lines += BEFORE_SUMS_IN_NORMS
    return [*lines, *_measured_on(found)]


#: Said while the stored rows are older than sums made in norms and graphs of small networks.
BEFORE_SUMS_IN_NORMS = [
    "",
    "These rows are older than norms that add as well and than CUDA graphs, which were not measured in this way.",
]


def _gpu_calls(found: dict) -> list[str]:
    lines = [
        "### Whole calls", "",
        f"`gpu_calls.py`, on one {found['gpu'] or 'CPU'}. Calls include all transfers; a step begins with its minibatch on the device.",
        "The training with the defaults is the first of a process with empty caches, so that it also compiles.", "",
        *header(["what", "cells", "s", "cells/s", "GB at peak"], n_left=1),
    ]  # fmt: skip
    for one in found["rows"]:
        if "scores" in one:
            continue
        keys = ("cells", "s", "cells_per_s", "peak_gb")
        lines.append(row([one["what"], *(f"{one[key]:,}" if key in one else "" for key in keys)]))
    lines += _quality_by_precision([one for one in found["rows"] if "scores" in one])
    return [*lines, *_measured_on(found)]


def _quality_by_precision(rows: list[dict]) -> list[str]:
    """Scores of held-out cells, mean and standard deviation over seeds, by the precision of the training."""
    if not rows:
        return []
    names = list(rows[0]["scores"])
    lines = [
        "", "Scores of held-out cells by the precision of the training, mean and standard deviation over seeds. The linear branch",
        "is in float32 in either; \"network kept\" says for how many seeds the weights that were kept have the network.", "",
        *header(["what", "seeds", "network kept", *names], n_left=1),
    ]  # fmt: skip
    for one in rows:
        scores = (f"{mean:.4f} ± {spread:.4f}" for mean, spread in one["scores"].values())
        lines.append(row([one["what"], str(one["seeds"]), str(one.get("network_kept", "not stored")), *scores]))
    if len({str(one["scores"]) for one in rows}) < len(rows):
        lines += [
            "", "Rows that are equal to the last digit are of weights of the linear branch alone, which is in float32: so they say nothing of",
            "bf16. They are older than the version of {doc}`benchmarks`, in which the network is kept on this set.",
        ]  # fmt: skip
    return lines


def _ten_million(found: dict) -> list[str]:
    lines = [
        "## Ten million cells: an estimate", "",
        f"`ten_million_cells.py` estimates {found['cells']:,} cells x {found['features']:,} features from slopes that other scripts measured, preset `small`:",
        f"{found['file_kb_per_cell']} kB per cell in the file, at most {found['read_ms_per_cell']} ms to read it, {found['step_ms_per_cell']} ms in a training step and",
        f"{found['embed_ms_per_cell']} ms to embed it on a GPU; {found['passes']} passes over the data, as `train` takes by default. Reading runs beside",
        "the steps. Nothing of this size was run; bandwidths between GPUs are those of data sheets.", "",
        *header(["GPUs", "initialization h", "reading h", "steps h", "exchange h", "embedding h", "whole h", "GB on a GPU", "GB of each process", "TB read"], n_left=0),
    ]  # fmt: skip
    keys = (
        "devices",
        "start_h",
        "reading_h",
        "steps_h",
        "exchange_h",
        "embedding_h",
        "whole_h",
        "gpu_gb",
        "host_gb",
        "read_tb",
    )
    lines += [row([str(one[key]) for key in keys]) for one in found["rows"]]
    return [
        *lines, "",
        "Reading is the limit. One process cannot decompress as fast as a GPU trains. Several GPUs divide the reading, as every process",
        "reads only its own part. On one GPU fewer passes would do, since training needs 300 steps at least. More GPUs do not",
        "shorten the exchange of the gradient of the feature embeddings, which is dense and exchanged in every step. Held-out cells and the",
        "cells of the initialization are a sample of fixed size.",
    ]  # fmt: skip


#: Name of a file of results -> its section, in the order of the page.
SECTIONS: dict[str, Callable[[dict], list[str]]] = {
    "speed": _speed, "busy": _busy, "memory": _memory, "metrics": _metrics, "scan": _scan, "scaling": _scaling,
    "larger_than_memory": _larger_than_memory, "gpu": _gpu, "gpu_calls": _gpu_calls, "ten_million_cells": _ten_million,
}  # fmt: skip
