"""What is trained can be kept: said before training where it cannot, whole or not at all, and read as it was written."""

from __future__ import annotations

import signal

import numpy as np
import pandas as pd
import pytest
import torch
from children import in_child, needs_fork
from shapes import TINY, mudata_of, poisson

from scmamba_scvi import SCMAMBA, read, workflow
from scmamba_scvi.errors import ScmambaError

pytestmark = pytest.mark.filterwarnings("ignore")
N = 40
DATES = pd.to_datetime(["2024-01-01", "2024-02-02"] * (N // 2))


def good(**columns):
    mdata = mudata_of({"rna": poisson(N, 30), "atac": poisson(N, 20)})
    for name, values in columns.items():
        mdata.obs[name] = pd.Series(values, index=mdata.obs_names)
    return mdata


def trained(mdata, **setup):
    SCMAMBA.setup_mudata(mdata, **setup)
    model = SCMAMBA(mdata, **TINY)
    model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    return model


COLUMNS = {
    "text": ["a", "b"],
    "nullable text": pd.array(["a", "b"], dtype="string"),
    "categories of nullable text": pd.Categorical(pd.array(["a", "b"], dtype="string")),
    "whole numbers": np.array([1, 2], dtype=np.int8),
    "nullable whole numbers": pd.array([1, 2], dtype="Int64"),
    "nullable fractions": pd.array([0.5, 2], dtype="Float64"),
    "fractions of 32 bits": np.array([0.1, 0.2], dtype=np.float32),
    "yes and no": [True, False],
    "nullable yes and no": pd.array([True, False], dtype="boolean"),
    "dates": pd.to_datetime(["2024-01-01", "2024-02-02"]),
    "dates of a time zone": pd.to_datetime(["2024-01-01", "2024-02-02"]).tz_localize("UTC"),
    "categories of dates": pd.Categorical(pd.to_datetime(["2024-01-01", "2024-02-02"])),
    "days": np.array([pd.Timestamp("2024-01-01").date(), pd.Timestamp("2024-02-02").date()]),
    "periods": pd.PeriodIndex(["2024-01", "2024-02"], freq="M"),
    "intervals": pd.cut([1, 5], 2),
}


@pytest.mark.parametrize("values", COLUMNS.values(), ids=COLUMNS)
def test_batches_of_any_type_come_back_from_files(tmp_path, values):
    column = pd.concat([pd.Series(values)] * (N // 2), ignore_index=True)
    unknown = column.where(np.arange(N) % 5 > 0)
    mdata = good(batch=column.array, label=unknown.array)
    model = trained(mdata, batch_key="batch", labels_key="label")
    model.train_classifier()
    model.export(tmp_path / "exported")
    model.save(tmp_path / "saved")
    for again in (SCMAMBA.from_export(tmp_path / "exported", mdata), SCMAMBA.load(tmp_path / "saved", mdata)):
        assert list(again.batches) == list(model.batches) and len(model.batches) == 2
        for data in (mdata, mdata.copy()):
            np.testing.assert_allclose(
                again.get_latent_representation(data), model.get_latent_representation(), atol=1e-6
            )
        assert (again.predict() == model.predict()).all() and set(model.predict()) == set(map(str, unknown.dropna()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("accelerator", ["gpu", "mps", "tpu"])
def test_a_device_that_is_not_there_is_our_error(tmp_path, accelerator):
    mdata = good()
    trained(mdata).save(tmp_path / "m")
    refused = pytest.raises(ScmambaError, match=r"accelerator='\w+'.* cannot be used on this machine")
    for arguments in ({}, {"device": 3}):
        with refused:
            SCMAMBA.load(tmp_path / "m", mdata, accelerator=accelerator, **arguments)
    reference = SCMAMBA.load(tmp_path / "m", mdata)
    reference.export(tmp_path / "exported")
    with refused:
        SCMAMBA.from_export(tmp_path / "exported", mdata, accelerator=accelerator)
    with refused:
        reference.train(accelerator=accelerator)
    with refused:
        SCMAMBA.load_query_data(mdata, reference, accelerator=accelerator)
    with pytest.raises(ScmambaError, match="no data to save"):
        SCMAMBA.load(tmp_path / "m", adata=False).save(tmp_path / "again", save_anndata=True)
    before = mdata.obs.copy()
    with refused:
        workflow.integrate(mdata, accelerator=accelerator)
    pd.testing.assert_frame_equal(mdata.obs, before)


def in_obs(value):
    return lambda mdata: mdata.obs.__setitem__("x", pd.Series(value, index=mdata.obs_names))


CONTENT = {
    "dates": (in_obs(DATES), "mdata.obs['x']"),
    "several types": (in_obs(np.array(["a", 1] * (N // 2), dtype=object)), "mdata.obs['x']"),
    "lists": (in_obs(pd.Series([["a"]] * N).to_numpy()), "mdata.obs['x']"),
    "nothing but None": (in_obs(np.array([None] * N)), "mdata.obs['x']"),
    "a number as name": (lambda mdata: mdata["rna"].obs.__setitem__(0, 1.0), "mdata['rna'].obs[0]"),
    "dates of genes": (lambda mdata: mdata["rna"].var.__setitem__("x", DATES[:30]), "mdata['rna'].var['x']"),
    "an object": (lambda mdata: mdata.uns.__setitem__("x", object()), "mdata.uns['x']"),
    "several types in a table": (
        lambda mdata: mdata["rna"].obsm.__setitem__("x", pd.DataFrame({"c": ["a", 1] * (N // 2)}, mdata.obs_names)),
        "mdata['rna'].obsm['x']",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTENT)
def test_what_no_file_can_hold_is_named_before_training(tmp_path, case):
    change, entry = CONTENT[case]
    mdata = good()
    change(mdata)
    with pytest.raises(ScmambaError) as error:
        workflow.write_mudata(mdata, tmp_path / "cells.h5mu")
    assert entry in str(error.value) and f"del {entry}" in str(error.value)

    def stop(*_, **__):
        raise InterruptedError("training begins")

    with pytest.MonkeyPatch.context() as patch, pytest.warns(UserWarning) as warned:
        patch.setattr(SCMAMBA, "train", stop)
        with pytest.raises(InterruptedError):
            workflow.integrate(mdata, umap=False)
    assert any(f"del {entry}" in str(warning.message) for warning in warned)
    SCMAMBA.setup_mudata(mdata)
    with pytest.raises(ScmambaError, match="cannot be written into a file"):
        SCMAMBA(mdata, **TINY).save(tmp_path / "saved", save_anndata=True)
    assert not list(tmp_path.iterdir())


def test_nullable_text_and_long_names_are_written(tmp_path):
    mdata = good(donor=pd.array(["a", "b", None, "c"] * (N // 4), dtype="string"))
    mdata["rna"].obs["own"] = pd.array([*mdata.obs_names[:-1], None], dtype="string")  # which no categories replace
    for part in mdata.mod.values():
        part.obs_names = [f"{'cell' * 500} {i}" for i in range(N)]
    mdata.update()
    workflow.write_mudata(mdata, tmp_path / "cells.h5mu")
    found = read(tmp_path / "cells.h5mu")
    assert found.obs_names.equals(mdata.obs_names)
    assert found["rna"].obs["own"].isna().tolist() == [False] * (N - 1) + [True]


@pytest.mark.parametrize("exists", ["a save", "a file", "no writing"])
def test_a_folder_that_cannot_be_used_is_said_before_training(tmp_path, monkeypatch, exists):
    folder = tmp_path / "m"
    if exists == "a file":
        folder.write_text("")
    elif exists == "a save":
        folder.mkdir()
        (folder / "model.pt").write_text("")
    else:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: (_ for _ in ()).throw(OSError(30, "Read-only")))
    monkeypatch.setattr(SCMAMBA, "train", lambda *_, **__: pytest.fail("training began"))
    with pytest.raises(ScmambaError, match="Nothing can be written|is a file|exists"):
        workflow.integrate(good(), model_dir=folder, umap=False)


@needs_fork
@pytest.mark.parametrize("exists", [True, False], ids=["over another", "new"])
@pytest.mark.parametrize(
    ("with_data", "fits"), [(False, False), (True, False), (True, True)], ids=["alone", "with data", "weights fit"]
)
def test_a_full_disk_leaves_what_can_be_loaded(tmp_path, exists, with_data, fits):
    import resource

    mdata = good()
    mdata.uns["large"] = np.zeros(60_000)
    model = trained(mdata)
    folder = tmp_path / "m"
    if exists:
        model.save(folder, save_anndata=with_data)
        first = model.get_latent_representation()
        with torch.no_grad():
            for parameter in model.module.parameters():
                parameter += 0.1
    now = model.get_latent_representation()

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000 if fits else 2000, resource.RLIM_INFINITY))
        with pytest.raises(ScmambaError, match="cannot be saved into .*" + ("" if fits else "the disk may be full")):
            model.save(folder, overwrite=True, save_anndata=with_data)

    assert in_child(work) == 0
    assert [path.name for path in tmp_path.iterdir()] == (["m"] if exists or fits else [])
    if exists:
        loaded = SCMAMBA.load(folder, None if with_data else mdata)
        np.testing.assert_allclose(loaded.get_latent_representation(), first, atol=1e-6)
    elif fits:  # weights without their data are better than neither
        np.testing.assert_allclose(SCMAMBA.load(folder, mdata).get_latent_representation(), now, atol=1e-6)


def test_data_of_an_earlier_save_are_not_taken_for_those_of_new_weights(tmp_path):
    trained(good()).save(tmp_path / "m", save_anndata=True)
    saved = (tmp_path / "m" / "mdata.h5mu").read_bytes()
    other = mudata_of({"rna": poisson(N, 25, seed=1), "atac": poisson(N, 20, seed=1)})  # other genes of the same cells
    model = trained(other)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "mdata.h5mu").write_bytes(saved[:3000])
    for folder in ("m", "damaged"):
        with pytest.warns(UserWarning, match="is of other cells or features .* it is mdata-before.h5mu now"):
            model.save(tmp_path / folder, overwrite=True)
    assert SCMAMBA.load(tmp_path / "damaged", adata=False).is_trained
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"model.pt", "mdata-before.h5mu"}
    assert (tmp_path / "m" / "mdata-before.h5mu").read_bytes() == saved  # nothing is deleted
    z = SCMAMBA.load(tmp_path / "m", other).get_latent_representation()
    np.testing.assert_allclose(z, model.get_latent_representation(), atol=1e-6)
