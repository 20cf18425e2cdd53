"""Training and embedding from a file that is larger than the memory allowed: time per cell and peak memory.

    python benchmarks/larger_than_memory.py                          # the growth, and disk against memory
    python benchmarks/larger_than_memory.py --cells 377134 --atlas    # the shape of an atlas: takes an hour or two
    python benchmarks/larger_than_memory.py --page                   # only write the page from the results

Random sparse counts are written in blocks, so that making the file needs no memory either. Every size runs in a process
of its own; memory is its peak resident memory. Results go to benchmarks/results/larger_than_memory.json and docs/performance.md.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from harness import command
from harness.files import write_json
from harness.paths import RESULTS
from harness.performance_page import machine, write_page
from harness.process import MB, PeakRSS, in_process

#: (features, stored values per cell) of each modality; the atlas has those of sci-RNA-seq3 and sci-ATAC-seq3, fetal tissues.
SHAPES = {
    "multiome": {"rna": (20_000, 1_000), "atac": (100_000, 3_000)},
    "atlas": {"rna": (36_601, 700), "atac": (1_154_464, 3_000)},
}
CELLS, IN_MEMORY = (5_000, 10_000, 20_000, 40_000), (5_000, 10_000)
#: A tiny network, as reading the data is what is measured; 64 dimensions for a million peaks are a network for a GPU.
NETWORK = {"n_latent": 16, "d_feature": 16, "encoder": "linear"}
BUFFER_MB, BATCH_SIZE, N_EPOCHS, N_THREADS, BLOCK = 512, 512, 1, 2, 5_000
RESULT = RESULTS / "larger_than_memory.json"


# -- making a file ----------------------------------------------------------------------------------------------------


def write_file(path: Path, shape: str, n_cells: int, seed: int = 0) -> float:
    """Write a MuData as zarr, in blocks; the size of the file in MB."""
    import anndata
    import pandas as pd
    import zarr
    from mudata import MuData

    from scmamba_scvi.data._row_blocks import write_rows

    obs = pd.DataFrame(index=pd.Index([f"cell{i}" for i in range(n_cells)]))
    empty = {
        kind: anndata.AnnData(obs=obs.copy(), var=pd.DataFrame(index=[f"{kind}{i}" for i in range(n_features)]))
        for kind, (n_features, _) in SHAPES[shape].items()
    }
    MuData(empty).write_zarr(path)
    root = zarr.open_group(path, mode="r+")
    for kind, (n_features, per_cell) in SHAPES[shape].items():
        rng = np.random.default_rng(seed)
        group = root[f"mod/{kind}"]
        if "X" in group:
            del group["X"]
        write_rows(group, "X", (random_rows(rng, n, n_features, per_cell) for n in blocks_of(n_cells)))
    return sum(part.stat().st_size for part in path.rglob("*") if part.is_file()) / MB


def blocks_of(n_cells: int) -> list[int]:
    return [min(BLOCK, n_cells - start) for start in range(0, n_cells, BLOCK)]


def random_rows(rng: np.random.Generator, n_cells: int, n_features: int, per_cell: int):
    """Random counts: the same number in every cell, in features of which a few are common and most are rare."""
    from scipy import sparse

    columns = (n_features * rng.random((n_cells, per_cell), dtype=np.float32) ** 2).astype(np.int32)
    columns.sort(axis=1)
    indptr = np.arange(n_cells + 1, dtype=np.int64) * per_cell
    values = np.ones(columns.size, dtype=np.uint8)
    rows = sparse.csr_matrix((values, columns.ravel(), indptr), shape=(n_cells, n_features))
    rows.sum_duplicates()
    return rows


# -- one run, in a process of its own ---------------------------------------------------------------------------------


def measure_one(path: Path, on_disk: bool, shape: str, n_cells: int) -> dict[str, object]:
    """Setup, training and embedding of all cells: what it took."""
    import mudata
    import torch

    from scmamba_scvi import SCMAMBA
    from scmamba_scvi.data import open_mudata

    warnings.simplefilter("ignore")
    torch.set_num_threads(N_THREADS)
    torch.manual_seed(0)
    with PeakRSS() as peak:
        seconds, timer = [time.perf_counter()], epoch_timer()
        mdata = open_mudata(path) if on_disk else mudata.read_zarr(path)
        SCMAMBA.setup_mudata(mdata)
        model = SCMAMBA(mdata, preset="small", **NETWORK)
        seconds.append(time.perf_counter())
        model.train(
            max_epochs=2 * N_EPOCHS, batch_size=BATCH_SIZE, callbacks=[timer], enable_progress_bar=False,
            plan_kwargs={"buffer_mb": BUFFER_MB}, early_stopping=False,
        )  # fmt: skip
        seconds.append(time.perf_counter())
        begun = time.process_time()
        z = model.get_latent_representation()
        embed_cpu_s = time.process_time() - begun
        seconds.append(time.perf_counter())
    assert np.isfinite(z).all()
    setup_s, train_s, embed_s = np.diff(seconds).round(2).tolist()
    return {
        "shape": shape, "cells": n_cells, "counts": "on disk" if on_disk else "in memory", "setup_s": setup_s,
        "start_s": round(train_s - sum(timer.seconds), 2), "epoch_s": round(float(np.mean(timer.seconds)), 2),
        "epoch_cpu_s": round(float(np.mean(timer.cpu_seconds)), 2), "embed_cpu_s": round(embed_cpu_s, 2),
        "embed_s": embed_s, "peak_mb": round(peak.peak / MB), "libraries_mb": round(peak.before / MB),
    }  # fmt: skip


def epoch_timer():
    """Callback that keeps the seconds of every training epoch, by the clock and of the processor."""
    from lightning.pytorch.callbacks import Callback

    class Timer(Callback):
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.cpu_seconds: list[float] = []

        def on_train_epoch_start(self, *_: object) -> None:
            self.begun, self.cpu_begun = time.perf_counter(), time.process_time()

        def on_train_epoch_end(self, *_: object) -> None:
            self.seconds.append(time.perf_counter() - self.begun)
            self.cpu_seconds.append(time.process_time() - self.cpu_begun)

    return Timer()


# -- all sizes --------------------------------------------------------------------------------------------------------


def measure(folder: Path, shape: str, cells: list[int], in_memory: list[int]) -> list[dict]:
    rows = []
    for n_cells in cells:
        path = folder / f"{shape}_{n_cells}.zarr"
        file_mb = round(write_file(path, shape, n_cells))
        for on_disk in [True, *([False] if n_cells in in_memory else [])]:
            row = in_process(measure_one, path, on_disk, shape, n_cells) | {"file_mb": file_mb}
            print(row, flush=True)
            rows.append(row)
        shutil.rmtree(path)
    return rows


def main() -> None:
    parser = command.parser(__doc__, page="docs/performance.md")
    parser.add_argument("--cells", type=int, nargs="+", default=list(CELLS))
    parser.add_argument("--atlas", action="store_true", help="features and density of an atlas, a smaller network")
    parser.add_argument("--in-memory", type=int, nargs="*", default=list(IN_MEMORY), help="sizes also run from memory")
    parser.add_argument("--folder", type=Path, help="where the files are made; a temporary folder by default")
    arguments = parser.parse_args()
    if not arguments.page:
        shape = "atlas" if arguments.atlas else "multiome"
        folder = Path(tempfile.mkdtemp(dir=arguments.folder))
        try:
            rows = measure(folder, shape, arguments.cells, [] if arguments.atlas else arguments.in_memory)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        before = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
        measured = {(row["shape"], row["cells"], row["counts"]) for row in rows}
        rows = [row for row in before if (row["shape"], row["cells"], row["counts"]) not in measured] + rows
        settings = {"batch_size": BATCH_SIZE, "buffer_mb": BUFFER_MB, "shapes": SHAPES}
        write_json(RESULT, {**settings, **machine(), "torch_threads": N_THREADS, "rows": rows})
    write_page()


if __name__ == "__main__":
    main()
