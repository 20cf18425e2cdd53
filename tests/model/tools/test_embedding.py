"""The embedding of cells of one modality and of all: names, unknown batches, nothing at all."""

import numpy as np
import pytest

from scmamba_scvi.errors import ScmambaError


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


@pytest.mark.parametrize("size", [0, -1, 2.0, "all"])
def test_a_batch_size_that_is_none_is_refused(trained, size):
    with pytest.raises(ScmambaError, match="batch_size must be"):
        trained.get_latent_representation(batch_size=size)
