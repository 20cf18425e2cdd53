"""Deep copies and pickles of a model."""

import copy
import pickle

import numpy as np
import pytest
import torch
from shapes import QUICK, fitted, small

from scmamba_scvi.errors import ScmambaError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model():
    return fitted(small())


def test_a_deep_copy_has_a_network_of_its_own(model):
    expected, rng = model.get_latent_representation(), torch.get_rng_state()
    other = copy.deepcopy(model)
    assert torch.equal(torch.get_rng_state(), rng) and other.adata is model.adata
    np.testing.assert_allclose(other.get_latent_representation(), expected, atol=1e-6)
    assert other.history["train_loss"].equals(model.history["train_loss"])
    other.train(**QUICK, plan_kwargs={"lr": 0.01})
    assert len(other.history["train_loss"]) > len(model.history["train_loss"])
    np.testing.assert_allclose(model.get_latent_representation(), expected, atol=1e-6)


def test_a_shallow_copy_keeps_the_data_and_has_a_network_of_its_own(model):
    expected = model.get_latent_representation()
    other = copy.copy(model)
    assert other.adata is model.adata
    n_epochs = len(model.history["train_loss"])
    np.testing.assert_allclose(other.get_latent_representation(), expected, atol=1e-6)
    other.train(**QUICK, plan_kwargs={"lr": 0.01})
    assert len(model.history["train_loss"]) == n_epochs < len(other.history["train_loss"])
    np.testing.assert_allclose(model.get_latent_representation(), expected, atol=1e-6)


def test_training_a_shallow_copy_leaves_the_batches_that_the_model_knows():
    mdata = small()
    model = fitted(mdata, batch_key="batch")
    other = copy.copy(model)
    other.adata = mdata[mdata.obs["batch"] == "batch 1"].copy()
    other.train(**QUICK)
    assert other.unknown_offsets_ == {"rna": [0], "atac": [0]} and not any(model.unknown_offsets_.values())


def test_a_pickled_model_comes_back_without_data(model):
    other = pickle.loads(pickle.dumps(model))
    assert other.adata is None and other.is_trained and other.config == model.config and not other.module.training
    with pytest.raises(ScmambaError, match="without data"):
        other.train(**QUICK)
    np.testing.assert_allclose(other.get_latent_representation(small()), model.get_latent_representation(), atol=1e-6)
