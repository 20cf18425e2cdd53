"""The other modality of held-out cells from their RNA alone: correlation with the truth, beside k-NN on RNA's components.

    python benchmarks/imputation.py
    python benchmarks/imputation.py --sets bmmc_cite_starter --seeds 0

Per feature the Pearson correlation over cells, mean over features: all proteins, or the 1,000 peaks seen in most held-out
cells. Writes benchmarks/results/imputation.json.
"""

from __future__ import annotations

import numpy as np
from harness.after import fitted_set, get_set, parser, run
from harness.methods.linear import components, values
from harness.sets import Task, kinds_of

N_PEAKS, NEIGHBORS = 1_000, (15, 50)


def mean_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of each column of ``a`` and ``b``, mean over columns; 0 where a column is constant."""
    a, b = a - a.mean(0), b - b.mean(0)
    size = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return float(np.where(size > 0, (a * b).sum(0) / np.where(size > 0, size, 1), 0).mean())


def truth(task: Task, kind: str, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of training and of held-out cells: centred log-ratio of protein, presence of peaks."""
    if kind == "protein":
        return tuple(x[:, features] for x in values(task, kind))
    return tuple((m[task.keys[kind]].X[:, features] > 0).toarray().astype(float) for m in (task.train, task.test))


def measure(name: str, seed: int) -> dict[str, object]:
    dataset = get_set(name)
    model, train, test = fitted_set(name, seed)
    task = Task(train, test, kinds_of(train), dataset.batch_key)
    kind = next(k for k in task.keys if k != "rna")
    seen = np.asarray((test[task.keys[kind]].X > 0).sum(0)).ravel()
    features = np.arange(len(seen)) if kind == "protein" else np.sort(np.argsort(-seen, kind="stable")[:N_PEAKS])
    known, true = truth(task, kind, features)
    own, asked = components(task, "rna", seed=0)
    distance = (own**2).sum(1) - 2 * asked @ own.T
    order = np.argsort(distance, axis=1)[:, : max(NEIGHBORS)]
    names = list(train[task.keys[kind]].var_names[features])
    out: dict[str, object] = {"modality": kind, "features": len(features), "cells": test.n_obs}
    for k in NEIGHBORS:
        found = model.impute(test[task.keys["rna"]], modality=kind, features=names, k=k).X
        found = found if isinstance(found, np.ndarray) else found.toarray()
        out[f"k={k}"] = {
            "impute": mean_correlation(found, true),
            "k-NN on RNA PCA": mean_correlation(known[order[:, :k]].mean(1), true),
        }
    return out


def main(argv: list[str] | None = None) -> None:
    run("imputation", measure, parser(__doc__).parse_args(argv))


if __name__ == "__main__":
    main()
