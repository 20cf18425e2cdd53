"""How time and memory of training and embedding grow with cells, with peaks and with patches.

    python benchmarks/scaling.py                       # measure, write results, figure and page
    python benchmarks/scaling.py --cells 1000 3000     # other sizes
    python benchmarks/scaling.py --page                # figure and page from the results that are there

Every size runs in a process of its own, on random sparse counts. On a CPU, time is what the process itself computes on one
thread (others may use the machine), memory its resident memory; on a GPU, seconds by the clock and memory of the device.
Results go to benchmarks/results/scaling.json, from there into docs/_static/scaling.png and docs/performance.md.
"""

from __future__ import annotations

import json
import os
import time
import warnings

from harness import command
from harness.files import write_json
from harness.paths import FIGURES, RESULTS
from harness.performance_page import machine, write_page
from harness.process import MB, PeakRSS, in_process

#: Features and the fraction of them that a cell has, about what 10x multiome shows.
FEATURES = {"rna": (10_000, 0.05), "atac": (50_000, 0.02)}
BATCH_SIZE, SEED = 512, 0
#: Cells, and on a GPU; patches of each modality, and peaks, at a fixed number of cells.
CELLS, CELLS_ON_GPU = (1_000, 3_000, 10_000, 30_000), (10_000, 30_000, 100_000, 300_000)
PATCHES, PATCHES_ON_GPU = (16, 32, 64, 128, 256), (64, 256, 1_024, 4_096)
PEAKS = (25_000, 100_000, 400_000, 1_154_464)
FEW_CELLS = 1_500
FIGURE = FIGURES / "scaling.png"


# -- one size, in a process of its own ------------------------------------------------------------------------------


def random_multiome(n_cells: int, n_peaks: int = FEATURES["atac"][0]):
    """Random counts: time and memory do not depend on what they mean."""
    import numpy as np
    from anndata import AnnData
    from mudata import MuData
    from scipy import sparse

    rng = np.random.default_rng(SEED)
    mods = {}
    for kind, (n_features, density) in {**FEATURES, "atac": (n_peaks, FEATURES["atac"][1])}.items():
        per_cell = int(n_features * density)
        # a column may be drawn twice: its counts are then added
        x = sparse.csr_matrix(
            (np.ones(n_cells * per_cell, dtype=np.float32), rng.integers(n_features, size=n_cells * per_cell, dtype=np.int32),
             np.arange(n_cells + 1, dtype=np.int32) * per_cell), shape=(n_cells, n_features),
        )  # fmt: skip
        x.sum_duplicates()
        mods[kind] = AnnData(x)
        mods[kind].obs_names = [f"cell{i}" for i in range(n_cells)]
        mods[kind].var_names = [f"{kind}{i}" for i in range(n_features)]
    return MuData(mods)


def clock() -> float:
    """Seconds: by the clock, after the GPU has finished; without a GPU the CPU time of this process, as others may use the machine."""
    import torch

    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


class Peak(PeakRSS):
    """Peak memory that a block adds, of the device where there is one."""

    def __enter__(self) -> Peak:
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self._allocated = torch.cuda.memory_allocated()
        super().__enter__()
        return self

    @property
    def added_mb(self) -> int:
        import torch

        if torch.cuda.is_available():
            return round((torch.cuda.max_memory_allocated() - self._allocated) / MB)
        return round(self.raised / MB)


def measure_one(n_cells: int, n_peaks: int, options: dict) -> dict[str, float]:
    """Train for one epoch and embed: what it took."""
    import torch
    from lightning.pytorch.callbacks import Callback

    class Clock(Callback):
        """Time of the steps after the first, with reading their minibatches."""

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.first = getattr(self, "first", None) or clock()
            self.last, self.n_steps = clock(), batch_idx

    warnings.simplefilter("ignore")
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    torch.manual_seed(SEED)
    run(random_multiome(200), 50, [], options).get_latent_representation()  # what libraries keep is not counted
    mdata = random_multiome(n_cells, n_peaks)
    batch_size, steps = min(BATCH_SIZE, n_cells // 4), Clock()
    with Peak() as training:
        begun = clock()
        model = run(mdata, batch_size, [steps], options)
        total_s = clock() - begun
    with Peak() as embedding:
        begun = clock()
        model.get_latent_representation()
        embed_s = clock() - begun
    per_cell_s = (steps.last - steps.first) / (steps.n_steps * batch_size)
    return {
        "cells": n_cells, "peaks": n_peaks, "batch_size": batch_size, **options,
        "patches": sum(layout.n_patches for layout in model.layouts.values()),
        "data_mb": round(sum(m.X.data.nbytes + m.X.indices.nbytes + m.X.indptr.nbytes for m in mdata.mod.values()) / MB),
        "epoch_s": round(per_cell_s * n_cells, 3), "around_s": round(total_s - per_cell_s * n_cells, 3),
        "embed_s": round(embed_s, 3), "train_mb": training.added_mb, "embed_mb": embedding.added_mb,
    }  # fmt: skip


def run(mdata, batch_size: int, callbacks: list, options: dict):
    from scmamba_scvi import SCMAMBA

    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, preset="small", **options)
    model.train(
        max_epochs=1, batch_size=batch_size, early_stopping=False, enable_progress_bar=False, callbacks=callbacks,
        plan_kwargs={"linear_first": False, "max_validation_cells": 100},
    )  # fmt: skip
    return model


# -- all sizes ------------------------------------------------------------------------------------------------------


def measure(cells: list[int], peaks: list[int], patches: list[int]) -> dict[str, object]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    def sizes(arguments):
        for n_cells, n_peaks, options in arguments:
            row = in_process(measure_one, n_cells, n_peaks, options)
            print(row, flush=True)
            yield row

    usual = FEATURES["atac"][0]
    found = {
        "features": FEATURES, "seed": SEED, "preset": "small", **machine(),
        "cells": list(sizes((n, usual, {}) for n in cells)),
        "peaks": list(sizes((FEW_CELLS, n, {}) for n in peaks)),
        "patches": list(sizes((FEW_CELLS, usual, {"max_patches": n}) for n in patches)),
    }  # fmt: skip
    found["torch_threads"] = 1 if found["gpu"] is None else found["torch_threads"]
    found["slopes"] = {
        "cells": {key: slope(found["cells"], "cells", key) for key in ("epoch_s", "around_s", "embed_s", "train_mb")},
        "peaks": {key: slope(found["peaks"], "peaks", key) for key in ("epoch_s", "around_s", "embed_s", "train_mb")},
        "patches": {key: slope(found["patches"], "patches", key) for key in ("epoch_s", "embed_s", "train_mb")},
    }
    return found


def slope(rows: list[dict], x: str, y: str) -> float:
    """Exponent of the power of ``x`` that ``y`` follows, by least squares of the logarithms; 1 is linear."""
    import numpy as np

    return round(
        float(np.polyfit(np.log([row[x] for row in rows]), np.log([max(row[y], 1e-9) for row in rows]), 1)[0]), 2
    )


# -- figure --------------------------------------------------------------------------------------------------------


def draw(found: dict) -> None:
    from matplotlib.figure import Figure

    from scmamba_scvi.pl._palette import FEW

    figure = Figure(figsize=(10.5, 6.4), layout="constrained")
    (over_cells, memory), (over_peaks, over_patches) = figure.subplots(2, 2)
    _times(over_cells, found, "cells", ("epoch_s", "around_s", "embed_s"))
    _times(over_peaks, found, "peaks", ("epoch_s", "around_s", "embed_s"))
    _times(over_patches, found, "patches", ("epoch_s", "embed_s"))
    _line(memory, found["cells"], "cells", "data_mb", "the counts themselves, against cells", "0.6")
    _line(memory, found["cells"], "cells", "train_mb", "added by training, against cells", FEW[0])
    _line(memory, found["peaks"], "peaks", "train_mb", "added by training, against peaks", FEW[1])
    memory.set(xlabel="cells, or peaks", ylabel="MB", title="Memory")
    for axis in figure.axes:
        axis.set(xscale="log", yscale="log")
        axis.xaxis.set_minor_formatter("")  # the numbers of a short axis would overlap
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (high / low) ** 0.4)  # room for the legend
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8, loc="upper left")
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=120)


def _times(axis, found: dict, x: str, keys: tuple[str, ...]) -> None:
    from scmamba_scvi.pl._palette import FEW

    what = {"epoch_s": "one epoch", "around_s": "initialization and joint embedding", "embed_s": "embedding"}
    for color, (key, label) in zip(FEW, what.items(), strict=False):
        if key in keys:
            _line(axis, found[x], x, key, f"{label} (slope {found['slopes'][x][key]})", color)
    axis.set(xlabel=x, ylabel="seconds", title=f"Time against {x}")


def _line(axis, rows: list[dict], x: str, y: str, label: str, color: str) -> None:
    axis.plot([row[x] for row in rows], [row[y] for row in rows], "o-", ms=4, lw=1.5, color=color, label=label)


def main() -> None:
    import torch

    on_gpu = torch.cuda.is_available()
    parser = command.parser(__doc__, page="the figure and docs/performance.md")
    parser.add_argument("--cells", type=int, nargs="+", default=list(CELLS_ON_GPU if on_gpu else CELLS))
    parser.add_argument("--peaks", type=int, nargs="+", default=list(PEAKS))
    parser.add_argument("--patches", type=int, nargs="+", default=list(PATCHES_ON_GPU if on_gpu else PATCHES))
    arguments = parser.parse_args()
    results = RESULTS / "scaling.json"
    if not arguments.page:
        write_json(results, measure(arguments.cells, arguments.peaks, arguments.patches))
    draw(json.loads(results.read_text()))
    write_page()


if __name__ == "__main__":
    main()
