"""How well swapped pairs are found by the agreement of their modalities: 5 % of held-out cells, and of training cells.

    python benchmarks/agreement.py
    python benchmarks/agreement.py --sets snareseq_mouse_cortex --seeds 0

The second modality of the chosen cells is passed on in a ring, before training, in both halves of a set. AUROC over all
cells; a swap between two cells of one state cannot be seen by anyone. Writes benchmarks/results/agreement.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from harness.after import fitted, get_set, parser, run
from harness.sets import kinds_of, train_and_test

if TYPE_CHECKING:
    from mudata import MuData

SHARE = 0.05


def swap(mdata: MuData, seed: Sequence[int]) -> np.ndarray:
    """Swap in place; which cells."""
    kinds = kinds_of(mdata)
    key = next(key for kind, key in kinds.items() if kind != "rna")
    cells = np.random.default_rng(seed).choice(mdata.n_obs, round(SHARE * mdata.n_obs), replace=False)
    rows = np.arange(mdata.n_obs)
    rows[cells] = np.roll(cells, 1)
    mdata[key].X = mdata[key].X[rows]
    return np.isin(np.arange(mdata.n_obs), cells)


def measure(name: str, seed: int) -> dict[str, object]:
    from sklearn.metrics import roc_auc_score

    dataset = get_set(name)
    parts = train_and_test(dataset)
    swapped = [swap(mdata, (seed, half)) for half, mdata in enumerate(parts)]
    model = fitted(dataset, parts[0], seed)
    out = {}
    for half, mdata, truth in zip(("training", "held out"), parts, swapped, strict=True):
        found = model.get_modality_agreement(mdata)
        out[half] = {"cells": mdata.n_obs, "swapped": int(truth.sum())} | {
            f"AUROC of {column}": float(roc_auc_score(truth, -found[column])) for column in found
        }
    return out


def main(argv: list[str] | None = None) -> None:
    run("agreement", measure, parser(__doc__).parse_args(argv))


if __name__ == "__main__":
    main()
