"""What a training step, the loader and the memory cost on this machine.

    python benchmarks/speed.py                # a training step beside its own matrix products, and the loader
    python benchmarks/speed.py --memory       # peak memory of setup, training and embedding beside the MuData itself
    python benchmarks/speed.py --busy         # a training step while other programs use the same cores
    python benchmarks/speed.py --gpu          # whole steps of the presets on a GPU, with each kernel switched off in turn
    python benchmarks/speed.py --profile      # print what these steps spend their time in; nothing is kept
    python benchmarks/speed.py --page         # measure nothing, only write docs/performance.md from the results

Results go to benchmarks/results/speed.json, memory.json, busy.json and gpu.json, with machine and versions, and from there
into docs/performance.md.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from unittest import mock

from harness import command
from harness.files import write_json
from harness.paths import RESULTS
from harness.performance_page import machine, write_page
from harness.process import MB, PeakRSS, in_process

#: Cells x (genes, peaks) of the shapes that are measured; densities are those of `simulate_multiome`.
SHAPES = {"20k genes + 100k peaks": (2_000, 20_000, 100_000), "2k genes + 10k peaks": (2_000, 2_000, 10_000)}
#: Cells of a minibatch of preset "base", whose step takes seconds on a CPU.
BASE_BATCH = 64
#: Cells, genes and peaks for the memory measurement.
ATLAS = (20_000, 20_000, 100_000)
#: Features of the step beside other programs.
BUSY_SHAPE = "2k genes + 10k peaks"


def training_step(shape: tuple[int, int, int], preset: str, batch_size: int):
    """A training step (forward, loss, backward, clipping, optimizer) and the joint embedding of one minibatch, and the data.

    Both are functions without arguments, of a model on simulated counts.
    """
    import numpy as np
    import torch

    from scmamba_scvi import SCMAMBA
    from scmamba_scvi.config import TrainConfig
    from scmamba_scvi.data import simulate_multiome
    from scmamba_scvi.model.training.plan import ContrastivePlan

    n_cells, n_genes, n_peaks = shape
    mdata = simulate_multiome(n_cells=n_cells, n_genes=n_genes, n_peaks=n_peaks, seed=0)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, preset=preset)
    model._initialize(np.arange(n_cells), np.arange(0))
    dataset = model.adata_manager.create_torch_dataset()
    batch = dataset[list(range(batch_size))]
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
            model._embed_minibatch(batch, kinds, jointly=True)

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
    from harness.matmul_ratio import measure

    found: dict[str, object] = {"batch_size": batch_size, **machine(), "steps": []}
    for preset, (name, shape) in itertools.product(("small", "base"), SHAPES.items()):
        step, embed, dataset = training_step(shape, preset, batch_size if preset == "small" else BASE_BATCH)
        row = {"shape": name, "preset": preset, "batch_size": batch_size if preset == "small" else BASE_BATCH}
        for what, call in (("step", step), ("embed", embed)):
            cost = measure(call, rounds=25 if preset == "small" else 3, warmup=5 if preset == "small" else 1)
            row |= {
                f"{what}_ms": round(cost.step_s * 1e3, 1), f"{what}_matmul_ms": round(cost.matmul_s * 1e3, 1),
                f"{what}_ratio": round(cost.ratio, 2), f"{what}_cells_per_s": round(row["batch_size"] / cost.step_s),
            }  # fmt: skip
        row["loader_ms"] = round(measure_loader(dataset, batch_size), 2)
        print(row, flush=True)
        found["steps"].append(row)
    return found


# -- memory ----------------------------------------------------------------------------------------------------------


def _train(mdata, batch_size: int, **arguments: object):
    from scmamba_scvi import SCMAMBA

    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, preset="small")
    model.train(max_epochs=1, batch_size=batch_size, enable_progress_bar=False, accelerator="cpu", **arguments)
    return model


def _of_network(path: str, batch_size: int) -> int:
    """Bytes that a network of this size takes by itself: the same training on two minibatches of the same data."""
    import mudata

    warnings.simplefilter("ignore")
    few = mudata.read_h5mu(path)
    _warm_up()
    with PeakRSS() as memory:
        _train(few, batch_size, limit_train_batches=2, limit_val_batches=1)
    return memory.raised


def _of_everything(path: str, batch_size: int) -> dict[str, int]:
    """Bytes of the whole MuData, and those that its setup, training and embedding add."""
    import mudata

    warnings.simplefilter("ignore")
    _warm_up()
    mdata = mudata.read_h5mu(path)
    size = sum(v.X.data.nbytes + v.X.indices.nbytes + v.X.indptr.nbytes for v in mdata.mod.values())
    with PeakRSS() as memory:
        model = _train(mdata, batch_size)
        model.get_latent_representation()
    return {"mudata": size, "raised": memory.raised}


def _warm_up() -> None:
    """Import and run everything once on a handful of cells, so that no library's own memory is counted."""
    from scmamba_scvi.data import simulate_multiome

    _train(simulate_multiome(n_cells=100, n_genes=60, n_peaks=100, n_cell_types=2), 20).get_latent_representation()


def measure_memory(batch_size: int = 512) -> dict[str, object]:
    """Peak memory of a run, less what the network takes by itself, as a fraction of the MuData."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        whole, few = f"{folder}/whole.h5mu", f"{folder}/few.h5mu"
        in_process(_simulate, whole, few, batch_size)
        network = in_process(_of_network, few, batch_size)
        run = in_process(_of_everything, whole, batch_size)
    beyond = run["raised"] - network
    found = {
        "cells_genes_peaks": ATLAS, "batch_size": batch_size, "mudata_mb": round(run["mudata"] / MB),
        "raised_mb": round(run["raised"] / MB), "network_alone_mb": round(network / MB), "beyond_mb": round(beyond / MB),
        "share_of_mudata": round(beyond / run["mudata"], 3), **machine(),
    }  # fmt: skip
    print(f"MuData {found['mudata_mb']} MB; the run raises memory by {found['raised_mb']} MB, of which the network, its optimizer "
          f"and activations take {found['network_alone_mb']} MB; the rest is {found['share_of_mudata']:.1%} of the MuData")  # fmt: skip
    return found


def _simulate(whole: str, few: str, batch_size: int) -> None:
    from scmamba_scvi.data import simulate_multiome

    mdata = simulate_multiome(n_cells=ATLAS[0], n_genes=ATLAS[1], n_peaks=ATLAS[2], seed=0)
    mdata.write_h5mu(whole)
    mdata[: 3 * batch_size].copy().write_h5mu(few)


# -- beside other programs -------------------------------------------------------------------------------------------


def _mean_step(batch_size: int, rounds: int = 20) -> dict[str, float]:
    """Milliseconds of a step of ``small``, by the clock and of all threads together; in a process of its own."""
    import torch

    warnings.simplefilter("ignore")
    step, *_ = training_step(SHAPES[BUSY_SHAPE], "small", batch_size)
    for _ in range(3):
        step()
    clock, cpu = time.perf_counter(), time.process_time()
    for _ in range(rounds):
        step()
    ms = {"ms": time.perf_counter() - clock, "cpu_ms": time.process_time() - cpu}
    return {"threads": torch.get_num_threads(), **{key: round(s / rounds * 1e3, 1) for key, s in ms.items()}}


@contextlib.contextmanager
def _others(n: int) -> Iterator[None]:
    """Within the block, ``n`` programs compute without a pause."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def measure_busy(batch_size: int = 512) -> dict[str, object]:
    """A step, alone and beside as many busy programs as there are cores, by what is set before Python starts."""
    found: dict[str, object] = {"batch_size": batch_size, "shape": BUSY_SHAPE, **machine(), "rows": []}
    for n_others, setting in itertools.product(
        (0, found["cores"]), ({}, {"OMP_WAIT_POLICY": "PASSIVE"}, {"OMP_NUM_THREADS": "1"})
    ):
        with mock.patch.dict(os.environ, setting), _others(n_others):
            cost = in_process(_mean_step, batch_size)
        row = {"others": n_others, "set": "=".join(*setting.items()) if setting else "nothing", **cost}
        print(row, flush=True)
        found["rows"].append(row)
    return found


# -- on a GPU --------------------------------------------------------------------------------------------------------


def measure_gpu(tiny: bool) -> None:
    """Print each row as soon as it is known, and keep it: a run that is ended has what it measured so far."""
    from harness.gpu_steps import FEATURES, N_CELLS, measure

    rows: list[dict[str, object]] = []

    def report(row: dict[str, object]) -> None:
        rows.append(row)
        print(" ".join(f"{key}={value}" for key, value in row.items() if value is not None), flush=True)
        if not tiny:
            write_json(RESULTS / "gpu.json", {**machine(), "batch_size": N_CELLS, "features": FEATURES, "rows": rows})

    measure(tiny=tiny, report=report)


def main() -> None:
    parser = command.parser(__doc__, page="docs/performance.md")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--busy", action="store_true", help="time steps while other programs compute")
    parser.add_argument("--gpu", action="store_true", help="time whole steps with each kernel switched off in turn")
    parser.add_argument("--profile", action="store_true", help="print which kernels these steps spend their time in")
    parser.add_argument(
        "--tiny", action="store_true", help="with --gpu or --profile: a rehearsal with tiny sizes, nothing is kept"
    )
    parser.add_argument("--batch-size", type=int, default=512, help="cells of a minibatch, except where they are fixed")
    arguments = parser.parse_args()
    import torch

    command.hide_warnings()
    if (arguments.gpu or arguments.profile) and not (arguments.tiny or torch.cuda.is_available()):
        parser.error("--gpu and --profile want a GPU; --tiny rehearses them without one")  # 24 GB are too few for them
    if arguments.profile:
        from harness.gpu_steps import print_profile

        return print_profile(tiny=arguments.tiny)
    if arguments.gpu:
        measure_gpu(arguments.tiny)
        if arguments.tiny:
            return
    elif arguments.memory:
        write_json(RESULTS / "memory.json", measure_memory(arguments.batch_size))
    elif arguments.busy:
        write_json(RESULTS / "busy.json", measure_busy(arguments.batch_size))
    elif not arguments.page:
        write_json(RESULTS / "speed.json", measure_speed(arguments.batch_size))
    write_page()


if __name__ == "__main__":
    main()
