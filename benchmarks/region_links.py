"""Links of peaks with genes: true ones on a simulated set, near pairs against far ones on real cells, beside simpler scores.

    python benchmarks/region_links.py
    python benchmarks/region_links.py --sets multiome_weak_batches --encoder mamba

Beside the z and correlation of get_region_links stand the correlation of log counts over cells, and the cosine of the
features' weights in the linear branch of the network. On simulated sets: AUROC of true links among all pairs of the window,
for all genes and for markers of a type. Everywhere: mean z and fraction of pairs with p < 0.01 by distance, AUROC of pairs
nearer than 2 kb against pairs farther than 100 kb, for lack of a truth. By default the linear branch of the network alone is
fitted, in a minute: the whole network changes no AUROC by more than 0.01. Writes benchmarks/results/region_links.json.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from harness import command
from harness.after import fitted, get_set, keep
from harness.runner import machine
from scipy import sparse
from sklearn.metrics import roc_auc_score

NAMES = ("multiome_weak_batches", "snareseq_mouse_cortex")
#: Edges of the bins of distance, in bases.
EDGES = (0, 2_000, 10_000, 50_000, 100_000, 250_001)
#: Bases within which a pair is near and beyond which it is far; the p below which a link is counted.
NEAR, FAR, SURE = 2_000, 100_000, 0.01
#: Pairs whose counts are multiplied at a time.
PAIRS = 4_000
SEED = 0


def log_counts(x: sparse.spmatrix) -> sparse.csc_matrix:
    """Counts scaled to the median cell, and log1p."""
    depth = np.asarray(x.sum(1)).ravel()
    return (sparse.diags(np.median(depth) / np.maximum(depth, 1)) @ x).log1p().tocsc()


def correlation(mdata, keys: dict[str, str], table: pd.DataFrame) -> np.ndarray:
    """Pearson's of the log counts of gene and peak over the cells, of each pair."""
    x, y = (log_counts(mdata[keys[kind]][mdata.obs_names].X) for kind in ("rna", "atac"))
    of_gene, of_peak = (
        mdata[keys[kind]].var_names.get_indexer(table[name]) for kind, name in (("rna", "gene"), ("atac", "peak"))
    )
    mean, spread = [], []
    for m in (x, y):
        mean.append(np.asarray(m.mean(0)).ravel())
        spread.append(np.sqrt(np.maximum(np.asarray(m.multiply(m).mean(0)).ravel() - mean[-1] ** 2, 0)))
    out = np.zeros(len(table))
    for first in range(0, len(table), PAIRS):
        a, b = of_gene[first : first + PAIRS], of_peak[first : first + PAIRS]
        together = np.asarray(x[:, a].multiply(y[:, b]).mean(0)).ravel()
        out[first : first + PAIRS] = (together - mean[0][a] * mean[1][b]) / np.maximum(
            spread[0][a] * spread[1][b], 1e-12
        )
    return out


def cosine_of_weights(model, table: pd.DataFrame) -> np.ndarray:
    """What the linear branch of the network has learned of gene and peak, without looking at cells again."""
    rows = []
    for kind, name in (("rna", "gene"), ("atac", "peak")):
        encoder = model.module.encoders[kind]
        weight = (encoder.embedding.weight @ encoder.linear_branch.weight.T).detach().cpu().numpy()  # (f, z)
        weight /= np.maximum(np.linalg.norm(weight, axis=1, keepdims=True), 1e-12)
        rows.append(weight[pd.Index(model.feature_names(kind)).get_indexer(table[name])])
    return (rows[0] * rows[1]).sum(1)


def by_distance(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    distance = table["distance"].abs()
    return {
        f"{first / 1000:g}-{(last - last % 10) / 1000:g} kb": {
            "pairs": int(len(part)), "correlation": float(part["correlation"].mean()), "z": float(part["z"].mean()),
            f"p < {SURE}": float((part["p"] < SURE).mean()), "q < 0.1": float((part["q"] < 0.1).mean()),
        }
        for first, last in zip(EDGES, EDGES[1:], strict=False)
        if len(part := table[(distance >= first) & (distance < last)])
    }  # fmt: skip


def measure(name: str, encoder: str) -> dict[str, object]:
    dataset = get_set(name)
    mdata = dataset.load()
    model = fitted(dataset, mdata, SEED, encoder=encoder)
    table = model.get_region_links().dropna()
    scores = {
        "z": table["z"], "correlation": table["correlation"], "cosine of weights": cosine_of_weights(model, table),
        "correlation of log counts": correlation(mdata, model.kinds, table),
    }  # fmt: skip
    distance = table["distance"].abs().to_numpy()
    ends = (distance < NEAR) | (distance > FAR)
    near = {how: float(roc_auc_score(distance[ends] < NEAR, np.asarray(s)[ends])) for how, s in scores.items()}
    out: dict[str, object] = {
        "cells": mdata.n_obs, "pairs": len(table), "q < 0.1": int((table["q"] < 0.1).sum()),
        f"AUROC, < {NEAR // 1000} kb against > {FAR // 1000} kb": near, "by distance": by_distance(table),
    }  # fmt: skip
    genes, peaks = (mdata[model.kinds[kind]].var for kind in ("rna", "atac"))
    if "linked_gene" in peaks:
        true = peaks["linked_gene"].reindex(table["peak"]).to_numpy() == table["gene"].to_numpy()
        marker = (genes["marker_of"] != "").reindex(table["gene"]).to_numpy()
        for which, part in (("all genes", np.ones(len(table), dtype=bool)), ("markers", marker)):
            out[f"AUROC of true links, {which}"] = {
                how: float(roc_auc_score(true[part], np.asarray(s)[part])) for how, s in scores.items()
            }
        out["true among q < 0.1"] = float(true[(table["q"] < 0.1).to_numpy()].mean())
        out["true among all pairs"] = float(true.mean())
    return out | {"seed": SEED, "machine": machine()}


def main(argv: list[str] | None = None) -> None:
    parser = command.parser(__doc__)
    command.add_sets(parser, NAMES)
    parser.add_argument(
        "--encoder", default="linear", choices=["linear", "mamba"], help="linear branch or whole network"
    )
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    for name in arguments.sets:
        keep("region_links", "sets", name, {arguments.encoder: measure(name, arguments.encoder)})


if __name__ == "__main__":
    main()
