"""A model that comes back from a file is the same, and can be used as before."""

import numpy as np
import pytest
from shapes import rebuilt

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


def test_a_loaded_model_can_be_trained_further(trained, tmp_path, quick):
    trained.save(tmp_path / "m")
    loaded = SCMAMBA.load(tmp_path / "m", adata=rebuilt(trained.adata))
    loaded.train(**quick)
    assert len(loaded.history["train_loss"]) == 4


def test_a_model_loaded_with_other_cells_does_not_know_which_were_held_out(trained, tmp_path):
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
