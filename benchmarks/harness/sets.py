"""Data sets: real ones from SCMAMBA_DATA, simulated ones of several difficulties, any .h5mu file. One fixed split each."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .paths import ROOT

if TYPE_CHECKING:
    from mudata import MuData

DATA = Path(os.environ.get("SCMAMBA_DATA", ROOT.parent / "shared" / "data"))
#: Fraction of the cells that no method sees while it is fitted.
HELD_OUT = 0.2
N_EMBEDDED_AGAIN = 100


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Where cells come from, and which columns of ``obs`` the scores read. Either ``path`` or ``simulate`` is given."""

    name: str
    about: str
    path: Path | None = None
    simulate: dict[str, Any] | None = None  # arguments of scmamba_scvi.data.simulate_multiome
    labels_key: str | None = None
    ignored_labels: tuple[str, ...] = ()  # labels that mean "not known"
    batch_key: str | None = None
    n_train: int | None = None  # training cells to keep, for learning curves
    split: int = 0  # seed of the permutation whose first fifth is held out
    stage_key: str | None = None  # stages of a lineage from 0 upwards, -1 elsewhere
    new_donors: tuple[str, ...] = ()  # batches of donors who have no other batch, about a fifth of the cells or more

    def missing(self) -> str | None:
        """The reason why the set cannot be read on this machine, or None."""
        if self.path is not None and not self.path.exists():
            return f"{self.path.name} is not there; set SCMAMBA_DATA to the folder with the data"
        return None

    def load(self) -> MuData:
        """All cells."""
        if self.simulate is not None:
            from scmamba_scvi.data import simulate_multiome

            return simulate_multiome(**self.simulate)
        import mudata

        return mudata.read_h5mu(self.path)


@dataclasses.dataclass(frozen=True)
class Task:
    """What a method gets: cells to fit, cells it is asked to embed, which modality is which, and the batches."""

    train: MuData
    test: MuData
    keys: dict[str, str]  # kind of modality -> key of mdata.mod
    batch_key: str | None


@dataclasses.dataclass(frozen=True)
class Truth:
    """What only the scores see: one label and one batch per cell, of training and of held-out cells."""

    labels: tuple[np.ndarray, np.ndarray] | None
    batches: tuple[np.ndarray, np.ndarray] | None
    ignored_labels: tuple[str, ...] = ()


def train_and_test(dataset: DataSet) -> tuple[MuData, MuData]:
    """Training and held-out cells with all annotations; the first fifth of a permutation is held out."""
    whole = dataset.load()
    order = np.random.default_rng(dataset.split).permutation(whole.n_obs)
    cut = int(whole.n_obs * HELD_OUT)
    train = order[cut:][: dataset.n_train]
    return tuple(whole[np.sort(rows)].copy() for rows in (train, order[:cut]))


def split(dataset: DataSet) -> tuple[Task, Truth]:
    """What a method gets, with nothing but counts, coordinates and batches, and what only the scores see."""
    return _separate(dataset, *train_and_test(dataset))


def all_cells(dataset: DataSet) -> tuple[Task, Truth]:
    """The same with every cell to fit; the first few are embedded again, as methods are asked for new cells."""
    whole = dataset.load()
    return _separate(dataset, whole, whole[:N_EMBEDDED_AGAIN].copy())


def new_donors(dataset: DataSet) -> tuple[Task, Truth]:
    """The batches of some donors held out, all others to fit."""
    whole = dataset.load()
    new = whole.obs[dataset.batch_key].isin(dataset.new_donors).to_numpy()
    return _separate(dataset, whole[~new].copy(), whole[new].copy())


def _separate(dataset: DataSet, train: MuData, test: MuData) -> tuple[Task, Truth]:
    truth = Truth(
        *(_columns(train, test, key) for key in (dataset.labels_key, dataset.batch_key)), dataset.ignored_labels
    )
    for mdata in (train, test):
        _forget_annotations(mdata, dataset.batch_key)
    return Task(train, test, kinds_of(train), dataset.batch_key), truth


def _columns(train: MuData, test: MuData, key: str | None) -> tuple[np.ndarray, np.ndarray] | None:
    return None if key is None else tuple(m.obs[key].astype(str).to_numpy() for m in (train, test))


def _forget_annotations(mdata: MuData, batch_key: str | None) -> None:
    """Leave nothing of ``obs`` and ``obsm`` but the batch: no method can read a label, not even by accident."""
    for data in (mdata, *mdata.mod.values()):
        data.obs = data.obs[[batch_key] if batch_key in data.obs else []]
    for data in mdata.mod.values():
        data.obsm.clear()


def kinds_of(mdata: MuData) -> dict[str, str]:
    """Kind of modality to key, as `SCMAMBA.setup_mudata` recognises them."""
    from scmamba_scvi.model.inputs.kinds import resolve_modalities

    return resolve_modalities(mdata, None)


def simulated(name: str, about: str, **arguments: Any) -> DataSet:
    """A set of `simulate_multiome` with these ``arguments``."""
    return DataSet(name, about, simulate=arguments, labels_key="cell_type", batch_key="batch")


_SIZES = {"n_cells": 5_000, "n_genes": 2_000, "rare_fraction": 0.01}
_MULTIOME = {**_SIZES, "n_peaks": 10_000, "n_cell_types": 12}
_CITESEQ = {**_SIZES, "n_peaks": 0, "n_proteins": 50, "n_cell_types": 12}
SETS: dict[str, DataSet] = {
    d.name: d
    for d in (
        DataSet(
            "snareseq_mouse_cortex", "SNARE-seq, adult mouse cortex [Chen 2019]: 10,309 cells, 1,677 genes, 25,734 peaks",
            DATA / "snareseq_mouse_cortex/snareseq_mouse_cortex.h5mu", labels_key="cell_type", ignored_labels=("Mis",),
        ),
        DataSet(
            "bmmc_multiome_5k", "10x Multiome, bone marrow: 5,000 cells of 22 types in 13 batches, 4,000 genes, 20,001 peaks",
            DATA / "bmmc_multiome_5k/bmmc_multiome_5k.h5mu", labels_key="cell_type", batch_key="batch",
            stage_key="erythroid_stage", new_donors=("s4d8", "s4d9"),
        ),
        DataSet(
            "bmmc_cite_5k", "CITE-seq, bone marrow: 5,000 cells of 44 types in 12 batches, 4,000 genes, 134 proteins",
            DATA / "bmmc_cite_5k/bmmc_cite_5k.h5mu", labels_key="cell_type", batch_key="batch",
            stage_key="erythroid_stage", new_donors=("s3d7", "s4d8", "s4d9"),
        ),
        DataSet(
            "bmmc_cite_starter", "CITE-seq, bone marrow: 600 cells of 41 types in 2 batches, 1,000 genes, 134 proteins",
            DATA / "bmmc_cite_starter/bmmc_cite_starter.h5mu", labels_key="cell_type", batch_key="batch",
        ),
        DataSet(
            "pbmc_reapseq", "REAP-seq, blood: 7,488 cells in 2 samples, 14,252 genes, 48 proteins; no labels",
            DATA / "pbmc_reapseq/pbmc_reapseq.h5mu", batch_key="batch",
        ),
        DataSet(
            "pbmc_multiome_tiny_muon", "10x Multiome, blood: 1,000 cells, 45 genes, 174 peaks; no labels",
            DATA / "pbmc_multiome_tiny_muon/test_rna_atac.h5mu",
        ),
        simulated(
            "multiome_weak_batches", "simulated RNA + ATAC: 5,000 cells of 12 types (rarest 1 %), weak batch effects",
            **_MULTIOME, batch_strength=0.15,
        ),
        simulated(
            "multiome_strong_batches", "the same with strong batch effects",
            **_MULTIOME, batch_strength=0.6,
        ),
        simulated(
            "multiome_shallow", "the same with weak batch effects and a third of the counts",
            **_MULTIOME, batch_strength=0.15, rna_counts=170, atac_counts=220,
        ),
        simulated(
            "multiome_20k", "simulated RNA + ATAC: 20,000 cells of 12 types (rarest 1 %), weak batch effects",
            **{**_MULTIOME, "n_cells": 20_000}, batch_strength=0.15,
        ),
        simulated(
            "citeseq_weak_batches", "simulated RNA + protein: 5,000 cells of 12 types, 50 proteins, weak batch effects",
            **_CITESEQ, batch_strength=0.15,
        ),
        simulated(
            "citeseq_strong_batches", "the same with strong batch effects",
            **_CITESEQ, batch_strength=0.6,
        ),
    )
}  # fmt: skip

#: Names of the sets of real cells.
REAL = frozenset(name for name, dataset in SETS.items() if dataset.path is not None)

#: What pages and figures call the sets; `--sets` and the results know them by their names.
TITLES = {
    "snareseq_mouse_cortex": "Mouse cortex",
    "bmmc_multiome_5k": "Bone marrow Multiome",
    "bmmc_cite_5k": "Bone marrow CITE-seq",
    "bmmc_cite_starter": "Bone marrow CITE-seq (600 cells)",
    "pbmc_reapseq": "Blood REAP-seq",
    "pbmc_multiome_tiny_muon": "Blood Multiome (45 genes)",
    "multiome_weak_batches": "Simulated Multiome",
    "multiome_strong_batches": "Simulated Multiome (strong batches)",
    "multiome_shallow": "Simulated Multiome (shallow)",
    "multiome_20k": "Simulated Multiome (20,000 cells)",
    "citeseq_weak_batches": "Simulated CITE-seq",
    "citeseq_strong_batches": "Simulated CITE-seq (strong batches)",
}


def title_of(name: str) -> str:
    """What a page calls a set; a set that has no title has its name."""
    return TITLES.get(name, name)


def from_file(path: str, labels_key: str | None, batch_key: str | None) -> DataSet:
    """Any paired .h5mu of raw counts."""
    return DataSet(Path(path).stem, path, Path(path), labels_key=labels_key, batch_key=batch_key)
