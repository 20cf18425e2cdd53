"""How well swapped pairs are found by the agreement of their modalities: 5 % of held-out cells, and of training cells.

    python benchmarks/agreement.py
    python benchmarks/agreement.py --sets snareseq_mouse_cortex --seeds 0

Before training, each of the chosen cells gets the second modality of another one, in both parts of a set. AUROC over all
cells; a swap between two cells of the same state leaves nothing to find. Writes benchmarks/results/agreement.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from harness.after import fitted, get_set, parser, run
from harness.sets import kinds_of, train_and_test

if TYPE_CHECKING:
    from mudata import MuData

#: Of the cells that are swapped.
FRACTION = 0.05


def swap(mdata: MuData, seed: Sequence[int]) -> np.ndarray:
    """Swap the second modality of some cells in place; True for these."""
    kinds = kinds_of(mdata)
    key = next(key for kind, key in kinds.items() if kind != "rna")
    cells = np.random.default_rng(seed).choice(mdata.n_obs, round(FRACTION * mdata.n_obs), replace=False)
    rows = np.arange(mdata.n_obs)
    rows[cells] = np.roll(cells, 1)
    mdata[key].X = mdata[key].X[rows]
    return np.isin(np.arange(mdata.n_obs), cells)


def measure(name: str, seed: int) -> dict[str, object]:
    from sklearn.metrics import roc_auc_score

    dataset = get_set(name)
    parts = train_and_test(dataset)
    swapped = [swap(mdata, (seed, part)) for part, mdata in enumerate(parts)]
    model = fitted(dataset, parts[0], seed)
    out = {}
    for part, mdata, truth in zip(("training", "held out"), parts, swapped, strict=True):
        found = model.get_modality_agreement(mdata)
        out[part] = {"cells": mdata.n_obs, "swapped": int(truth.sum())} | {
            f"AUROC of {column}": float(roc_auc_score(truth, -found[column])) for column in found
        }
    return out


def main(argv: list[str] | None = None) -> None:
    run("agreement", measure, parser(__doc__).parse_args(argv))


if __name__ == "__main__":
    main()
