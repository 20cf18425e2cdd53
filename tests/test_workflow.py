from __future__ import annotations

import builtins
import copy
import errno
import random
import shutil

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from faults import content
from scipy import sparse

from scmamba_scvi import SCMAMBA, read, workflow
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import evaluate_integration, foscttm, leiden_ari_nmi, true_match_ranks
from scmamba_scvi.model.inputs.manager import MultiModalManager

SMALL = {"n_cells": 1000, "n_genes": 300, "n_peaks": 900, "n_cell_types": 8}
FAST = {"preset": "small", "max_epochs": 2, "enable_progress_bar": False}


def few():
    """Cells for tests in which it does not matter how well they are integrated."""
    return simulate_multiome(n_cells=60, n_genes=40, n_peaks=60, seed=0)


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
    np.testing.assert_array_equal(again["atac"].obsm["X_umap_scmamba"], mdata["atac"].obsm["X_umap_scmamba"])
    assert (again.obs["leiden_scmamba"] == mdata.obs["leiden_scmamba"]).all()


def test_global_generators_are_put_back():
    import scvi

    mdata = few()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # scanpy's neighbours would leave as many as there are cores
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state(), scvi.settings.seed
    workflow.integrate(mdata, seed=3, umap=False, **FAST)
    after = random.getstate(), np.random.get_state()[1], torch.get_rng_state(), scvi.settings.seed
    assert before[0] == after[0] and (before[1] == after[1]).all() and (before[2] == after[2]).all()
    assert before[3] == after[3]
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    assert "X_umap_scmamba" not in mdata.obsm and "X_umap_scmamba" not in mdata["rna"].obsm


def test_an_error_after_training_leaves_the_data_as_they_were(monkeypatch):
    mdata = few()
    mdata.obsm["X_scmamba"] = np.arange(60.0)[:, None]
    before = content(mdata)

    def full(*_, **__):
        assert mdata.obsm["X_scmamba"].shape[1] > 1
        raise MemoryError

    monkeypatch.setattr(workflow, "_graph", full)
    with pytest.raises(MemoryError):
        workflow.integrate(mdata, batch_key="batch", **FAST)
    assert content(mdata) == before


def test_an_error_leaves_an_earlier_setup_as_it_was(monkeypatch):
    """Of this model and of another of scvi-tools, whose columns also begin with _scvi."""
    mdata = few()
    mdata.obs["donor"] = np.arange(60) % 3
    SCMAMBA.setup_mudata(mdata, batch_key="donor")
    mdata.obs["_scvi_size_factor"], mdata.uns["_scvi_of_another"] = 1.0, "model"
    before = content(mdata)
    monkeypatch.setattr(SCMAMBA, "train", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        workflow.integrate(mdata, batch_key="batch", **FAST)
    assert content(mdata) == before
    assert SCMAMBA(mdata).batch_key == "donor"


def test_ctrl_c_in_setup_leaves_nothing_of_it(monkeypatch):
    mdata = few()
    before = content(mdata)

    def interrupted(*_):
        assert content(mdata) != before
        raise KeyboardInterrupt

    monkeypatch.setattr(MultiModalManager, "_remember_cells", interrupted)
    with pytest.raises(KeyboardInterrupt):
        workflow.integrate(mdata, batch_key="batch", **FAST)
    assert content(mdata) == before


def test_matches_are_scored_on_validation_cells_and_clusters_on_all(integrated):
    mdata, model = integrated
    scores = workflow.validation_scores(mdata, model, "cell_type")
    cells = model.validation_indices
    x, y = (model.get_latent_representation(modality=kind)[cells] for kind in ("rna", "atac"))
    assert scores.loc["FOSCTTM", "value"] == pytest.approx(np.mean(foscttm(x, y)))
    assert scores.loc["recall@10", "value"] == pytest.approx(true_match_ranks(x, y).recall(10)[0])
    assert scores.loc["recall@10", "chance"] == pytest.approx(10 / len(cells))
    ari = leiden_ari_nmi(model.get_latent_representation(), mdata.obs["cell_type"]).ari
    assert scores.loc["ARI", "value"] == pytest.approx(ari)
    assert scores["n_cells"].to_dict() == {"FOSCTTM": 100, "recall@10": 100, "ARI": mdata.n_obs}
    np.testing.assert_array_equal(np.flatnonzero(mdata.obs["validation_scmamba"]), np.sort(cells))
    assert list(workflow.validation_scores(mdata, model).index) == ["FOSCTTM", "recall@10"]


def test_cells_whose_type_is_not_known_are_no_type_of_the_score(integrated):
    mdata, model = integrated
    asked, types = mdata.copy(), mdata.obs["cell_type"].astype(object)
    for unknown in ("Unknown", None):
        asked.obs["some"] = types.where(np.arange(mdata.n_obs) % 3 > 0, unknown)
        assert (
            workflow.validation_scores(asked, model, "some").loc["ARI", "n_cells"]
            == (np.arange(mdata.n_obs) % 3 > 0).sum()
        )


def test_a_model_that_does_not_know_its_validation_cells_has_no_such_scores(integrated, tmp_path):
    """Scores of all cells, which it was trained on, would look like those of validation cells and be far too good."""
    mdata, model = integrated
    model.export(tmp_path / "exported")
    exported = SCMAMBA.from_export(tmp_path / "exported", mdata=mdata)
    with pytest.raises(ScmambaError, match="does not know its validation cells"):
        workflow.validation_scores(mdata, exported)


def test_cells_left_out_of_both_parts_choose_nothing_and_can_be_scored():
    """The way to scores of new cells that the docstring names."""
    assert "chose the epoch" in workflow.validation_scores.__doc__
    assert "cells=model.test_indices" in workflow.validation_scores.__doc__
    mdata = simulate_multiome(**SMALL, seed=0)
    model = workflow.integrate(mdata, seed=3, umap=False, train_size=0.8, validation_size=0.1, **FAST)
    test = set(model.test_indices)
    assert len(test) == 100 and not test & {*model.train_indices, *model.validation_indices}
    assert not mdata.obs["validation_scmamba"].to_numpy()[model.test_indices].any()
    scores = evaluate_integration(mdata, metrics=["FOSCTTM"], cells=model.test_indices)
    x, y = (model.get_latent_representation(modality=kind)[model.test_indices] for kind in ("rna", "atac"))
    assert scores.iloc[0, 0] == pytest.approx(np.mean(foscttm(x, y)))


def test_cells_of_a_modality_that_is_not_used_have_no_cluster(tmp_path):
    mdata = few()
    tags = anndata.AnnData(np.ones((30, 3), dtype=np.float32))
    tags.obs_names = [*mdata.obs_names[:20], *(f"untagged {i}" for i in range(10))]
    mdata = mudata.MuData({**{key: part.copy() for key, part in mdata.mod.items()}, "hashtags": tags})
    workflow.integrate(mdata, seed=3, **FAST)
    without = ~mdata.obs_names.isin(mdata["rna"].obs_names)
    assert without.sum() == 10
    np.testing.assert_array_equal(mdata.obs["leiden_scmamba"].isna(), without)
    np.testing.assert_array_equal(np.isnan(mdata.obsm["X_umap_scmamba"]).all(axis=1), without)
    workflow.write_mudata(mdata, tmp_path / "cells.h5mu")
    assert read(tmp_path / "cells.h5mu").obs["leiden_scmamba"].isna().sum() == 10


def test_what_the_user_has_computed_stays():
    mdata = few()
    rng = np.random.default_rng(0)
    for part in (mdata, *mdata.mod.values()):
        part.obsm["X_umap"], part.obsm["X_pca"] = rng.normal(size=(part.n_obs, 2)), rng.normal(size=(part.n_obs, 5))
        part.obs["leiden"] = pd.Categorical(rng.integers(4, size=part.n_obs).astype(str))
        part.obsp["distances"] = sparse.random(part.n_obs, part.n_obs, 0.01, "csr", random_state=rng)
        part.obsp["connectivities"] = part.obsp["distances"].copy()
        part.uns["neighbors"] = {"connectivities_key": "connectivities", "params": {"n_neighbors": 7}}
        part.uns["umap"], part.uns["leiden"] = {"params": {"a": 0.5}}, {"params": {"resolution": 2}}
    parts = [mdata, *mdata.mod.values()]
    fields = ("obsm", "obsp", "uns")
    before = [(part.obs.copy(), *(copy.deepcopy(dict(getattr(part, field))) for field in fields)) for part in parts]
    workflow.integrate(mdata, seed=3, **FAST)
    for part, (obs, obsm, obsp, uns) in zip(parts, before, strict=True):
        pd.testing.assert_frame_equal(part.obs[list(obs)], obs)
        for key in obsm:
            np.testing.assert_array_equal(part.obsm[key], obsm[key])
        for key in obsp:
            assert (part.obsp[key] != obsp[key]).nnz == 0
        assert {key: part.uns[key] for key in uns} == uns
        added = {*part.obs} - {*obs} | {*part.obsm} - {*obsm} | {*part.obsp} - {*obsp} | {*part.uns} - {*uns}
        assert all("scmamba" in name or name.startswith("_scvi_") for name in added), added
    assert {"X_scmamba", "X_umap_scmamba"} <= set(mdata.obsm) & set(mdata["rna"].obsm) & set(mdata["atac"].obsm)


@pytest.mark.filterwarnings("ignore:.*zero throughout")
def test_coordinates_of_an_earlier_model_do_not_stay_beside_new_clusters(monkeypatch):
    mdata = few()
    parts = (mdata, *mdata.mod.values())
    for part in parts:
        part.obsm["X_umap_scmamba"], part.obsm["X_umap"] = np.ones((60, 2)), np.ones((60, 2))
    with monkeypatch.context() as broken:
        broken.setattr(SCMAMBA, "train", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            workflow.integrate(mdata, umap=False, **FAST)
    assert all("X_umap_scmamba" in part.obsm for part in parts)
    workflow.integrate(mdata, umap=False, **FAST)
    assert not any("X_umap_scmamba" in part.obsm for part in parts) and all("X_umap" in part.obsm for part in parts)


def test_an_embedding_of_a_modality_that_is_not_used_does_not_stay(integrated):
    """It lies in the space of the earlier model: scores and figures would compare the two."""
    mdata = few()
    third = mdata["rna"].copy()
    third.obsm["X_scmamba"] = third.obsm["X_umap_scmamba"] = third.obsm["X_umap"] = np.ones((third.n_obs, 2))
    mdata = mudata.MuData({**{key: part.copy() for key, part in mdata.mod.items()}, "third": third})
    workflow.integrate(mdata, modalities={"rna": "rna", "atac": "atac"}, seed=3, **FAST)
    assert list(mdata["third"].obsm) == ["X_umap"]
    assert {"X_scmamba", "X_umap_scmamba"} <= {*mdata["rna"].obsm}


@pytest.mark.parametrize("genome", [None, "mm10"])
def test_arguments_of_setup_reach_it(genome):
    mdata = few()
    mdata["rna"].X = mdata["rna"].X * np.float32(0.97)
    mdata["atac"].layers["counts"] = mdata["atac"].X
    arguments = {"umap": False, "genome": genome, "layers": {"atac": "counts"}, **FAST}
    with pytest.raises(ScmambaError, match="require_counts=False"):
        workflow.integrate(mdata, **arguments)
    model = workflow.integrate(mdata, require_counts=False, **arguments)
    setup = model.registry_["setup_args"]
    assert setup["genome"] == genome and setup["layers"] == {"atac": "counts"} and not setup["require_counts"]


def test_easy_cells_are_integrated(integrated):
    scores = workflow.validation_scores(*integrated, "cell_type")
    assert scores.loc["FOSCTTM", "value"] < 0.3 and scores.loc["ARI", "value"] > 0.4


def test_coordinates_of_a_cell_are_near_each_other(integrated):
    mdata, _ = integrated
    xy = {
        key: part.obsm["X_umap_scmamba"][part.obs_names.get_indexer(mdata.obs_names)] for key, part in mdata.mod.items()
    }
    score = np.mean(foscttm(xy["rna"], xy["atac"]))
    assert score < 0.35  # one plane for both; two planes would give a half


def test_bad_arguments_change_nothing():
    mdata = few()
    with pytest.raises(ScmambaError, match="'small'"):
        workflow.integrate(mdata, preset="huge")
    with pytest.raises(ScmambaError, match="seed must be at least 0, got -1"):
        workflow.integrate(mdata, seed=-1)
    with pytest.raises(ScmambaError, match="seed must be at most 4294967295, got 4294967296"):
        workflow.integrate(mdata, seed=2**32)
    for name, value in (("n_latent", 16), ("preset", "base")):
        with pytest.raises(ScmambaError, match=rf"integrate\(mdata, {name}=...\)"):
            workflow.integrate(mdata, model_kwargs={name: value})
    for column in ("leiden_scmamba", "validation_scmamba"):  # they would be replaced, and scored against themselves
        mdata.obs[column] = "a"
        for argument in ("labels_key", "batch_key"):
            with pytest.raises(ScmambaError, match=rf"{argument}='{column}' names a column that integrate replaces"):
                workflow.integrate(mdata, **{argument: column})
        assert (mdata.obs[column] == "a").all()
    assert "X_scmamba" not in mdata.obsm and "X_scmamba" not in mdata["rna"].obsm


def test_a_full_disk_is_said_before_training_and_before_writing(tmp_path, monkeypatch):
    mdata = few()
    mdata.obsm["large"] = np.zeros((60, 10_000))  # of which no matrix of counts is as large
    workflow.write_mudata(mdata, tmp_path / "cells.h5mu")
    free = 2**20
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 2**40, free))
    for part in (mdata, mdata["rna"]):
        with pytest.raises(ScmambaError, match="About 5 MB are to be written into .* has 1 MB left"):
            workflow.write_mudata(mdata, tmp_path / "new" / "cells.h5mu")
        mdata["rna"].obsm["large"] = part.obsm.pop("large")
    model = workflow.integrate(mdata, umap=False, **FAST)
    with pytest.raises(ScmambaError, match="has 1 MB left"):
        model.save(tmp_path / "m", save_anndata=True)
    monkeypatch.setattr(SCMAMBA, "train", lambda *_, **__: pytest.fail("training began"))
    free = 1000
    with pytest.raises(ScmambaError, match="MB are to be written into .*m, which has 0 MB left"):
        workflow.integrate(mdata, umap=False, model_dir=tmp_path / "m", **FAST)
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5mu"]


def test_a_disk_that_others_filled_during_training_costs_no_model(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    mdata = few()
    with pytest.warns(UserWarning, match="cannot be saved into .* No space left .* integrate goes on"):
        model = workflow.integrate(mdata, umap=False, model_dir=tmp_path / "m", **FAST)
    assert model.is_trained and "X_scmamba" in mdata.obsm
    assert not list(tmp_path.iterdir())


def test_numba_without_a_folder_is_named_before_training(monkeypatch):
    """As in a container whose user owns nothing."""
    monkeypatch.setattr(SCMAMBA, "train", lambda *_, **__: pytest.fail("training began"))
    importing = builtins.__import__

    def refusing(name, *arguments, **options):
        if name == "scanpy":
            raise RuntimeError("cannot cache function 'f': no locator available for file 'f.py'")
        return importing(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(ScmambaError, match="no locator available .* set the environment variable NUMBA_CACHE_DIR"):
        workflow.integrate(few(), umap=False, **FAST)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    mdata = few()
    file = tmp_path / "result.h5mu"
    workflow.write_mudata(mdata, file)
    content = file.read_bytes()
    mdata.uns["cannot be written"] = object()
    with pytest.raises(Exception, match="cannot be written"):
        workflow.write_mudata(mdata, file)
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("of_view", [False, True])
def test_what_is_written_is_read_again_and_changes_nothing_of_the_data(tmp_path, of_view):
    mdata = few()
    for part in mdata.mod.values():
        part.obs["note"] = pd.Series(["a", "b"] * (part.n_obs // 2), index=part.obs_names, dtype=object)
    mdata["rna"].raw = mdata["rna"].copy()
    mdata["rna"].raw.var["note"] = pd.Series("a", index=mdata["rna"].var_names, dtype=object)
    mdata.obsm["whole"] = np.ones((mdata.n_obs, 2), int)
    mdata = mdata[:20] if of_view else mdata
    tables = {"obs": mdata.obs, "var": mdata.var, "raw": mdata["rna"].raw.var}
    tables |= {f"{key}.{name}": getattr(part, name) for key, part in mdata.mod.items() for name in ("obs", "var")}
    before = {name: table.copy() for name, table in tables.items()}
    workflow.write_mudata(mdata, tmp_path / "result.h5mu")
    after = {"obs": mdata.obs, "var": mdata.var, "raw": mdata["rna"].raw.var}
    after |= {f"{key}.{name}": getattr(part, name) for key, part in mdata.mod.items() for name in ("obs", "var")}
    for name, table in before.items():
        pd.testing.assert_frame_equal(after[name], table)
    again = read(tmp_path / "result.h5mu")
    assert again["rna"].obs["note"].astype(str).tolist() == before["rna.obs"]["note"].tolist()
    assert again.obs_names.equals(mdata.obs_names) and (again["atac"].X != mdata["atac"].X).nnz == 0


def test_a_name_by_which_the_file_could_not_be_read_is_refused(tmp_path):
    mdata = mudata.MuData({"rna": anndata.AnnData(np.ones((2, 2)))})
    with pytest.raises(ScmambaError, match=r"must end in .h5mu, got 'result.zarr'"):
        workflow.write_mudata(mdata, tmp_path / "result.zarr")
    assert not any(tmp_path.iterdir())


def test_no_embedding_is_written_into_a_slice(integrated):
    """mudata would put its cells into another order while it is written, where some lack a modality."""
    mdata, model = integrated
    mosaic = mudata.MuData({"rna": mdata["rna"][20:].copy(), "atac": mdata["atac"][:-20].copy()})
    with pytest.raises(ScmambaError, match=r"mdata is a view.*mdata = mdata.copy\(\)"):
        workflow.write_embeddings(mosaic[::-1], model)


def test_embeddings_are_written_all_or_none(integrated):
    mdata, model = integrated
    other = mudata.MuData({"rna": mdata["rna"][:50].copy(), "atac": mdata["atac"][:50, 1:].copy()})
    del other["rna"].obsm["X_scmamba"]
    with pytest.raises(ScmambaError, match=r"features of mdata\['atac'\] are not those of the model"):
        workflow.write_embeddings(other, model)
    assert "X_scmamba" not in other.obsm and "X_scmamba" not in other["rna"].obsm
    both = mdata[:50].copy()
    before = both.obsm["X_scmamba"].copy(), both["atac"].obsm["X_scmamba"].copy()
    workflow.write_embeddings(both, model)
    np.testing.assert_allclose(both.obsm["X_scmamba"], before[0], atol=1e-5)
    np.testing.assert_allclose(both["atac"].obsm["X_scmamba"], before[1], atol=1e-5)
