"""Cells of new donors: their split, the scores of their cell types, and docs/benchmarks-new-donors.md."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from scipy import sparse

from . import tables
from .all_cells import OURS
from .methods import METHODS as HELD_OUT
from .methods import OWN_VARIANTS, Embeddings, Fitted, Limit, Method
from .methods.linear import values
from .runner import Track
from .scores import N_NEIGHBORS
from .sets import SETS, Task, Truth, new_donors, title_of

SHOWN = (
    "kNN: accuracy",
    "kNN: macro F1",
    "regression: accuracy",
    "regression: macro F1",
    "kNN from RNA alone: accuracy",
    "kNN from RNA alone: macro F1",
)


def expression(task: Task, seed: int) -> Fitted:
    """Log-normalised expression itself, genes standardised and clipped at 10, as CellTypist takes it."""
    from sklearn.preprocessing import StandardScaler

    train, test = (m.toarray() if sparse.issparse(m) else m for m in values(task, "rna"))
    scaler = StandardScaler().fit(train)
    return Fitted({"joint": tuple(scaler.transform(m).clip(max=10).astype(np.float32) for m in (train, test))})


def score(embeddings: Embeddings, truth: Truth) -> dict[str, float]:
    """Labels of the training cells name the others; those that only the others have count as wrong."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.preprocessing import StandardScaler

    of_train, of_test = truth.labels
    train, test = embeddings["joint"]
    scale = StandardScaler(with_std=train.shape[1] <= MANY).fit(train)
    regression = LogisticRegression(max_iter=500).fit(scale.transform(train), of_train)
    named = {"regression": regression.predict(scale.transform(test))}
    if train.shape[1] <= MANY:
        named["kNN"] = _votes(train, of_train, test)
    if "rna" in embeddings:  # what a cell of which RNA alone was measured is named
        named["kNN from RNA alone"] = _votes(embeddings["rna"][0], of_train, embeddings["rna"][1])
    found = {}
    for name, of in named.items():
        found[f"{name}: accuracy"] = float(accuracy_score(of_test, of))
        found[f"{name}: macro F1"] = float(
            f1_score(of_test, of, average="macro", labels=np.unique(of_test), zero_division=0)
        )
    return found


def _votes(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(N_NEIGHBORS).fit(train, labels).predict(test)


#: Embeddings of more dimensions are expression: scaled already, and too many for distances.
MANY = 500
TRACK = Track(new_donors, score)
SLOW = Limit(frozenset(), "many minutes of a CPU: of such methods MultiVI and totalVI alone")
SLOW_HERE = ("PairedSCGLUE", "GLUE", "scVI on gene activity", "SCALEX on gene activity")
METHODS: dict[str, Method] = {
    "logistic regression on expression": Method(
        "logistic regression on expression",
        "all genes, log-normalised and standardised, as in CellTypist",
        expression,
        n_seeds=1,
    ),
    **{name: m for name, m in HELD_OUT.items() if name not in OWN_VARIANTS or name in OURS},
    **{name: dataclasses.replace(HELD_OUT[name], limit=SLOW) for name in SLOW_HERE},
}


def section(results: pd.DataFrame) -> list[str]:
    """A table per set."""
    lines = [
        "Every method is fitted on the other donors, and cells of the new ones are named by the 15 nearest training cells or by a",
        "logistic regression on the embedding. In the last columns the new cells come with RNA alone, and the neighbours are those in the",
        "embedding of RNA that a method fitted on both.",
        "scGPT and CellPLM need weights that have to be downloaded: not run here. `predict` of this package has a page of its own,",
        "{doc}`after-integration-results`, and so has what a fit costs, {doc}`benchmarks-cost`.", "",
    ]  # fmt: skip
    for name, dataset in SETS.items():
        of_set = results[results["set"] == name]
        scored = of_set[of_set["fit_s"].notna()]
        if len(scored):
            n_cells = int(scored["cells"].iloc[0])
            lines += [
                f"## {title_of(name)}", "",
                f"New are the batches {', '.join(dataset.new_donors)}; {n_cells:,} cells are the reference.", "",
                tables.table(scored, SHOWN, {}), "", *tables.not_run(of_set, METHODS),
            ]  # fmt: skip
    return lines
