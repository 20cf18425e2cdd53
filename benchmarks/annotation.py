"""Cell types of held-out cells: `predict` beside k-NN and logistic regression on the principal components of RNA.

    python benchmarks/annotation.py
    python benchmarks/annotation.py --sets bmmc_cite_starter

Labels of four fifths of the cells name the rest; on bone marrow CITE-seq also one batch the other. Labels with a single
cell, or that mean "not known", are left out on both sides. Macro averages. Writes benchmarks/results/annotation.json.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from harness.after import fitted, fitted_halves, keep, of_set  # noqa: E402
from harness.methods.linear import components  # noqa: E402
from harness.sets import DataSet, Task, kinds_of  # noqa: E402
from speed import RESULTS  # noqa: E402

if TYPE_CHECKING:
    from mudata import MuData

    from scmamba_scvi import SCMAMBA

SETS = ("bmmc_cite_starter", "snareseq_mouse_cortex", "multiome_weak_batches", "citeseq_weak_batches")
#: Labels finer than those the set is scored by elsewhere.
LABELS = {"snareseq_mouse_cortex": "cell_type_fine"}


def by_batch(dataset: DataSet) -> tuple[MuData, MuData]:
    """The first batch, and the others."""
    whole = dataset.load()
    first = (whole.obs[dataset.batch_key] == whole.obs[dataset.batch_key].iloc[0]).to_numpy()
    return whole[first].copy(), whole[~first].copy()


def baselines(task: Task, labels: np.ndarray, known: np.ndarray, asked: np.ndarray) -> dict[str, np.ndarray]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    train, test = components(task, "rna", seed=0)
    scale = train.std(0)
    regressions = {
        f"logistic regression on RNA PCA{name}": LogisticRegression(max_iter=1000, class_weight=weight)
        .fit(train[known] / scale, labels[known])
        .predict(test[asked] / scale)
        for name, weight in (("", None), (", balanced", "balanced"))
    }
    votes = KNeighborsClassifier(15).fit(train[known], labels[known]).predict(test[asked])
    return {"15-NN on RNA PCA": votes, **regressions}


def of(dataset: DataSet, model: SCMAMBA, parts: tuple[MuData, MuData], label_key: str) -> dict[str, object]:
    from scmamba_scvi.metrics import annotation_scores

    train, test = parts
    labels, truth = (m.obs[label_key].astype(str).to_numpy() for m in parts)
    names, counts = np.unique(labels, return_counts=True)
    usable = set(names[counts > 1]) - set(dataset.ignored_labels)
    known, asked = (np.array([label in usable for label in of_half]) for of_half in (labels, truth))
    found = baselines(Task(train, test, kinds_of(train), dataset.batch_key), labels, known, asked)
    train.obs["label"] = np.where(known, labels, "Unknown")
    model.train_classifier("label")
    for modality in (None, *model.kinds):
        name = "predict" if modality is None else f"predict, {modality} alone"
        found[name] = model.predict(test, indices=asked, modality=modality)
    p = model.predict(test, indices=asked, soft=True)
    sure = (p.max(axis=1) >= 0.9).to_numpy()
    return {
        "cells": int(asked.sum()), "labels": len(usable),
        "scores": {name: annotation_scores(truth[asked], labels_found) for name, labels_found in found.items()},
        "mean probability": float(p.max(axis=1).mean()),
        "threshold 0.9": {"named": float(sure.mean()), "accuracy": float((found["predict"] == truth[asked])[sure].mean())},
    }  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=SETS)
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    path = RESULTS / "annotation.json"
    for name in arguments.sets:
        dataset = of_set(name)
        label_key = LABELS.get(name, dataset.label_key)
        model, *parts = fitted_halves(name)
        keep(path, "sets", name, of(dataset, model, parts, label_key))
        if name == "bmmc_cite_starter":
            parts = by_batch(dataset)
            found = of(dataset, fitted(dataset, parts[0]), parts, label_key)
            keep(path, "sets", f"{name}, one batch to the other", found)


if __name__ == "__main__":
    main()
