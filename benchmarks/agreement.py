"""How well swapped pairs are found by the agreement of their modalities: 5 % of held-out cells, and of training cells.

    python benchmarks/agreement.py
    python benchmarks/agreement.py --sets snareseq_mouse_cortex

The second modality of the chosen cells is passed on in a ring, before training, in both halves of a set. AUROC over all
cells; a swap between two cells of one state cannot be seen by anyone. Writes benchmarks/results/agreement.json.
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

from harness.after import fitted, halves, keep, of_set  # noqa: E402
from harness.sets import kinds_of  # noqa: E402
from speed import RESULTS  # noqa: E402

if TYPE_CHECKING:
    from mudata import MuData

SETS = ("snareseq_mouse_cortex", "bmmc_cite_starter", "multiome_weak_batches", "citeseq_weak_batches")
SHARE = 0.05


def swap(mdata: MuData, seed: int) -> np.ndarray:
    """Swap in place; which cells."""
    kinds = kinds_of(mdata)
    key = next(key for kind, key in kinds.items() if kind != "rna")
    cells = np.random.default_rng(seed).choice(mdata.n_obs, round(SHARE * mdata.n_obs), replace=False)
    rows = np.arange(mdata.n_obs)
    rows[cells] = np.roll(cells, 1)
    mdata[key].X = mdata[key].X[rows]
    return np.isin(np.arange(mdata.n_obs), cells)


def of(name: str) -> dict[str, object]:
    from sklearn.metrics import roc_auc_score

    dataset = of_set(name)
    parts = halves(dataset)
    swapped = [swap(mdata, seed) for seed, mdata in enumerate(parts)]
    model = fitted(dataset, parts[0])
    out = {}
    for half, mdata, truth in zip(("training", "held out"), parts, swapped, strict=True):
        found = model.get_modality_agreement(mdata)
        out[half] = {"cells": mdata.n_obs, "swapped": int(truth.sum())} | {
            f"AUROC of {column}": float(roc_auc_score(truth, -found[column])) for column in found
        }
    return out


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=SETS)
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    for name in arguments.sets:
        keep(RESULTS / "agreement.json", "sets", name, of(name))


if __name__ == "__main__":
    main()
