"""A model that comes back from a file is the same, and can be used as before."""

import pickle
import shutil
import warnings

import mudata
import numpy as np
import pytest
import torch
from shapes import fitted, rebuilt, small

from scmamba_scvi import SCMAMBA
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.workflow import validation_scores


@pytest.fixture(scope="module")
def reference(trained):
    """The joint embedding that the model gives its own data."""
    return trained.get_latent_representation()


def test_a_saved_model_is_loaded_unchanged(trained, reference, tmp_path):
    trained.save(tmp_path / "m")
    loaded = SCMAMBA.load(tmp_path / "m", adata=rebuilt(trained.adata))
    np.testing.assert_allclose(loaded.get_latent_representation(), reference, atol=1e-5)
    assert loaded.history["train_loss"].equals(trained.history["train_loss"])
    assert loaded.config == trained.config


def test_a_full_disk_is_said_before_anything_is_saved(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30, 1000))
    with pytest.raises(ScmambaError, match="has 0 MB left"):
        trained.save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_a_model_loaded_without_data_can_be_saved_again(trained, reference, tmp_path):
    trained.save(tmp_path / "m")
    loaded = SCMAMBA.load(tmp_path / "m", adata=False)
    np.testing.assert_allclose(loaded.get_latent_representation(rebuilt(trained.adata)), reference, atol=1e-5)
    loaded.save(tmp_path / "again")
    again = SCMAMBA.load(tmp_path / "again", adata=False)
    np.testing.assert_allclose(again.get_latent_representation(rebuilt(trained.adata)), reference, atol=1e-5)


def test_an_exported_model_is_read_unchanged(trained, reference, tmp_path):
    trained.export(tmp_path / "m")
    assert {p.name for p in (tmp_path / "m").iterdir()} == {"model.json", "weights.safetensors"}
    for mdata in (None, rebuilt(trained.adata)):
        model = SCMAMBA.from_export(tmp_path / "m", mdata)
        z = model.get_latent_representation(rebuilt(trained.adata) if mdata is None else None)
        np.testing.assert_allclose(z, reference, atol=1e-5)
        assert model.config == trained.config
    model.export(tmp_path / "again")
    assert (tmp_path / "again" / "weights.safetensors").read_bytes() == (
        tmp_path / "m" / "weights.safetensors"
    ).read_bytes()


def test_a_model_loaded_with_other_cells_does_not_know_which_were_held_out_until_it_is_trained(
    trained, tmp_path, quick
):
    """Positions of other cells would name cells that it was trained on, whose scores are far too good."""
    trained.save(tmp_path / "m")
    same = SCMAMBA.load(tmp_path / "m", adata=rebuilt(trained.adata))
    np.testing.assert_array_equal(same.validation_indices, trained.validation_indices)
    for other in (trained.adata[::-1].copy(), trained.adata[:200].copy()):
        loaded = SCMAMBA.load(tmp_path / "m", adata=rebuilt(other))
        with pytest.raises(ScmambaError, match="positions among the cells of the training"):
            _ = loaded.validation_indices
        with pytest.raises(ScmambaError, match="positions among the cells of the training"):
            validation_scores(loaded.adata, loaded)
        loaded.save(tmp_path / f"of {other.n_obs} cells")
        loaded.get_latent_representation()
    loaded.train(**quick)
    assert len(loaded.validation_indices) == 20 and len(loaded.history["train_loss"]) == 4


def test_a_model_without_data_stays_without(trained, reference, tmp_path):
    """The first data that it is asked about are not taken for its own."""
    trained.save(tmp_path / "m")
    mdata = rebuilt(trained.adata)
    for model in (SCMAMBA.load(tmp_path / "m", adata=False), pickle.loads(pickle.dumps(trained))):
        model.deregister_manager()
        model.get_latent_representation(mdata["rna"][:20].copy())
        for asked in (mdata, mdata.copy(), mdata):  # a copy has the same name among the setups of scvi-tools
            np.testing.assert_allclose(model.get_latent_representation(asked), reference, atol=1e-5)
        assert model.adata is None
        for use in (
            model.get_latent_representation, lambda m=model: m.match_cells(mdata), model.train, lambda m=model: m.save(
                tmp_path / "again", save_anndata=True
            ),
        ):  # fmt: skip
            with pytest.raises(ScmambaError, match="loaded without data|has no data to save"):
                use()
        assert len(model.match_cells(mdata[:20].copy(), mdata).reference_names) == len(mdata.obs_names)
        model.adata = mdata  # now it has
        np.testing.assert_allclose(model.get_latent_representation(), reference, atol=1e-5)


def test_a_model_that_was_given_other_data_is_saved_with_how_to_set_data_up(trained, reference, tmp_path):
    trained.save(tmp_path / "m")
    model = SCMAMBA.load(tmp_path / "m", adata=rebuilt(trained.adata))
    model.adata = rebuilt(trained.adata)
    model.save(tmp_path / "again")
    again = SCMAMBA.load(tmp_path / "again", rebuilt(trained.adata))
    np.testing.assert_allclose(again.get_latent_representation(), reference, atol=1e-5)


def test_data_that_a_model_is_given_are_judged_as_at_setup(tmp_path):
    """What can be neither trained on nor loaded again is refused at once."""
    model = fitted(small(), batch_key="batch")
    mdata = small()
    mdata.obs["batch"] = mdata.obs["batch"].astype(object).where(np.arange(mdata.n_obs) > 9)
    with pytest.raises(ScmambaError, match="missing for 10 of 60 cells"):
        model.adata = mdata
    assert model.adata is not mdata
    mdata.obs["batch"] = "batch 1"
    mdata["rna"].X.data[: mdata["rna"].X.indptr[1]] = 0  # the first cell
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.adata = mdata
    assert model.adata is mdata and sum("1 of 60 cells" in str(one.message) for one in said) == 1  # not checked twice


def test_batches_that_new_data_of_a_model_bring_are_named():
    model, mdata = fitted(small(), batch_key="batch"), small()
    mdata.obs["batch"] = ["new"] * 30 + ["batch 1"] * 30
    model.adata = mdata
    assert model.batches.tolist() == ["batch 0", "batch 1"]
    assert "'new' (30)" in model._name_batches(model._uncorrected_batches())


@pytest.mark.filterwarnings("error:.*var_names")
def test_features_in_another_order_are_loaded_without_a_warning(trained, reference, tmp_path):
    trained.save(tmp_path / "m")
    mdata = rebuilt(trained.adata)
    mdata.mod["rna"] = mdata["rna"][:, ::-1].copy()
    mdata.update()
    np.testing.assert_allclose(SCMAMBA.load(tmp_path / "m", mdata).get_latent_representation(), reference, atol=1e-5)


def test_a_model_saved_with_a_prefix_is_named(trained, tmp_path):
    trained.save(tmp_path / "m", prefix="b_")
    named = pytest.raises(ScmambaError, match=r"has no model.pt, but b_model.pt.*prefix='b_'\).*pass the model")
    with named:
        SCMAMBA.load(tmp_path / "m")
    with named:
        SCMAMBA.load_query_data(trained.adata[:50].copy(), tmp_path / "m")
    assert SCMAMBA.load(tmp_path / "m", adata=False, prefix="b_").is_trained


def test_reading_a_model_draws_nothing_that_others_would_see(trained, tmp_path):
    trained.save(tmp_path / "saved")
    trained.export(tmp_path / "exported")
    mdata, query = rebuilt(trained.adata), SCMAMBA.prepare_query_mudata(trained.adata, trained)
    before = torch.get_rng_state()
    for read in (
        lambda: SCMAMBA.load(tmp_path / "saved", mdata),
        lambda: SCMAMBA.from_export(tmp_path / "exported", mdata),
        lambda: SCMAMBA.load_query_data(query, trained),
        lambda: SCMAMBA.load_query_data(query, tmp_path / "saved"),
    ):
        read()
        assert torch.equal(torch.get_rng_state(), before)


def test_a_folder_of_the_other_format_is_named(trained, tmp_path):
    trained.save(tmp_path / "saved")
    trained.export(tmp_path / "exported")
    with pytest.raises(ScmambaError, match=r"holds what export wrote, not save: SCMAMBA.from_export\('.*exported'\)"):
        SCMAMBA.load(tmp_path / "exported", trained.adata)
    with pytest.raises(ScmambaError, match=r"holds what save wrote, not export. .* trust, .*SCMAMBA.load\('.*saved'\)"):
        SCMAMBA.from_export(tmp_path / "saved")


@pytest.mark.parametrize("read", [SCMAMBA.load, SCMAMBA.from_export])
def test_what_is_no_path_is_named(read):
    with pytest.raises(ScmambaError, match="'None' is not the path of a folder"):
        read(None)


def test_data_saved_before_stay_where_they_are_of_the_model(trained, reference, tmp_path):
    """Also when the model reads its data from there."""
    trained.save(tmp_path / "m", save_anndata=True)
    loaded = SCMAMBA.load(tmp_path / "m", mudata.read_h5mu(tmp_path / "m" / "mdata.h5mu", backed="r"))
    loaded.save(tmp_path / "m", overwrite=True)
    SCMAMBA.load(tmp_path / "m", adata=False).save(tmp_path / "m", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["mdata.h5mu", "model.pt"]
    for model in (loaded, SCMAMBA.load(tmp_path / "m")):
        np.testing.assert_allclose(model.get_latent_representation(), reference, atol=1e-5)
