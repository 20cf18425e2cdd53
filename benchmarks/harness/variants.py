"""Ablations: one thing of the default model or of its data changed at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import sparse

from .methods import Fitted, Method
from .methods.ours import scmamba
from .sets import Task

#: Without the linear branch and its initialization the network has to carry the embedding, so that changes in it can be seen.
NETWORK_ALONE = {"linear_branch": False, "spectral": False, "gate_init": 1.0, "layer_scale": 0.1}


def on(change: Callable[[Task, int], Task], fit: Callable[[Task, int], Fitted]) -> Callable[[Task, int], Fitted]:
    """``fit`` after ``change`` of the data."""
    return lambda task, seed: fit(change(task, seed), seed)


def in_order(order: str) -> Callable[[Task, int], Task]:
    """Features in genome order, reversed or shuffled, all three without coordinates.

    Without coordinates patches are cut regardless of chromosomes, in all three alike, so that only the order differs.
    """

    def change(task: Task, seed: int) -> Task:
        from scmamba_scvi.pp import feature_layout

        rng = np.random.default_rng(seed)
        positions = {}
        for kind, key in task.keys.items():
            along = np.argsort(feature_layout(task.train[key].var, 1, ordered=kind != "protein").slots)
            if order == "shuffled":
                along = rng.permutation(along)
            positions[key] = along[::-1] if order == "reversed" else along
        return _with_features(task, positions, nameless=True)

    return change


def most_variable(n: int) -> Callable[[Task, int], Task]:
    """The ``n`` most variable genes and the ``n`` peaks of the most variable presence, on the training cells."""

    def change(task: Task, seed: int) -> Task:
        positions = {
            key: np.sort(np.argsort(-_variability(task.train[key].X, kind), kind="stable")[:n])
            for kind, key in task.keys.items()
        }
        return _with_features(task, positions)

    return change


def _variability(x, kind: str) -> np.ndarray:
    x = sparse.csr_matrix(x, dtype=np.float64)
    if kind == "atac":
        fraction = np.asarray((x > 0).mean(0)).ravel()
        return fraction * (1 - fraction)
    import scanpy as sc
    from anndata import AnnData

    cells = AnnData(x)
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    sc.pp.highly_variable_genes(cells, n_top_genes=min(2_000, x.shape[1]))
    return cells.var["dispersions_norm"].fillna(-np.inf).to_numpy()


def _with_features(task: Task, positions: dict[str, np.ndarray], nameless: bool = False) -> Task:
    """Only these features, in this order."""
    from mudata import MuData

    def select(mdata: MuData) -> MuData:
        parts = {key: data[:, positions[key]].copy() if key in positions else data for key, data in mdata.mod.items()}
        if nameless:  # names such as chr1:1-2 are coordinates too
            for key, data in parts.items():
                data.var = pd.DataFrame(index=[f"{key}_{i}" for i in range(data.n_vars)])
        selected = MuData(parts)
        selected.obs = mdata.obs
        return selected

    return dataclasses.replace(task, train=select(task.train), test=select(task.test))


def _variant(group: str, name: str, fit: Callable[[Task, int], Fitted], about: str = "", **needs) -> Method:
    return Method(f"{group}: {name}", about, fit, n_seeds=1, **needs)


METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        _variant("default", "as shipped", scmamba()),
        _variant("layers", "none", scmamba(encoder="linear")),
        _variant("layers", "MLP", scmamba(encoder="mlp")),
        _variant("layers", "attention", scmamba(attention_layers=(0,))),
        _variant("layers", "Mamba2, both directions", scmamba(bidirectional=True)),
        _variant("layers", "2 of Mamba2", scmamba(n_layers=2)),
        _variant("network alone", "Mamba2", scmamba(**NETWORK_ALONE)),
        _variant("network alone", "attention", scmamba(**NETWORK_ALONE, attention_layers=(0,))),
        _variant("network alone", "MLP", scmamba(encoder="mlp", linear_branch=False, spectral=False, gate_init=1.0)),
        _variant("network alone", "no block", scmamba(**NETWORK_ALONE, n_layers=0)),
        _variant("network alone", "shared projection", scmamba(**NETWORK_ALONE, patch_embedding="shared")),
        _variant("network alone", "last token", scmamba(**NETWORK_ALONE, pooling="last")),
        _variant("network alone", "mean + last token", scmamba(**NETWORK_ALONE, pooling="mean+last")),
        _variant("order", "genome", on(in_order("genome"), scmamba(**NETWORK_ALONE))),
        _variant("order", "reversed", on(in_order("reversed"), scmamba(**NETWORK_ALONE))),
        _variant("order", "shuffled", on(in_order("shuffled"), scmamba(**NETWORK_ALONE))),
        *(_variant("features", f"{n:,} most variable", on(most_variable(n), scmamba())) for n in (2_000, 4_000, 8_000)),
        *(_variant("patches", f"at most {n}", scmamba(max_patches=n)) for n in (6, 96)),
        *(_variant("masking", f"{rate:.0%}", scmamba(mask_rate=rate)) for rate in (0.0, 0.25, 0.75)),
        *(_variant("cosine weight", f"{w:g}", scmamba(cosine_weight=w)) for w in (0.3, 1.0, 3.0)),
        _variant("negatives", "of the other modality alone", scmamba(negatives="other")),
        _variant("alignment", "none", scmamba(align=False)),
        _variant("alignment", "none, negatives of the other modality alone", scmamba(align=False, negatives="other")),
        *(_variant("minibatch", f"{n:,} cells", scmamba(batch_size=n)) for n in (128, 1_024)),
        _variant("values of RNA", "log1p", scmamba(values={"rna": "log1p"})),
        _variant("initialization", "weights from the same cells", scmamba(spectral_weights="in-sample")),
        _variant("initialization", "not spectral", scmamba(spectral=False, gate_init=1.0)),
        _variant("joint embedding", "mean of the modalities", scmamba(joint="shared")),
        *(_variant("joint embedding", f"weight of the shared part {w:g}", scmamba(joint_shared_weight=w)) for w in (0.25, 1.0)),
    )
}  # fmt: skip
