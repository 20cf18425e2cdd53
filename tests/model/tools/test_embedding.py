"""The embedding of cells of one modality and of all: names, unknown batches, nothing at all."""

import mudata
import numpy as np
import pytest

from scmamba_scvi import SCMAMBA
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.model.inputs.manager import MultiModalDataset
from scmamba_scvi.model.tools import embedding
from scmamba_scvi.model.training.prefetch import sent_to


def test_joint_is_the_default_and_another_space_than_those_of_the_modalities(trained):
    joint = trained.get_latent_representation()
    np.testing.assert_array_equal(joint, trained.get_latent_representation(modality="joint"))
    rna, atac = (trained.get_latent_representation(modality=kind) for kind in ("rna", "atac"))
    for z in (joint, rna, atac):
        assert z.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    assert np.abs(joint - rna).max() > 0.1


def test_no_cells_have_an_empty_embedding(trained):
    assert trained.get_latent_representation(indices=[]).shape == (0, 64)


@pytest.mark.parametrize("on_gpu", [True, False])
def test_minibatches_are_sent_ahead_unless_they_are_made_on_the_gpu(trained, monkeypatch, on_gpu):
    """Memory of a GPU cannot be pinned; counts are there while a training lasts, in which a callback may embed."""
    asked = []

    def recorded(device, batches, *, ahead=True):
        asked.append(ahead)
        return sent_to(device, batches, ahead=ahead)

    monkeypatch.setattr(embedding, "sent_to", recorded)
    monkeypatch.setattr(MultiModalDataset, "on_gpu", on_gpu)
    assert trained.get_latent_representation(indices=range(5)).shape == (5, 64)
    assert asked == [not on_gpu]


@pytest.mark.parametrize("size", [0, -1, 2.0, "all"])
def test_a_batch_size_that_is_none_is_refused(trained, size):
    with pytest.raises(ScmambaError, match="batch_size must be"):
        trained.get_latent_representation(batch_size=size)


@pytest.mark.parametrize("batches", [np.nan, 7], ids=["missing", "of another type"])
def test_batches_of_new_data_are_not_judged_where_they_are_not_read(trained, recwarn, batches):
    new = trained.adata[:20].copy()
    new.obs["batch"] = new.obs["batch"].astype(object)
    new.obs.iloc[:5, new.obs.columns.get_loc("batch")] = batches
    expected = trained.get_latent_representation(trained.adata, range(20), modality="rna")
    recwarn.clear()
    np.testing.assert_allclose(trained.get_latent_representation(new, modality="rna"), expected, atol=1e-5)
    assert not [w for w in recwarn if "corrected" in str(w.message)]
    with pytest.warns(UserWarning, match="joint embedding of 5 of 20 cells is not corrected for batches"):
        trained.get_latent_representation(new)
    for use in (lambda: SCMAMBA.setup_mudata(new, batch_key="batch"), lambda: SCMAMBA.load_query_data(new, trained)):
        with pytest.raises(
            ScmambaError, match="batch_key='batch' (is missing for 5 of 20 cells|holds values of several)"
        ):
            use()


@pytest.mark.parametrize("rows", [slice(20), [7, 3, 40]], ids=["first", "any order"])
def test_a_slice_of_data_opened_backed_is_embedded_and_stays_a_slice(trained, tmp_path, rows):
    trained.adata.write_h5mu(tmp_path / "m.h5mu")
    opened = mudata.read_h5mu(tmp_path / "m.h5mu", backed="r")
    part = opened[rows]
    expected = trained.get_latent_representation(opened)[rows]
    np.testing.assert_allclose(trained.get_latent_representation(part), expected, atol=1e-5)
    of_rna = trained.get_latent_representation(opened, modality="rna")[rows]
    np.testing.assert_allclose(trained.get_latent_representation(part["rna"], modality="rna"), of_rna, atol=1e-5)
    assert part.is_view and part.isbacked
    with pytest.raises(ScmambaError, match=r"mdata is a view.*: mdata = mdata.copy\('slice.h5mu'\)"):
        SCMAMBA.setup_mudata(part)


def test_a_layer_that_new_data_lack_is_answered_with_where_to_put_it(mdata, quick):
    for modality in mdata.mod.values():
        modality.layers["c"] = modality.X.copy()
    SCMAMBA.setup_mudata(mdata, layers={"rna": "c"})
    model = SCMAMBA(mdata, encoder="linear")
    model.train(**quick)
    new = mdata["rna"].copy()
    del new.layers["c"]
    with pytest.raises(ScmambaError, match=r"mdata\['rna'\].layers\['c'\] = mdata\['rna'\].X"):
        model.get_latent_representation(new)
