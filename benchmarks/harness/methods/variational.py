"""Variational peers: MultiVI and totalVI of scvi-tools, GLUE with and without pairs."""

from __future__ import annotations

import functools

import networkx
import numpy as np
from mudata import MuData
from scipy import sparse

from ..sets import REAL, Task
from ._method import Fitted, Limit, Method, epochs_within
from .genome import genes_by_peaks
from .linear import components


def multivi(task: Task, seed: int) -> Fitted:
    import scvi

    scvi.settings.seed = seed
    epochs = epochs_within(500, 1_000_000, task.train.n_obs)
    train, test = (_in_its_order(m, task) for m in (task.train, task.test))
    test.obs["_indices"] = np.arange(test.n_obs)  # MULTIVI's setup adds this column to the training cells only
    modalities = {"rna_layer": task.keys["rna"], "atac_layer": task.keys["atac"]}
    if task.batch_key is not None:
        modalities["batch_key"] = task.keys["rna"]
    scvi.model.MULTIVI.setup_mudata(train, modalities=modalities, batch_key=task.batch_key)
    model = scvi.model.MULTIVI(train)
    # the default learning rate of 1e-4 is made for 500 epochs
    model.train(
        max_epochs=epochs, lr=1e-3 if epochs < 500 else 1e-4, n_epochs_kl_warmup=min(50, epochs // 2),
        enable_progress_bar=False,
    )  # fmt: skip
    embedded = {"rna": "expression", "atac": "accessibility", "joint": "joint"}
    return Fitted(
        {name: tuple(model.get_latent_representation(m, modality=modality) for m in (train, test))
         for name, modality in embedded.items()},
        {"epochs": len(model.history["elbo_train"]), "epochs by default": 500},
    )  # fmt: skip


def _in_its_order(mdata: MuData, task: Task) -> MuData:
    """RNA first, as MULTIVI needs: its own reordering fails with this version of MuData."""
    ordered = MuData({key: mdata[key] for key in task.keys.values()})
    if task.batch_key is not None:  # MULTIVI looks for it in a modality
        ordered[task.keys["rna"]].obs[task.batch_key] = mdata.obs[task.batch_key]
    return ordered


def totalvi(task: Task, seed: int) -> Fitted:
    import scvi

    scvi.settings.seed = seed
    full = int(min(round(20_000 / task.train.n_obs * 400), 400))
    epochs = epochs_within(full, 1_600_000, task.train.n_obs)
    modalities = {"rna_layer": task.keys["rna"], "protein_layer": task.keys["protein"]}
    batch = {}
    for mdata in (task.train, task.test):
        protein = mdata[task.keys["protein"]]
        protein.X = sparse.csr_matrix(protein.X).toarray()  # TOTALVI's prior is fitted on dense counts
        if task.batch_key is not None:  # TOTALVI looks for it in a modality
            mdata[task.keys["rna"]].obs[task.batch_key] = mdata.obs[task.batch_key]
    if task.batch_key is not None:
        batch = {"batch_key": task.batch_key}
        modalities["batch_key"] = task.keys["rna"]
    scvi.model.TOTALVI.setup_mudata(task.train, modalities=modalities, **batch)
    model = scvi.model.TOTALVI(task.train)
    model.train(max_epochs=epochs, enable_progress_bar=False)
    joint = tuple(model.get_latent_representation(m) for m in (task.train, task.test))
    return Fitted({"joint": joint}, {"epochs": len(model.history["elbo_train"]), "epochs by default": full})


def glue(paired: bool):
    """GLUE of scglue, which is told which cells are the same if ``paired``."""
    return functools.partial(_glue, paired=paired)


def _glue(task: Task, seed: int, paired: bool) -> Fitted:
    import itertools
    import tempfile

    import scglue

    train, test = ({kind: m[key].copy() for kind, key in task.keys.items()} for m in (task.train, task.test))
    on_gene = genes_by_peaks(train["rna"].var, train["atac"].var).tocoo()
    for kind, representation in (("rna", "X_pca"), ("atac", "X_lsi")):
        train[kind].obsm[representation], test[kind].obsm[representation] = components(task, kind, seed)
        model = "NB"
        for data in (train[kind], test[kind]):
            data.obs_names = [f"cell{i}" for i in range(data.n_obs)]
            scglue.models.configure_dataset(
                data, model, use_highly_variable=False, use_rep=representation, use_obs_names=paired
            )
    graph = _guidance(train["rna"].var_names, train["atac"].var_names, on_gene)
    vertices = sorted(graph.nodes)
    epochs = epochs_within(828, 200_000, task.train.n_obs)
    glue_model = scglue.models.PairedSCGLUEModel if paired else scglue.models.SCGLUEModel
    model = glue_model(train, vertices, random_seed=seed)
    model.compile()
    with tempfile.TemporaryDirectory() as folder:
        # the automatic burn-in would take all of so few epochs
        model.fit(train, graph, max_epochs=epochs, align_burnin=max(1, epochs // 6), directory=folder)
    embedded = {
        kind: tuple(model.encode_data(kind, m[kind]) for m in (train, test)) for kind in itertools.islice(train, 2)
    }
    joint = tuple(np.mean([v[i] for v in embedded.values()], axis=0) for i in (0, 1))
    return Fitted(
        {**embedded, "joint": joint},
        {"epochs": epochs, "epochs by default": 828, "gene-peak edges": int(on_gene.nnz)},
    )


def _guidance(genes, peaks, on_gene) -> networkx.MultiDiGraph:
    graph = networkx.MultiDiGraph()
    graph.add_nodes_from([*genes, *peaks])
    for vertex in list(graph.nodes):
        graph.add_edge(vertex, vertex, key="self", weight=1.0, sign=1)
    for i, j in zip(on_gene.row, on_gene.col, strict=True):
        graph.add_edge(genes[i], peaks[j], key="fwd", weight=1.0, sign=1)
        graph.add_edge(peaks[j], genes[i], key="rev", weight=1.0, sign=1)
    return graph


#: A fit takes a quarter of an hour to hours of a CPU.
SLOW = Limit(REAL | {"multiome_strong_batches"}, "minutes to hours of a CPU: on real cells and one simulated set alone")
SLOWEST = Limit(
    frozenset({"snareseq_mouse_cortex", "bmmc_multiome_5k"}), "half an hour of a CPU: on two real sets alone"
)

METHODS = [
    Method("MultiVI", "scvi-tools' MULTIVI with its early stopping; on a CPU at a larger step and with fewer epochs at most", multivi,
           kinds=frozenset({"rna", "atac"}), n_seeds=1, limit=SLOW),
    Method("totalVI", "scvi-tools' TOTALVI; one embedding for both modalities, so nothing to match", totalvi,
           kinds=frozenset({"rna", "protein"}), n_seeds=1),
    Method("PairedSCGLUE", "PairedSCGLUE of scglue, guided by peaks on gene bodies and promoters; on a CPU fewer epochs",
           glue(paired=True), kinds=frozenset({"rna", "atac"}), packages=("scglue",), n_seeds=1, limit=SLOW),
    Method("GLUE", "SCGLUE of scglue, the same without being told the pairs", glue(paired=False),
           kinds=frozenset({"rna", "atac"}), packages=("scglue",), n_seeds=1, limit=SLOWEST),
]  # fmt: skip
