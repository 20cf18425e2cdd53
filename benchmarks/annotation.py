"""Cell types of held-out cells: `predict` beside k-NN and logistic regression on principal components.

One of the regressions is tuned as `predict` is: each modality is scaled as a whole, cells are weighted by one over the root of
the frequency of their label, and the penalty is chosen among the labelled cells. The others have scikit-learn's penalty.

    python benchmarks/annotation.py
    python benchmarks/annotation.py --sets bmmc_cite_starter --seeds 0

The labels of four fifths of the cells are used to name the rest; on bone marrow also those of one batch, or of some donors,
to name the others, as in held_out_batches.py. Labels with a single cell, or that mean "not known", are left out on both sides. Macro averages. Writes benchmarks/results/annotation.json.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from harness.after import fitted, fitted_set, get_set, parser, run
from harness.methods.linear import components
from harness.sets import DataSet, Task, kinds_of

if TYPE_CHECKING:
    from mudata import MuData
    from sklearn.model_selection import GridSearchCV

    from scmamba_scvi import SCMAMBA

#: Columns of finer labels than those of `harness.sets`, by set.
LABELS = {"snareseq_mouse_cortex": "cell_type_fine"}
#: Sets in which one batch also labels the others; those with `new_donors` have these named by the other donors.
BY_BATCH = frozenset({"bmmc_cite_starter"})
#: Inverse strengths of the penalty that the tuned regression may choose, on components of mean variance 1.
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 1.0)


def by_batch(dataset: DataSet) -> tuple[MuData, MuData]:
    """Cells whose labels are known, and those to name: the first batch and the others, or old donors and new ones."""
    whole = dataset.load()
    batches = whole.obs[dataset.batch_key]
    known = (~batches.isin(dataset.new_donors) if dataset.new_donors else batches == batches.iloc[0]).to_numpy()
    return whole[known].copy(), whole[~known].copy()


def baselines(task: Task, labels: np.ndarray, known: np.ndarray, asked: np.ndarray) -> dict[str, np.ndarray]:
    """Labels of the cells ``asked``, by methods fitted on those ``known``."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    parts = {kind: components(task, kind, seed=0) for kind in task.keys}
    scaled = {kind: tuple(x / train.std(0) for x in (train, test)) for kind, (train, test) in parts.items()}
    both = tuple(np.hstack(x) for x in zip(*scaled.values(), strict=True))
    (train, test), balanced = parts["rna"], {"class_weight": "balanced"}
    found = {"15-NN on RNA PCA": KNeighborsClassifier(15).fit(train[known], labels[known]).predict(test[asked])}
    for name, (x, x_test), options in (
        ("RNA PCA", scaled["rna"], {}),
        ("RNA PCA, balanced", scaled["rna"], balanced),
        ("components of both", both, {}),
        ("components of both, balanced", both, balanced),
    ):
        regression = LogisticRegression(max_iter=1000, **options).fit(x[known], labels[known])
        found[f"logistic regression on {name}"] = regression.predict(x_test[asked])
    wholes = [tuple(x / train.std() for x in (train, test)) for train, test in parts.values()]
    x, x_test = (np.hstack(x) for x in zip(*wholes, strict=True))
    found["logistic regression on components of both, tuned"] = tuned(x[known], labels[known]).predict(x_test[asked])
    return found


def tuned(x: np.ndarray, labels: np.ndarray) -> GridSearchCV:
    """A logistic regression with the penalty that names most of the ``labels`` held out of it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": PENALTIES}, cv=3)
    return search.fit(x, labels, sample_weight=np.sqrt(len(codes) / counts[codes]))


def scores(dataset: DataSet, model: SCMAMBA, train: MuData, test: MuData) -> dict[str, object]:
    """Every method on the labels of ``test`` that at least two cells of ``train`` have."""
    from sklearn.metrics import accuracy_score, f1_score

    labels_key = LABELS.get(dataset.name, dataset.labels_key)
    labels, truth = (m.obs[labels_key].astype(str).to_numpy() for m in (train, test))
    names, counts = np.unique(labels, return_counts=True)
    usable = set(names[counts > 1]) - set(dataset.ignored_labels)
    known, asked = (np.array([label in usable for label in of_half]) for of_half in (labels, truth))
    found = baselines(Task(train, test, kinds_of(train), dataset.batch_key), labels, known, asked)
    train.obs["label"] = np.where(known, labels, "Unknown")
    model.train_classifier(labels_key="label")
    for modality in (None, *model.kinds):
        name = "predict" if modality is None else f"predict, {modality} alone"
        found[name] = model.predict(test, indices=asked, modality=modality)
    if dataset.batch_key is not None and not test.obs[dataset.batch_key].isin(train.obs[dataset.batch_key]).all():
        found["predict, cells loaded as a query"] = type(model).load_query_data(test, model).predict(indices=asked)
    p = model.predict(test, indices=asked, soft=True)
    sure = (p.max(axis=1) >= 0.9).to_numpy()
    return {
        "cells": int(asked.sum()), "labels": len(usable),
        "scores": {
            name: {"accuracy": accuracy_score(truth[asked], of), "f1": f1_score(truth[asked], of, average="macro")}
            for name, of in found.items()
        },
        "mean probability": float(p.max(axis=1).mean()),
        "threshold 0.9": {"named": float(sure.mean()), "accuracy": float((found["predict"] == truth[asked])[sure].mean())},
    }  # fmt: skip


def measure(name: str, seed: int) -> dict[str, object]:
    dataset = get_set(name)
    out: dict[str, object] = {"held-out fifth": scores(dataset, *fitted_set(name, seed))}
    if name in BY_BATCH or dataset.new_donors:
        train, test = by_batch(dataset)
        out["new donors" if dataset.new_donors else "one batch labels the other"] = scores(
            dataset, fitted(dataset, train, seed), train, test
        )
    return out


def main(argv: list[str] | None = None) -> None:
    run("annotation", measure, parser(__doc__).parse_args(argv))


if __name__ == "__main__":
    main()
