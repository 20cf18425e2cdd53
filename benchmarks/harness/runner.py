"""One fit, one process: its peak memory is its own, and one that fails takes no other with it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from scmamba_scvi._files import atomic_write

from .methods import Embeddings, Method
from .paths import ROOT
from .process import MB, ProcessEndedError, in_process, peak_rss
from .scores import score, score_all
from .sets import DataSet, Task, Truth, all_cells, split

#: Embeddings, so that scores can be taken again without fitting; not tracked.
CACHE = ROOT / "benchmarks" / ".cache"
VERSIONS = (
    "scmamba-scvi", "scvi-tools", "torch", "scanpy", "anndata", "numpy", "scikit-learn", "scglue", "harmonypy", "muon",
    "mofapy2", "snapatac2", "scanorama", "scalex", "scib-metrics",
)  # fmt: skip
#: Lines that agree in these are results of the same thing: the newer one replaces the older.
IDENTITY = ("method", "set", "seed")


@dataclasses.dataclass(frozen=True)
class Track:
    """Which cells a method is given, and what of them is scored."""

    split: Callable[[DataSet], tuple[Task, Truth]]
    score: Callable[[Embeddings, Truth], dict[str, float]]


HELD_OUT = Track(split, score)
ALL_CELLS = Track(all_cells, score_all)


def run(
    results: Path,
    datasets: Iterable[DataSet],
    registry: str,
    names: Iterable[str],
    seeds: Sequence[int] | None = None,
    *,
    again: bool = False,
    track: Track = HELD_OUT,
) -> None:
    """Fit, embed and score what ``results`` lacks, a JSON line each; ``again`` repeats what it has.

    ``registry`` is the module whose ``METHODS`` holds the methods ``names``, where the process of each fit looks them up.
    ``seeds`` are those of the fits; by default as many as each method declares.
    """
    methods = [_method(registry, name) for name in names]
    for dataset in datasets:
        reason = dataset.missing()
        if reason:
            print(f"{dataset.name}: skipped, {reason}", file=sys.stderr)
            continue
        task, truth = track.split(dataset)
        for method in methods:
            reason = method.missing(dataset, task.keys)
            if reason:
                keep(results, {"method": method.name, "set": dataset.name, "seed": None, "skipped": reason})
                continue
            for seed in seeds or range(method.n_seeds):
                done = {tuple(r[k] for k in IDENTITY) for r in read(results) if "scores" in r}
                if (method.name, dataset.name, seed) in done and not again:
                    continue
                fit, path = _fit_in_a_process(dataset, registry, method.name, seed, CACHE / results.stem, track)
                if path is not None:
                    fit["scores"] = track.score(_load(path), truth)
                keep(results, {"method": method.name, "set": dataset.name, "seed": seed, **fit})


def rescore(results: Path, datasets: Iterable[DataSet], *, track: Track = HELD_OUT) -> None:
    """Take the scores of kept embeddings again, after a change of the scores."""
    for dataset in datasets:
        lines = list(kept_embeddings(results, dataset.name))
        if not lines or dataset.missing():
            continue
        _, truth = track.split(dataset)
        for line, embeddings in lines:
            keep(results, {**line, "scores": track.score(embeddings, truth)})


def kept_embeddings(results: Path, name: str) -> Iterator[tuple[dict, Embeddings]]:
    """Lines of the set ``name`` and what their fits made of the cells; a line whose embeddings are gone is named."""
    for line in read(results):
        if line["set"] != name or "scores" not in line:
            continue
        path = _path(CACHE / results.stem, name, line["method"], line["seed"])
        if path.exists():
            yield line, _load(path)
        else:
            print(f"{name}, {line['method']}: its embedding is not there; fit it with --again", file=sys.stderr)


def read(results: Path) -> list[dict]:
    """Every line."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def keep(results: Path, result: dict, identity: Sequence[str] = IDENTITY) -> None:
    """Write a line in place of an older one that agrees in ``identity``, and print it."""
    kept = [r for r in read(results) if any(r[k] != result[k] for k in identity)]
    with atomic_write(results) as file:  # a run that is ended loses no line
        file.write_text("".join(json.dumps(r) + "\n" for r in [*kept, result]))
    shown = result.get("scores") or {k: result[k] for k in ("skipped", "failed") if k in result}
    shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in shown.items()}
    seconds = f" ({result['fit_s']:.0f} s)" if "fit_s" in result else ""
    print(f"{', '.join(f'{k} {result[k]}' for k in identity)}{seconds}: {shown}", flush=True)


def _method(registry: str, name: str) -> Method:
    return importlib.import_module(registry).METHODS[name]


def _load(path: Path) -> Embeddings:
    with np.load(path) as arrays:
        return {name: (arrays[f"{name}|0"], arrays[f"{name}|1"]) for name in json.loads(str(arrays["names"]))}


def _fit_in_a_process(
    dataset: DataSet, registry: str, name: str, seed: int, folder: Path, track: Track
) -> tuple[dict, Path | None]:
    path = _path(folder, dataset.name, name, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        fit = in_process(_fit, dataset, registry, name, seed, path, track)
    except ProcessEndedError as error:
        fit = {"failed": str(error)}
    return fit, None if "failed" in fit else path


def _fit(dataset: DataSet, registry: str, name: str, seed: int, path: Path, track: Track) -> dict[str, object]:
    """Fit, embed and write the embeddings to ``path``: what it took, or why it failed."""
    warnings.simplefilter("ignore")
    try:
        task, _ = track.split(dataset)
        before = peak_rss() / MB
        begun, cpu_begun = time.perf_counter(), time.process_time()
        fitted = _method(registry, name).fit(task, seed)
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu_begun
    except Exception as error:  # noqa: BLE001 - one method's fault must not end the others' runs; it is kept and shown
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"[:300], "machine": machine()}
    arrays = {f"{name}|{i}": part for name, parts in fitted.embeddings.items() for i, part in enumerate(parts)}
    np.savez(path, names=json.dumps(list(fitted.embeddings)), **arrays)
    return {
        "fit_s": round(seconds, 2), "fit_cpu_s": round(cpu_seconds, 2), "peak_mb": round(peak_rss() / MB), "data_mb": round(before),
        "cells": task.train.n_obs, "notes": fitted.notes, "machine": machine(),
    }  # fmt: skip


# performance_page.py has another one: the stored results of times have its keys, those of fits have these
def machine() -> dict[str, object]:
    """What a fit depends on beside the code."""
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


def _path(folder: Path, dataset: str, method: str, seed: int) -> Path:
    readable = "".join(c if c.isalnum() else "_" for c in method)
    return folder / dataset / f"{readable}_{seed}.npz"
