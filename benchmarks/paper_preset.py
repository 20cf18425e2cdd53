"""What keeps the published shape from learning, and what each remedy is worth: `preset="paper"` with one thing changed.

    python benchmarks/paper_preset.py                            # the small version on a CPU, what is missing
    python benchmarks/paper_preset.py --size full --device cuda --epochs 20 --sets bmmc_cite_5k --variants "as published" preset
    python benchmarks/paper_preset.py --tiny                     # that the script runs, on a few cells; writes nothing
    python benchmarks/paper_preset.py --page                     # only write docs/paper-preset.md from the results

Writes benchmarks/results/paper_preset.jsonl and docs/paper-preset.md.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time

from harness import command, paper_page
from harness.methods.ours import embeddings_of
from harness.paper import RESULTS, SIZES, VARIANTS, Size
from harness.runner import keep, machine, read
from harness.scores import matching_and_votes
from harness.sets import SETS, Task, Truth, split

#: Lines that agree in these are results of the same thing.
IDENTITY = ("variant", "set", "size", "device", "seed")


def main(argv: list[str] | None = None) -> None:
    parser = command.parser(__doc__, page="docs/paper-preset.md")
    command.add_sets(parser, ["snareseq_mouse_cortex", "bmmc_multiome_5k", "bmmc_cite_5k"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="seeds of the fits")
    parser.add_argument("--size", choices=SIZES, default="small", help="a narrow version, or the preset as it is")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--epochs", type=int, help="of each fit; by default those of the size")
    parser.add_argument("--again", action="store_true", help="repeat what has a result")
    parser.add_argument(
        "--tiny", action="store_true", help="a rehearsal: the narrow version on a few cells; writes nothing"
    )
    arguments = parser.parse_args(argv)
    if arguments.tiny:
        return _rehearse(arguments)
    if not arguments.page:
        done = {tuple(line[key] for key in IDENTITY) for line in read(RESULTS)} if not arguments.again else set()
        for name in arguments.sets:
            _measure(name, arguments, done)
    paper_page.write_page()


def _measure(name: str, arguments, done: set[tuple]) -> None:
    """Every variant and seed of one set that is not ``done``, a line each."""
    reason = SETS[name].missing()
    if reason:
        print(f"{name}: skipped, {reason}", flush=True)
        return
    size = SIZES[arguments.size]
    task, truth = split(dataclasses.replace(SETS[name], n_train=size.n_train))
    for variant in arguments.variants:
        for seed in arguments.seeds:
            identity = (variant, name, arguments.size, arguments.device, seed)
            if identity in done:
                continue
            epochs = arguments.epochs or size.epochs
            found = fit(task, truth, variant, size, seed, arguments.device, epochs)
            keep(RESULTS, {**dict(zip(IDENTITY, identity, strict=True)), **found, "machine": machine()}, IDENTITY)


def _rehearse(arguments) -> None:
    """One epoch of each variant on a few cells of each set."""
    size = dataclasses.replace(SIZES["small"], n_train=300, batch_size=64)
    for name in arguments.sets:
        task, truth = split(dataclasses.replace(SETS[name], n_train=size.n_train))
        for variant in arguments.variants:
            print(name, variant, fit(task, truth, variant, size, 0, arguments.device, 1), flush=True)


def fit(task: Task, truth: Truth, variant: str, size: Size, seed: int, device: str, epochs: int) -> dict[str, object]:
    """Train for ``epochs`` epochs and score the held-out cells with the weights that `train` keeps."""
    import scvi

    from scmamba_scvi import SCMAMBA

    command.hide_warnings()
    scvi.settings.verbosity, scvi.settings.seed = logging.ERROR, seed
    SCMAMBA.setup_mudata(task.train, modalities=task.keys)
    model = SCMAMBA(task.train, **{"preset": "paper", **size.options, **VARIANTS[variant].options})
    begun = time.perf_counter()
    model.train(
        max_epochs=epochs, batch_size=size.batch_size, accelerator="gpu" if device == "cuda" else "cpu", devices=1,
        early_stopping=False, enable_progress_bar=False, plan_kwargs={**size.plan, **VARIANTS[variant].plan},
    )  # fmt: skip
    trained = time.perf_counter()
    if model.training_summary_["interrupted"]:  # by Ctrl-C, after which train keeps what it has and returns
        raise KeyboardInterrupt
    embeddings = embeddings_of(model, task)
    history = {
        name: [round(float(value), 4) for value in model.history[key].to_numpy().ravel()]
        for name, key in {"loss": "train_loss", "contrastive": "contrastive_train"}.items()
    }
    return {
        **history, "of chance": round(history["contrastive"][-1] / math.log(size.batch_size), 4), "epochs": epochs,
        "best epoch": model.training_summary_["best_epoch"], "validation FOSCTTM": round(model.training_summary_["best"], 4),
        "train_s": round(trained - begun, 2),
        "embed_s": round(time.perf_counter() - trained, 2), "cells": task.train.n_obs,
        "patches": {kind: layout.n_patches for kind, layout in model.layouts.items()},
        "scores": matching_and_votes(embeddings, truth),
    }  # fmt: skip


if __name__ == "__main__":
    main()
