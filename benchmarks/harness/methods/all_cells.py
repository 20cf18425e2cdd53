"""Methods that embed only the cells they are fitted on: weighted nearest neighbours, MOFA+, SnapATAC2.

Held-out cells get an empty embedding, so these run on all cells alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from ..sets import Task
from ._method import Fitted, Method
from .harmony import harmonise
from .linear import N_COMPONENTS, components, unit, values

#: Most variable features of RNA and of accessibility that MOFA+ is given, as in its tutorials.
N_VARIABLE = {"rna": 2_000, "atac": 5_000}


def wnn(without_batches: bool):
    """muon's graph of weighted nearest neighbours on the components of each modality, and its spectral embedding."""

    def fit(task: Task, seed: int) -> Fitted:
        import muon
        import scanpy as sc
        from sklearn.manifold import spectral_embedding

        cells = {}
        for kind in task.keys:
            z = components(task, kind, seed)[0]
            if without_batches:
                z = harmonise(z, task.train.obs[task.batch_key].astype(str).to_numpy(), seed)
            cells[kind] = AnnData(unit(z), obs=task.train.obs[[]])  # as in Seurat
            sc.pp.neighbors(cells[kind], n_neighbors=20, use_rep="X", random_state=seed)
        mdata = MuData(cells)
        muon.pp.neighbors(mdata, random_state=seed)
        graph = mdata.obsp["connectivities"]
        joint = spectral_embedding((graph + graph.T) / 2, n_components=N_COMPONENTS, random_state=seed)
        return _of_all_cells(joint)

    return fit


def mofa(task: Task, seed: int) -> Fitted:
    import muon

    cells = {}
    for kind in task.keys:
        x = values(task, kind)[0]
        x = x.toarray() if sparse.issparse(x) else x
        chosen = np.sort(np.argsort(-x.var(0), kind="stable")[: N_VARIABLE.get(kind, x.shape[1])])
        cells[kind] = AnnData(x[:, chosen], obs=task.train.obs[[]])
        cells[kind].var_names = [f"{kind}_{i}" for i in chosen]
    mdata = MuData(cells)
    with tempfile.TemporaryDirectory() as folder:
        muon.tl.mofa(mdata, use_var=None, seed=seed, outfile=str(Path(folder) / "model.hdf5"), save_data=False)
    return _of_all_cells(mdata.obsm["X_mofa"])


def multi_spectral(task: Task, seed: int) -> Fitted:
    import snapatac2

    cells = []
    for kind, key in task.keys.items():
        x = task.train[key].X if kind == "atac" else values(task, kind)[0]
        # it takes no negative values, which the centred log-ratio of protein has
        x = np.maximum(x, 0) if kind == "protein" else x
        cells.append(AnnData(sparse.csr_matrix(x, dtype=np.float64), obs=task.train.obs[[]]))
    _, joint = snapatac2.tl.multi_spectral(cells, features=None, random_state=seed)
    return _of_all_cells(joint)


def _of_all_cells(joint: np.ndarray) -> Fitted:
    return Fitted({"joint": (np.asarray(joint), np.empty((0, joint.shape[1])))})


METHODS = [
    Method(
        "WNN", "muon's weighted nearest neighbours of the components of each modality at unit length; scored on 50 "
        "spectral components of the graph", wnn(without_batches=False), packages=("muon",), n_seeds=1,
    ),
    Method(
        "Harmony + WNN", "the same, batches of each modality's components mixed by Harmony first",
        wnn(without_batches=True), packages=("muon", "harmonypy"), n_seeds=1, batches=True,
    ),
    Method(
        "MOFA+", "mofapy2 through muon with its 10 factors, on the 2,000 most variable genes and 5,000 peaks", mofa,
        packages=("muon", "mofapy2"), n_seeds=1,
    ),
    Method(
        "SnapATAC2", "`multi_spectral` of log-normalised RNA and of the counts of accessibility or the positive part of "
        "the centred log-ratio of protein", multi_spectral, packages=("snapatac2",), n_seeds=1,
    ),
]  # fmt: skip
