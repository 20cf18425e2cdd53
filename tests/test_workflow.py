from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from scmamba_scvi import SCMAMBA, workflow
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import foscttm, recall_at_k

SMALL = {"n_cells": 1000, "n_genes": 300, "n_peaks": 900, "n_cell_types": 8}
FAST = {"preset": "small", "max_epochs": 2, "enable_progress_bar": False}


@pytest.fixture(scope="module")
def integrated():
    mdata = simulate_multiome(**SMALL, seed=0)
    model = workflow.integrate(mdata, batch_key="batch", labels_key="cell_type", seed=3, **FAST)
    return mdata, model


def test_the_same_seed_gives_the_same_result_whatever_was_drawn_before(integrated):
    mdata, _ = integrated
    np.random.seed(7)
    torch.manual_seed(7)
    again = simulate_multiome(**SMALL, seed=0)
    workflow.integrate(again, batch_key="batch", labels_key="cell_type", seed=3, **FAST)
    np.testing.assert_array_equal(again.obsm["X_scmamba"], mdata.obsm["X_scmamba"])
    np.testing.assert_array_equal(again["atac"].obsm["X_umap"], mdata["atac"].obsm["X_umap"])
    assert (again.obs["leiden_scmamba"] == mdata.obs["leiden_scmamba"]).all()


def test_global_generators_are_put_back():
    import scvi

    mdata = simulate_multiome(**SMALL, seed=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # scanpy's neighbours would leave as many as there are cores
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state(), scvi.settings.seed
    workflow.integrate(mdata, seed=3, umap=False, **FAST)
    after = random.getstate(), np.random.get_state()[1], torch.get_rng_state(), scvi.settings.seed
    assert before[0] == after[0] and (before[1] == after[1]).all() and (before[2] == after[2]).all()
    assert before[3] == after[3]
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    assert "X_umap" not in mdata.obsm and "X_umap" not in mdata["rna"].obsm


def test_scores_are_those_of_the_held_out_cells(integrated):
    mdata, model = integrated
    scores = workflow.held_out_scores(mdata, model, "cell_type")
    cells = model.validation_indices
    x, y = (model.get_latent_representation(modality=kind)[cells] for kind in ("rna", "atac"))
    assert scores.loc["FOSCTTM", "value"] == pytest.approx(np.mean(foscttm(x, y)))
    assert scores.loc["recall@10", "value"] == pytest.approx(recall_at_k(x, y))
    assert scores.loc["recall@10", "chance"] == pytest.approx(10 / len(cells))
    assert (scores["n_cells"] == len(cells)).all() and len(cells) == 100
    np.testing.assert_array_equal(np.flatnonzero(mdata.obs["held_out_scmamba"]), np.sort(cells))
    assert list(workflow.held_out_scores(mdata, model).index) == ["FOSCTTM", "recall@10"]


def test_a_model_that_does_not_know_its_held_out_cells_has_no_such_scores(integrated, tmp_path):
    """Scores of all cells, which it was trained on, would look like those of held-out ones and be far too good."""
    mdata, model = integrated
    model.export(tmp_path / "exported")
    exported = SCMAMBA.from_export(tmp_path / "exported", mdata=mdata)
    with pytest.raises(ScmambaError, match="does not know which cells"):
        workflow.held_out_scores(mdata, exported)


def test_easy_cells_are_integrated(integrated):
    scores = workflow.held_out_scores(*integrated, "cell_type")
    assert scores.loc["FOSCTTM", "value"] < 0.3 and scores.loc["ARI", "value"] > 0.4


def test_coordinates_of_a_cell_are_near_each_other(integrated):
    mdata, _ = integrated
    xy = {key: part.obsm["X_umap"][part.obs_names.get_indexer(mdata.obs_names)] for key, part in mdata.mod.items()}
    score = np.mean(foscttm(xy["rna"], xy["atac"]))
    assert score < 0.35  # one plane for both; two planes would give a half


def test_bad_arguments_change_nothing():
    mdata = simulate_multiome(**SMALL, seed=0)
    with pytest.raises(ScmambaError, match="'small'"):
        workflow.integrate(mdata, preset="huge")
    assert "X_scmamba" not in mdata.obsm and "X_scmamba" not in mdata["rna"].obsm


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    mdata = simulate_multiome(**SMALL, seed=0)
    file = tmp_path / "result.h5mu"
    workflow.write_mudata(mdata, file)
    content = file.read_bytes()
    mdata.uns["cannot be written"] = object()
    with pytest.raises(Exception, match="cannot be written"):
        workflow.write_mudata(mdata, file)
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_written_files_read_back(tmp_path):
    mdata = simulate_multiome(**SMALL, seed=0)
    workflow.write_mudata(mdata, tmp_path / "result.h5mu")
    again = workflow.read_mudata(tmp_path / "result.h5mu")
    assert again.obs_names.equals(mdata.obs_names)
    for key, part in mdata.mod.items():
        assert (again[key].X != part.X).nnz == 0
