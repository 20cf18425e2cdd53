"""The embedding of cells of one modality and of all: names, unknown batches, nothing at all."""

import numpy as np
import pytest

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


def test_cells_without_a_known_batch_are_counted(trained):
    query = trained.adata[:20].copy()
    query.obs["batch"] = ["new"] * 5 + list(query.obs["batch"][5:])
    with pytest.warns(UserWarning, match="joint embedding of 5 of 20 cells is not corrected for batches: it was not"):
        trained.get_latent_representation(query)


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
