"""What a user waits for on a GPU: whole calls, transfers included, and whether bf16 costs quality.

    python benchmarks/gpu_calls.py                       # on a machine with a CUDA device, about two minutes
    python benchmarks/gpu_calls.py --parts calls         # one part: calls, large or precision
    python benchmarks/gpu_calls.py --device cpu --tiny   # that the script runs, on random data of no size

Counts are random with 15 cell types, 29,095 genes and 107,194 peaks, of which a cell has 7 %; part "precision" reads
SNARE-seq. Writes benchmarks/results/gpu_calls.json after each measurement; `speed.py --page` makes the page of it. In its
row of the defaults, "parts" are seconds of what `train` does: those without a slash follow one another, and what they leave of
"train_s" is not timed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from unittest import mock

from harness import command
from harness.files import write_json
from harness.paths import RESULTS
from harness.performance_page import machine
from harness.process import in_process

#: Cells, genes and peaks of the whole calls, and of a step at the size of the fetal atlas (Domcke et al. 2020).
CALLS, LARGE = (10_000, 29_095, 107_194), (256, 36_601, 1_154_464)
TINY = (200, 300, 700)
#: Fraction of the features that a cell has.
DENSITY = {CALLS: 0.07, LARGE: 0.02, TINY: 0.1}
N_TYPES = 15
SEEDS = (0, 1, 2)
BATCH_SIZE = 512
#: Preset "paper" in a rehearsal: its block with attention is the third.
TINY_PAPER = {"n_layers": {"rna": 3, "atac": 3}, "d_model": 64, "d_mlp": 64}


def main(argv: list[str] | None = None) -> None:
    import scvi

    parser = command.parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal; writes nothing")
    arguments = parser.parse_args(argv)
    command.hide_warnings()
    scvi.settings.verbosity = logging.ERROR
    path = RESULTS / "gpu_calls.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    has_failed = False
    for part in arguments.parts:
        for measure in PARTS[part](arguments.device, arguments.tiny):
            try:
                found = measure()
            except Exception:  # noqa: BLE001 - one measurement's fault must not end the others
                traceback.print_exc()
                has_failed = True
                continue
            print(" ".join(f"{key}={value}" for key, value in found.items()), flush=True)
            if not arguments.tiny:
                rows = [row for row in rows if row["what"] != found["what"]] + [found]
                write_json(path, {**machine(), "rows": rows})
    if has_failed:
        sys.exit(1)


# -- parts: each yields functions that measure one row -----------------------------------------------------------------


def calls(device: str, tiny: bool):
    """A first step; `train` with the defaults; a step of a larger preset within `train`; embedding of all cells by the API."""
    import torch

    yield partial(first_step, device, tiny)
    mdata = random_multiome(TINY if tiny else CALLS, device)
    for measure in (defaults, paper_in_train):
        yield partial(measure, mdata, device, tiny)
        torch.cuda.empty_cache()
    for preset in ("small",) if tiny else ("base", "paper"):
        yield partial(embedding, mdata, preset, device)


def first_step(device: str, tiny: bool) -> dict[str, object]:
    """The first step of a process, which compiles its kernels."""
    with no_kernels_compiled():
        n_cells, first, second = in_process(first_two_steps, device, tiny)
    return {
        "what": "paper: first step of a process, caches empty", "cells": n_cells, "s": round(first, 2),
        "second_s": round(second, 3),
    }  # fmt: skip


def first_two_steps(device: str, tiny: bool) -> tuple[int, float, float]:
    from harness.gpu_steps import Work, setting

    _, n_cells, features = setting(tiny)
    work = Work("paper", n_cells, features, device, **(TINY_PAPER if tiny else {}))
    return n_cells, seconds(work.step), seconds(work.step)


def defaults(mdata, device: str, tiny: bool) -> dict[str, object]:
    """`train` with the defaults, from the call to the joint embedding, and what it spends its seconds on."""
    import numpy as np

    from scmamba_scvi import SCMAMBA
    from scmamba_scvi.metrics import foscttm

    accelerator, epochs = ("gpu", None) if device == "cuda" else ("cpu", 4)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata)
    with no_kernels_compiled():
        with timed_parts() as parts:
            trained = seconds(
                lambda: model.train(accelerator=accelerator, max_epochs=epochs, enable_progress_bar=False)
            )
        check_ended(model)
        # the first of a process also makes the memory that it takes grow
        embedded, again = (seconds(model.get_latent_representation) for _ in range(2))
    cells = np.arange(min(2_000, mdata.n_obs))
    score = foscttm(*(model.get_latent_representation(modality=kind, indices=cells) for kind in ("rna", "atac")))
    return {
        "what": "defaults: train() to the joint embedding", "cells": mdata.n_obs, "s": round(trained + embedded, 2),
        "train_s": round(trained, 2), "embed_s": round(embedded, 2), "embed_again_s": round(again, 2),
        "epochs": len(model.history["train_loss"]), "foscttm": round(float(np.mean(score)), 4),
        "parts": {name: round(s, 2) for name, s in parts.items()},
    }  # fmt: skip


def paper_in_train(mdata, device: str, tiny: bool) -> dict[str, object]:
    """Preset "paper" in two epochs of `train`: a step of the second, and the memory at the peak."""
    from lightning.pytorch.callbacks import Callback

    from scmamba_scvi import SCMAMBA

    class Clock(Callback):
        """Time of the steps of the last epoch after its first, with reading their minibatches."""

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.current_epoch + 1 == trainer.max_epochs and batch_idx in (0, trainer.num_training_batches - 1):
                ends.append(seconds_now())

        def on_train_epoch_start(self, trainer, pl_module):
            self.n_steps = trainer.num_training_batches - 1

    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, preset="paper", **(TINY_PAPER if tiny else {}))
    ends, clock, batch_size = [], Clock(), min(BATCH_SIZE, mdata.n_obs // 4)
    forget_peak(device)
    trained = seconds(
        lambda: model.train(
            max_epochs=2, batch_size=batch_size, early_stopping=False, accelerator="gpu" if device == "cuda" else "cpu",
            enable_progress_bar=False, callbacks=[clock], plan_kwargs={"max_validation_cells": mdata.n_obs // 20},
        )
    )  # fmt: skip
    check_ended(model)
    step = (ends[1] - ends[0]) / clock.n_steps
    return {
        "what": "paper: a step within train(), with reading its cells", "cells": batch_size, "s": round(step, 3),
        "cells_per_s": round(batch_size / step), "peak_gb": peak_gb(device), "steps": clock.n_steps,
        "train_s": round(trained, 2),
    }  # fmt: skip


def embedding(mdata, preset: str, device: str) -> dict[str, object]:
    """All cells by `get_latent_representation`."""
    import numpy as np

    model = untrained(mdata, preset, device)
    model.get_latent_representation(indices=np.arange(min(1_024, mdata.n_obs)))  # compiles
    first, took = (seconds(model.get_latent_representation) for _ in range(2))
    return {
        "what": f"{preset}: get_latent_representation", "cells": mdata.n_obs, "s": round(took, 2),
        "cells_per_s": round(mdata.n_obs / took), "first_s": round(first, 2),
    }  # fmt: skip


def large(device: str, tiny: bool):
    """A training step of the published network with 14 and 16 blocks on 1.15 million peaks."""
    yield partial(large_step, device, tiny)


def large_step(device: str, tiny: bool) -> dict[str, object]:
    import torch

    from scmamba_scvi.config import TrainConfig
    from scmamba_scvi.model.training.activations import set_checkpointing
    from scmamba_scvi.model.training.plan import ContrastivePlan

    n_cells = 8 if tiny else 64
    mdata = random_multiome(TINY if tiny else LARGE, device)
    forget_peak(device)
    model = untrained(mdata, "paper", device, **(TINY_PAPER if tiny else {"n_layers": {"rna": 14, "atac": 16}}))
    module = model.module.train()
    minibatch = model.adata_manager.create_torch_dataset()[list(range(n_cells))]
    minibatch = {name: tensor.to(device) for name, tensor in minibatch.items()}
    optimizer = torch.optim.AdamW(ContrastivePlan(module, config=TrainConfig())._parameter_groups(), fused=True)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = module(minibatch)[2].loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    with torch.autocast(device, torch.bfloat16):
        set_checkpointing(module, None, n_cells)
    first = seconds(step)
    took = sorted(seconds(step) for _ in range(5))[2]
    return {
        "what": "paper, 14 + 16 blocks, 1.15 million peaks: step", "cells": n_cells, "s": round(took, 3), "first_s": round(first, 1),
        "cells_per_s": round(n_cells / took), "peak_gb": peak_gb(device),
    }  # fmt: skip


def precision(device: str, tiny: bool):
    """SNARE-seq held out, trained and embedded in bf16 and in float32."""
    from harness.sets import SETS, split

    reason = SETS["snareseq_mouse_cortex"].missing()
    if reason:
        print(f"precision: skipped, {reason}", flush=True)
        return
    task, truth = split(dataclasses.replace(SETS["snareseq_mouse_cortex"], n_train=TINY[0] if tiny else None))
    for name in ("bf16-mixed", "32-true"):
        yield partial(scores_in, name, task, truth, device, tiny)


def scores_in(name: str, task, truth, device: str, tiny: bool) -> dict[str, object]:
    """Scores of the held-out cells, over some seeds, with this precision."""
    import statistics

    import scvi
    from harness.methods.ours import embeddings_of, network_kept
    from harness.scores import matching_and_votes

    from scmamba_scvi import SCMAMBA

    scores, took, with_network = [], [], 0
    for seed in SEEDS[:1] if tiny else SEEDS:
        scvi.settings.seed = seed
        SCMAMBA.setup_mudata(task.train, modalities=task.keys)
        model = SCMAMBA(task.train)
        options = {"accelerator": "gpu" if device == "cuda" else "cpu", "max_epochs": 2 if tiny else None}
        took.append(seconds(partial(model.train, precision=name, enable_progress_bar=False, **options)))
        check_ended(model)
        with_network += network_kept(model)
        scores.append(matching_and_votes(embeddings_of(model, task), truth))
    spread = statistics.stdev if len(scores) > 1 else lambda values: 0.0
    return {
        "what": f"SNARE-seq held out, {name}", "seeds": len(scores), "train_s": round(statistics.mean(took), 1),
        "network_kept": with_network,
        "scores": {k: [round(f([s[k] for s in scores]), 4) for f in (statistics.mean, spread)] for k in scores[0]},
    }  # fmt: skip


PARTS: dict[str, Callable] = {"calls": calls, "large": large, "precision": precision}


def untrained(mdata, preset: str, device: str, **options):
    """A model that can embed, with fitted value transforms and random weights, and gates that let the network through."""
    import numpy as np

    from scmamba_scvi import SCMAMBA
    from scmamba_scvi.model.fitting.initialization import fit_values

    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, preset=preset, **options)
    model.to_device(device)
    fit_values(model.module, model._matrices(), np.arange(mdata.n_obs), known_counts=True)
    model.is_initialized_ = model.is_trained_ = True
    model.precision_ = "bf16-mixed"
    for encoder in model.module.encoders.values():
        if encoder.gate is not None:
            encoder.gate.data.fill_(0.1)
    return model


@contextlib.contextmanager
def no_kernels_compiled() -> Iterator[None]:
    """Within the block triton finds none of the kernels that it has compiled for others."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"TRITON_CACHE_DIR": folder}):
        yield


def check_ended(model) -> None:
    """End the script too if Ctrl-C has ended the training, which keeps what it has and returns: its time would be too short."""
    if model.training_summary_["interrupted"]:
        raise KeyboardInterrupt


@contextlib.contextmanager
def timed_parts() -> Iterator[dict[str, float]]:
    """Seconds of what `train` does, filled while it runs.

    By the name of the function, which follows that of the function that it is part of: "stage full/compile_kernels".
    """
    from scmamba_scvi import SCMAMBA
    from scmamba_scvi.model.fitting import mixin
    from scmamba_scvi.model.inputs.manager import MultiModalManager
    from scmamba_scvi.model.training.plan import ContrastivePlan
    from scmamba_scvi.nn.sequence import SequenceNetwork

    found: dict[str, float] = {}
    within: list[str] = []

    def timed(name: str, function: Callable) -> Callable:
        def call(*args, **kwargs):
            # a stage by its own name: `_run_stage(model, run, stage, ...)`
            within.append(f"stage {args[2]}" if name == "_run_stage" else name)
            part, result = "/".join(within), []
            try:
                took = seconds(lambda: result.append(function(*args, **kwargs)))
            finally:
                within.pop()
            found[part] = found.get(part, 0.0) + took
            print(f"{part}: {found[part]:.2f} s", flush=True)
            return result[0]

        return call

    kept_on = MultiModalManager.kept_on

    @contextlib.contextmanager
    def timed_kept_on(*args):
        with contextlib.ExitStack() as stack:
            timed("kept_on", lambda: stack.enter_context(kept_on(*args)))()
            yield

    of_fitting = (
        "fit_values", "decompose", "initialize_linear_branch", "initialize_joint", "fit_joint", "embed_all", "fit_alignment",
        "calibrate",
    )  # fmt: skip
    of_model = (
        "_validate_anndata",
        "_size_and_split",
        "_initialize",
        "_run_stage",
        "_fit_joint_embedding",
        "_fit_to_validation",
    )
    owners = [
        (mixin, of_fitting), (SCMAMBA, of_model), (SequenceNetwork, ("compile_kernels", "record_graph")),
        (ContrastivePlan, ("on_validation_epoch_end",)),
    ]  # fmt: skip
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(MultiModalManager, "kept_on", timed_kept_on))
        for owner, names in owners:
            for name in names:
                patches.enter_context(mock.patch.object(owner, name, timed(name, getattr(owner, name))))
        yield found


def seconds(call: Callable[[], object]) -> float:
    """Seconds of the clock until the device is done."""
    begun = seconds_now()
    call()
    return seconds_now() - begun


def seconds_now() -> float:
    """The clock, when the device is done."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def forget_peak(device: str) -> None:
    """`peak_gb` is that of what follows."""
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gb(device: str) -> float:
    """Most memory that torch has had."""
    import torch

    return round(torch.cuda.max_memory_allocated() / 1e9, 1) if device == "cuda" else 0.0


def random_multiome(shape: tuple[int, int, int], device: str):
    """A MuData of random counts whose features are more or less frequent by cell type."""
    import anndata
    import mudata
    import pandas as pd
    import torch

    from scmamba_scvi._compat import without_pulling

    n_cells, n_genes, n_peaks = shape
    generator = torch.Generator(device).manual_seed(0)
    types = torch.randint(0, N_TYPES, (n_cells,), device=device, generator=generator)
    cells = pd.DataFrame({"cell_type": types.cpu().numpy().astype(str)}, index=[f"cell{i}" for i in range(n_cells)])
    names = {
        "rna": [f"gene{i}" for i in range(n_genes)],
        "atac": [f"chr{1 + i * 22 // n_peaks}:{1000 * i + 1}-{1000 * i + 500}" for i in range(n_peaks)],
    }
    modalities = {
        key: anndata.AnnData(
            _counts(types, len(features), DENSITY[shape], generator),
            obs=cells[[]].copy(),
            var=pd.DataFrame(index=features),
        )
        for key, features in names.items()
    }
    with without_pulling():
        mdata = mudata.MuData(modalities)
    mdata.obs["cell_type"] = cells["cell_type"]
    return mdata


def _counts(types, n_features: int, density: float, generator):
    import torch
    from scipy import sparse

    rate = density * torch.exp(0.7 * torch.randn(N_TYPES, n_features, generator=generator, device=types.device))
    blocks = []
    for some in types.split(500):
        counts = torch.rand(len(some), n_features, generator=generator, device=types.device) < rate[some]
        counts = counts * (1 + torch.rand(counts.shape, generator=generator, device=types.device).lt(0.3).int())
        part = counts.float().to_sparse_csr()
        arrays = (part.values(), part.col_indices().int(), part.crow_indices().int())
        blocks.append(sparse.csr_matrix(tuple(a.cpu().numpy() for a in arrays), shape=counts.shape))
    return sparse.vstack(blocks, format="csr")


if __name__ == "__main__":
    main()
