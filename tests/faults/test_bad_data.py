"""Objects and arguments that cannot be used end in a named error, from setup to everything after training."""

from __future__ import annotations

import mudata
import numpy as np
import pandas as pd
import pytest
from faults import assert_named, needs_proc
from scipy import sparse
from shapes import TINY, mudata_of, poisson

from scmamba_scvi import SCMAMBA, workflow
from scmamba_scvi.metrics import evaluate_integration

pytestmark = [pytest.mark.filterwarnings("ignore"), needs_proc]
N = 50
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def good():
    mdata = mudata_of({"rna": poisson(N, 30), "atac": poisson(N, 20)})
    mdata.obs["batch"] = [f"batch {i % 2}" for i in range(N)]
    mdata.obs["cell_type"] = [f"type {i % 3}" for i in range(N)]
    return mdata


@pytest.fixture(scope="module")
def model():
    mdata = good()
    SCMAMBA.setup_mudata(mdata, batch_key="batch", labels_key="cell_type")
    model = SCMAMBA(mdata, **TINY)
    model.train(max_epochs=2, **QUIET)
    model.train_classifier()
    return model


def with_x(x):
    """The good data with ``x`` as the matrix of RNA."""
    mdata = good()
    mdata["rna"].X = x
    return mdata


def counts():
    return sparse.csr_matrix(poisson(N, 30).astype(np.float32))


def stored(value, dtype=np.float32):
    x = counts().astype(dtype)
    x.data[7] = value
    return x


def broken_csr(part, change):
    """The good data with a part of RNA's CSR matrix changed, which scipy checks only when a matrix is made."""
    mdata = good()
    x = mdata["rna"].X
    setattr(x, part, change(getattr(x, part).copy()))
    return mdata


def set_at(i, value):
    def change(array):
        array[i] = value
        return array

    return change


def renamed(axis, names):
    mdata = good()
    mods = {k: v.copy() for k, v in mdata.mod.items()}
    frame = getattr(mods["rna"], axis)
    frame.index = pd.Index(names(list(frame.index)))
    return mudata.MuData(mods)


def inner(attribute, value):
    """The RNA part with something put where AnnData keeps it, past its own checks."""
    mdata = good()
    setattr(mdata["rna"], attribute, value)
    return mdata


def emptied(rows, columns):
    mdata = good()
    return mudata.MuData({"rna": mdata["rna"][:rows, :columns].copy(), "atac": mdata["atac"].copy()})


def with_batches(values):
    mdata = good()
    mdata.obs["batch"] = pd.Series(values, index=mdata.obs_names, dtype=object)
    return mdata


def with_obsmap(change):
    """The good data with the map from its cells to those of RNA changed."""
    mdata = good()
    mdata.obsmap["rna"] = change(mdata.obsmap["rna"].copy())
    return mdata


SETUP = {
    "nothing": lambda: (None, {}),
    "an AnnData": lambda: (good()["rna"], {}),
    "a dict": lambda: ({"rna": good()["rna"]}, {}),
    "no modality": lambda: (mudata.MuData({}), {}),
    "no cell": lambda: (emptied(0, 30), {}),
    "no feature": lambda: (emptied(N, 0), {}),
    "no matrix": lambda: (with_x(None), {}),
    "too large for float32": lambda: (with_x(stored(1e39, np.float64)), {}),
    "too large for a count": lambda: (with_x(stored(2**63, np.uint64)), {}),
    "most negative": lambda: (with_x(stored(-(2**63), np.int64)), {"require_counts": False}),
    "half precision overflow": lambda: (with_x(stored(70000, np.float32).toarray().astype(np.float16)), {}),
    "complex": lambda: (with_x(counts().astype(np.complex64)), {}),
    "text": lambda: (with_x(np.full((N, 30), "a")), {}),
    "objects": lambda: (with_x(np.full((N, 30), None)), {}),
    "times": lambda: (with_x(np.zeros((N, 30), dtype="datetime64[s]")), {}),
    "column out of range": lambda: (broken_csr("indices", set_at(3, 10**6)), {}),
    "column far out of range": lambda: (broken_csr("indices", set_at(3, 2**31 - 1)), {}),
    "column negative": lambda: (broken_csr("indices", set_at(3, -1)), {}),
    "rows that run backwards": lambda: (broken_csr("indptr", set_at(5, 10**6)), {}),
    "rows that start late": lambda: (broken_csr("indptr", set_at(0, 4)), {}),
    "rows negative": lambda: (broken_csr("indptr", set_at(5, -3)), {}),
    "fewer values than columns": lambda: (broken_csr("data", lambda d: d[:-5]), {}),
    "fewer columns than values": lambda: (broken_csr("indices", lambda i: i[:-5]), {}),
    "fewer rows than cells": lambda: (broken_csr("indptr", lambda p: p[:-5]), {}),
    "modalities as a list": lambda: (good(), {"modalities": ["rna", "atac"]}),
    "modalities as numbers": lambda: (good(), {"modalities": {"rna": 0, "atac": 1}}),
    "a kind that is a number": lambda: (good(), {"modalities": {0: "rna", "atac": "atac"}}),
    "one modality twice": lambda: (good(), {"modalities": {"rna": "rna", "atac": "rna"}}),
    "layers as a list": lambda: (good(), {"layers": ["counts"]}),
    "a layer that is a number": lambda: (good(), {"layers": {"rna": 3}}),
    "a column that is a list": lambda: (good(), {"batch_key": ["batch"]}),
    "a column that is a number": lambda: (good(), {"labels_key": 3}),
    "batches that are lists": lambda: (with_batches([["a"]] * N), {"batch_key": "batch"}),
    "batches of several types": lambda: (with_batches(["a", 1] * (N // 2)), {"batch_key": "batch"}),
    "an unknown argument": lambda: (good(), {"batches": "batch"}),
}  # fmt: skip


@pytest.mark.parametrize("case", SETUP)
def test_setup_names_what_is_wrong_and_changes_nothing(case):
    mdata, arguments = SETUP[case]()
    assert_named(lambda: SCMAMBA.setup_mudata(mdata, **arguments), mdata)
    assert_named(lambda: workflow.integrate(mdata, **arguments), mdata)


MODEL = {
    "a preset that is a number": {"preset": 3},
    "half a latent dimension": {"n_latent": 2.5},
    "a network out of all proportion": {"d_model": 2**40, "headdim": 2**40},
    "layers out of all proportion": {"n_layers": -1},
    "a temperature of zero": {"temperature": 0.0},
    "a temperature that is not a number": {"temperature": float("nan")},
    "values of no name": {"values": {"rna": 3}},
    "patches of no feature": {"patch_size": 0},
    "patches as text": {"patch_size": "ten"},
    "layouts of something else": {"layouts": {"rna": {"slots": [0]}}},
}


@pytest.mark.parametrize("case", MODEL)
def test_options_of_the_model_that_cannot_be_used_are_named(case):
    mdata = good()
    SCMAMBA.setup_mudata(mdata)
    assert_named(lambda: SCMAMBA(mdata, **{**TINY, **MODEL[case]}), mdata)


TRAIN = {
    "no epoch": {"max_epochs": 0},
    "epochs negative": {"max_epochs": -1},
    "epochs as text": {"max_epochs": "ten"},
    "half an epoch": {"max_epochs": 1.5},
    "a minibatch of none": {"batch_size": 0},
    "a minibatch negative": {"batch_size": -4},
    "a minibatch as text": {"batch_size": "all"},
    "no cell to train on": {"train_size": 0.0},
    "more than all cells": {"train_size": 1.5},
    "a fraction that is not a number": {"train_size": float("nan")},
    "fractions of more than all": {"train_size": 0.8, "validation_size": 0.5},
    "a device that is not there": {"accelerator": "warp drive"},
    "a device count negative": {"devices": -3},
    "a precision that is not there": {"precision": "9-bit"},
    "a learning rate negative": {"plan_kwargs": {"lr": -1.0}},
    "a learning rate that is not a number": {"plan_kwargs": {"lr": float("nan")}},
    "a learning rate as text": {"plan_kwargs": {"lr": "fast"}},
    "a warm-up longer than training": {"plan_kwargs": {"warmup": 2.0}},
    "options as a list": {"plan_kwargs": ["lr"]},
    "a folder that is a number": {"checkpoint_dir": 3},
}


@pytest.mark.parametrize("case", TRAIN)
def test_arguments_of_train_that_cannot_be_used_are_named(case):
    mdata = good()
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, **TINY)
    assert_named(lambda: model.train(**{**QUIET, "max_epochs": 2, **TRAIN[case]}), mdata)
    assert not model.is_trained
    mdata, options = good(), {**QUIET, "max_epochs": 2, **TRAIN[case]}
    assert_named(lambda: workflow.integrate(mdata, batch_key="batch", umap=False, **options), mdata)


def other_features():
    mdata = good()
    mods = {k: v.copy() for k, v in mdata.mod.items()}
    mods["rna"].var_names = [f"other {i}" for i in range(mods["rna"].n_vars)]
    return mudata.MuData(mods)


EMBED = {
    "no modality": lambda: {"adata": mudata.MuData({})},
    "other features": lambda: {"adata": other_features()},
    "a column out of range": lambda: {"adata": broken_csr("indices", set_at(3, 10**6))},
    "a modality that is not there": lambda: {"modality": "protein"},
    "a modality that is a number": lambda: {"modality": 3},
    "a minibatch of none": lambda: {"batch_size": 0},
    "a minibatch negative": lambda: {"batch_size": -1},
    "a minibatch as text": lambda: {"batch_size": "all"},
}


@pytest.mark.parametrize("case", EMBED)
def test_cells_that_cannot_be_embedded_are_named(model, case):
    arguments = EMBED[case]()
    assert_named(lambda: model.get_latent_representation(**arguments), model.adata, arguments.get("adata"))


AFTER = {
    "match_cells: neighbours negative": ("match_cells", {"k": -1}),
    "match_cells: neighbours as text": ("match_cells", {"k": "ten"}),
    "impute: features as one text": ("impute", {"features": "atac 1"}),
    "impute: no neighbour": ("impute", {"k": 0}),
    "predict: a cell out of range": ("predict", {"indices": [10**6]}),
    "train_classifier: a column that is a number": ("train_classifier", {"labels_key": 3}),
}


@pytest.mark.parametrize("case", AFTER)
def test_arguments_after_training_that_cannot_be_used_are_named(model, case):
    name, arguments = AFTER[case]
    assert_named(lambda: getattr(model, name)(**arguments), model.adata)


def embedded(z):
    mdata = good()
    for part in (mdata, *mdata.mod.values()):
        part.obsm["X"] = z
    return mdata


Z = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
EVALUATE = {
    "no embedding": lambda: (good(), {}),
    "infinite": lambda: (embedded(np.where(np.arange(4) == 1, np.inf, Z)), {"embeddings": {"m": "X"}}),
    "a batch that is not there": lambda: (embedded(Z), {"embeddings": {"m": "X"}, "batch_key": "mood"}),
    "no cell": lambda: (embedded(Z), {"embeddings": {"m": "X"}, "cells": np.zeros(N, dtype=bool)}),
    "no column": lambda: (embedded(np.zeros((N, 0), dtype=np.float32)), {"embeddings": {"m": "X"}}),
}


@pytest.mark.parametrize("case", EVALUATE)
def test_embeddings_that_cannot_be_scored_are_named(case):
    mdata, arguments = EVALUATE[case]()
    assert_named(lambda: evaluate_integration(mdata, **arguments), mdata)


@pytest.mark.parametrize(
    "change",
    [lambda m: m + 7, lambda m: m[::-1], lambda m: np.where(m > 40, 0, m)],
    ids=["out of range", "another order", "too few cells"],
)
def test_a_wrong_map_of_cells_changes_nothing(model, change):
    """Cells are aligned by name; the positions that MuData keeps beside the names are not used."""
    found = model.get_latent_representation(with_obsmap(change))
    np.testing.assert_allclose(found, model.get_latent_representation(good()), atol=1e-6)


def test_unusual_names_of_cells_and_features_are_accepted():
    """Long ones, blank ones, and ones of other scripts."""
    names = ["é", "日本", "a" * 5000, " ", "x\ty", "../../etc/passwd", "'; --", "🧬", "NaN", "None"]
    mods = {k: v.copy() for k, v in good().mod.items()}
    mods["rna"].var_names = names + [f"g{i}" for i in range(20)]
    for mod in mods.values():
        mod.obs_names = names + [f"c{i}" for i in range(N - 10)]
    mdata = mudata.MuData(mods)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, **TINY)
    model.train(max_epochs=1, **QUIET)
    assert np.isfinite(model.get_latent_representation()).all()
