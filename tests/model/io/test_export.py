"""An export is there completely or not at all, whatever interrupts it."""

from __future__ import annotations

import copy
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from children import in_child, needs_fork
from shapes import TINY, mudata_of, poisson, two_models

from scmamba_scvi import SCMAMBA
from scmamba_scvi.config import PRESETS
from scmamba_scvi.errors import ScmambaError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def models():
    return two_models()


def weights(model):
    return torch.cat([t.double().ravel() for t in model.module.state_dict().values()])


def same(a, b):
    return torch.equal(weights(a), weights(b))


# -- in a folder -------------------------------


@needs_fork
@pytest.mark.parametrize("call", range(1, 8))
@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_an_export_killed_at_any_step_leaves_one_complete_model(models, tmp_path, name, call):
    folder = tmp_path / "m"
    models[0].export(folder)
    count = [0]

    def work():
        real = getattr(os, name)

        def dying(*arguments, **options):
            count[0] += 1
            if count[0] == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        setattr(os, name, dying)
        models[1].export(folder, overwrite=True)

    status = in_child(work)
    found = SCMAMBA.from_export(folder)
    assert same(found, models[1]) if status == 0 else same(found, models[0]) or same(found, models[1])
    models[1].export(folder, overwrite=True)
    assert same(SCMAMBA.from_export(folder), models[1])
    assert len(list(folder.glob("weights*"))) == 1


@needs_fork
@pytest.mark.parametrize("exists", [True, False], ids=["over another", "new"])
def test_a_full_disk_is_named_and_changes_nothing(models, tmp_path, exists):
    import resource

    folder = tmp_path / "m"
    if exists:
        models[0].export(folder)

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
        with pytest.raises(ScmambaError, match="cannot be written into"):
            models[1].export(folder, overwrite=True)

    assert in_child(work) == 0
    assert [p.name for p in tmp_path.iterdir()] == (["m"] if exists else [])
    if exists:
        assert same(SCMAMBA.from_export(folder), models[0])


def test_weights_that_another_process_reads_may_stay(models, tmp_path, monkeypatch):
    """Windows deletes no file that is open."""
    models[0].export(tmp_path / "m")
    monkeypatch.setattr(Path, "unlink", lambda self, **_: (_ for _ in ()).throw(PermissionError(self)))
    models[1].export(tmp_path / "m", overwrite=True)
    assert same(SCMAMBA.from_export(tmp_path / "m"), models[1])


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_an_export_is_for_whom_the_folders_of_the_user_are(models, tmp_path):
    models[0].export(tmp_path / "m")
    (tmp_path / "other").mkdir()
    assert (tmp_path / "m").stat().st_mode == (tmp_path / "other").stat().st_mode
    before = os.umask(0o077)
    try:
        models[0].export(tmp_path / "private")
    finally:
        os.umask(before)
    assert not (tmp_path / "private").stat().st_mode & 0o077


def test_a_folder_of_something_else_is_not_overwritten(models, tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years")
    with pytest.raises(ScmambaError, match="not an exported model"):
        models[0].export(tmp_path, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ScmambaError, match="not an exported model"):
        models[0].export(tmp_path / "file", overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "ten years"


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kinds", [("rna", "protein"), ("rna", "atac", "protein")], ids=len)
def test_every_preset_comes_back_from_its_export(tmp_path, preset, kinds):
    mdata = mudata_of({kind: poisson(30, 20, seed=i) for i, kind in enumerate(kinds)})
    SCMAMBA.setup_mudata(mdata)
    small = {
        "n_latent": 8, "d_model": 16, "headdim": 16, "d_state": 4, "d_mlp": 8, "d_head": 8, "n_layers": 1,
        "attention_layers": (0,),
    }  # fmt: skip
    model = SCMAMBA(mdata, preset=preset, **small)
    model.export(tmp_path / "m")
    assert same(SCMAMBA.from_export(tmp_path / "m"), model)


def test_an_untrained_model_comes_back_untrained_and_trains(models, tmp_path):
    mdata = models[0].adata
    model = SCMAMBA(mdata, **TINY)
    model.export(tmp_path / "m")
    again = SCMAMBA.from_export(tmp_path / "m", mdata)
    assert (again.is_trained_, again.is_initialized_) == (False, False)
    again.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    assert again.is_trained_ and again.is_initialized_
    again.export(tmp_path / "m", overwrite=True)
    assert SCMAMBA.from_export(tmp_path / "m").is_initialized_


@pytest.mark.parametrize("way", ["export", "save"])
def test_the_preset_of_a_file_is_only_a_label(tmp_path, monkeypatch, way):
    mdata = mudata_of({"rna": poisson(40, 30), "atac": poisson(40, 20)})
    SCMAMBA.setup_mudata(mdata)
    monkeypatch.setitem(PRESETS, "tiny", {**TINY, "attention_layers": {"rna": (0,), "atac": ()}})
    model = SCMAMBA(mdata, preset="tiny", n_latent=3, dropout=0.2)
    getattr(model, way)(tmp_path / "m")
    monkeypatch.delitem(PRESETS, "tiny")
    again = SCMAMBA.from_export(tmp_path / "m") if way == "export" else SCMAMBA.load(tmp_path / "m", mdata)
    assert again.config == model.config and again.preset_ == "tiny" and same(again, model)
    again.save(tmp_path / "again")  # as a copy of a copy
    assert SCMAMBA.load(tmp_path / "again", adata=False).config == model.config
    again.export(tmp_path / "again_exported")
    assert SCMAMBA.from_export(tmp_path / "again_exported").config == model.config
    assert copy.deepcopy(again).config == model.config


@pytest.mark.parametrize("way", ["export", "save"])
def test_how_a_model_is_computed_is_not_saved(models, tmp_path, way):
    model = SCMAMBA(models[0].adata, **TINY, ssd_backend="triton")
    model.module.load_state_dict(models[0].module.state_dict())
    model.is_trained_ = True
    assert copy.deepcopy(model).config == model.config
    getattr(model, way)(tmp_path / "m")
    again = SCMAMBA.from_export(tmp_path / "m") if way == "export" else SCMAMBA.load(tmp_path / "m", adata=False)
    assert again.config.ssd_backend == "auto"
    assert again.config.architecture() == model.config.architecture()
    assert np.isfinite(again.get_latent_representation(models[0].adata)).all()  # also where there is no triton


@pytest.mark.parametrize("way", ["export", "save"])
def test_the_precision_of_training_comes_back_with_the_model(models, tmp_path, way):
    model = copy.deepcopy(models[0])
    assert model.precision_ == "32-true"
    model.precision_ = "bf16-mixed"
    getattr(model, way)(tmp_path / "m")
    load = SCMAMBA.from_export if way == "export" else SCMAMBA.load
    again = load(tmp_path / "m", model.adata, accelerator="cpu")
    assert again.precision_ == "bf16-mixed" and again.module.device.type == "cpu"


@pytest.mark.parametrize("unlabeled", [-1, np.int64(-1), "-1", np.nan])
def test_whatever_stands_for_no_label_comes_back(tmp_path, unlabeled):
    mdata = mudata_of({"rna": poisson(60, 20, seed=1), "atac": poisson(60, 20, seed=2)})
    mdata.obs["type"] = np.arange(60) % 3 - 1
    SCMAMBA.setup_mudata(mdata, labels_key="type", unlabeled_category=unlabeled, require_counts=np.True_)
    SCMAMBA(mdata, **TINY).export(tmp_path / "m")
    kept = SCMAMBA.from_export(tmp_path / "m").registry_["setup_args"]["unlabeled_category"]
    assert kept == (unlabeled if unlabeled == unlabeled else "nan")


@pytest.mark.parametrize("wrong", [{"unlabeled_category": None}, {"require_counts": 0}, {"require_counts": "no"}])
def test_setup_refuses_what_an_export_could_not_hold(wrong):
    mdata = mudata_of({"rna": poisson(60, 20, seed=1), "atac": poisson(60, 20, seed=2)})
    with pytest.raises(ScmambaError, match="unlabeled_category must be a value"):
        SCMAMBA.setup_mudata(mdata, **wrong)


def test_a_folder_of_links_is_read(models, tmp_path):
    """The client of the Hugging Face hub gives such a folder: links into its store of blobs."""
    models[0].export(tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    assert same(SCMAMBA.from_export(tmp_path / "snapshot"), models[0])
