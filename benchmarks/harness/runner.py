"""One fit, one process: its peak memory is its own, and one that fails takes no other with it."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from .methods import Embeddings, Method
from .scores import score
from .sets import ROOT, DataSet, split

#: Embeddings, so that scores can be taken again without fitting; not tracked.
CACHE = ROOT / "benchmarks" / ".cache"
VERSIONS = (
    "scmamba-scvi", "scvi-tools", "torch", "scanpy", "anndata", "numpy", "scikit-learn", "scglue", "harmonypy",
)  # fmt: skip
#: What makes two lines results of the same thing; the newer one stays.
IDENTITY = ("method", "set", "seed")


def run(
    results: Path,
    datasets: Iterable[DataSet],
    registry: str,
    names: Iterable[str],
    seeds: int | None = None,
    *,
    again: bool = False,
) -> None:
    """Fit, embed and score what ``results`` lacks, a JSON line each; ``again`` repeats what it has.

    ``registry`` is the module whose ``METHODS`` holds the methods ``names``: a process of its own looks them up there.
    """
    methods = [_method(registry, name) for name in names]
    for dataset in datasets:
        reason = dataset.missing()
        if reason:
            print(f"{dataset.name}: skipped, {reason}", file=sys.stderr)
            continue
        task, truth = split(dataset)
        for method in methods:
            reason = method.missing(dataset, task.keys, task.train.n_obs)
            if reason:
                _keep(results, {"method": method.name, "set": dataset.name, "seed": None, "skipped": reason})
                continue
            for seed in range(min(method.n_seeds, seeds or method.n_seeds)):
                done = {tuple(r[k] for k in IDENTITY) for r in read(results) if "scores" in r}
                if (method.name, dataset.name, seed) in done and not again:
                    continue
                fit, path = _fit_in_a_process(dataset, registry, method.name, seed, CACHE / results.stem)
                if path is not None:
                    fit["scores"] = score(_load(path), truth)
                _keep(results, {"method": method.name, "set": dataset.name, "seed": seed, **fit})


def rescore(results: Path, datasets: Iterable[DataSet]) -> None:
    """Take the scores of kept embeddings again, after a change of the scores."""
    for dataset in datasets:
        lines = [r for r in read(results) if r["set"] == dataset.name and "scores" in r]
        if not lines or dataset.missing():
            continue
        _, truth = split(dataset)
        for line in lines:
            path = _path(CACHE / results.stem, line["set"], line["method"], line["seed"])
            if not path.exists():
                print(f"{dataset.name}, {line['method']}: its embedding is no longer there", file=sys.stderr)
                continue
            _keep(results, {**line, "scores": score(_load(path), truth)})


def read(results: Path) -> list[dict]:
    """Every line."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def _keep(results: Path, result: dict) -> None:
    """Write a line, over an older one of the same thing, and print it."""
    kept = [r for r in read(results) if any(r[k] != result[k] for k in IDENTITY)]
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text("".join(json.dumps(r) + "\n" for r in [*kept, result]))
    shown = result.get("scores") or {k: result[k] for k in ("skipped", "failed") if k in result}
    shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in shown.items()}
    seconds = f" ({result['fit_s']:.0f} s)" if "fit_s" in result else ""
    print(f"{result['set']}, {result['method']}, seed {result['seed']}{seconds}: {shown}", flush=True)


def _method(registry: str, name: str) -> Method:
    return importlib.import_module(registry).METHODS[name]


def _load(path: Path) -> Embeddings:
    with np.load(path) as arrays:
        return {name: (arrays[f"{name}|0"], arrays[f"{name}|1"]) for name in json.loads(str(arrays["names"]))}


def _fit_in_a_process(dataset: DataSet, registry: str, name: str, seed: int, folder: Path) -> tuple[dict, Path | None]:
    path = _path(folder, dataset.name, name, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_fit, args=(dataset, registry, name, seed, path, theirs))
    process.start()
    theirs.close()
    try:
        fit = ours.recv()
    except EOFError:
        process.join()
        fit = {"failed": f"the process ended with code {process.exitcode}"}
    process.join()
    return fit, None if "failed" in fit else path


def _fit(dataset: DataSet, registry: str, name: str, seed: int, path: Path, pipe) -> None:
    """In the child: fit, embed, write the embeddings, say what it took."""
    warnings.simplefilter("ignore")
    try:
        task, _ = split(dataset)
        before = _peak_mb()
        begun, of_processor = time.perf_counter(), time.process_time()
        fitted = _method(registry, name).fit(task, seed)
        seconds, of_processor = time.perf_counter() - begun, time.process_time() - of_processor
    except Exception as error:  # noqa: BLE001 - one method's fault must not end the others' runs; it is kept and shown
        traceback.print_exc()
        pipe.send({"failed": f"{type(error).__name__}: {error}"[:300], "machine": machine()})
        return
    arrays = {f"{name}|{i}": part for name, parts in fitted.embeddings.items() for i, part in enumerate(parts)}
    np.savez(path, names=json.dumps(list(fitted.embeddings)), **arrays)
    pipe.send(
        {
            "fit_s": round(seconds, 2), "fit_cpu_s": round(of_processor, 2), "peak_mb": round(_peak_mb()), "data_mb": round(before),
            "cells": task.train.n_obs, "notes": fitted.notes, "machine": machine(),
        }
    )  # fmt: skip


def machine() -> dict[str, object]:
    """What a number depends on beside the code."""
    import torch

    return {
        "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "python": platform.python_version(), "versions": dict(_versions()),
    }  # fmt: skip


def _versions() -> Iterable[tuple[str, str]]:
    for name in VERSIONS:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _peak_mb() -> float:
    """Highest memory of this process so far; Linux counts kilobytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def _path(folder: Path, dataset: str, method: str, seed: int) -> Path:
    readable = "".join(c if c.isalnum() else "_" for c in method)
    return folder / dataset / f"{readable}_{seed}.npz"
