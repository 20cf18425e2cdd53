"""Minibatches of one batch each."""

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from scmamba_scvi import SCMAMBA
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.model.training.samplers import BatchPureSampler


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([700, 1300, 450], id="batches larger than a minibatch"),
        pytest.param([90, 40, 2000], id="batches smaller than a minibatch"),
        pytest.param([1000, 3, 2, 1, 1], id="batches of a few cells"),
        pytest.param([1000, 1], id="a batch of one cell"),
        pytest.param([5, 4, 3], id="nothing but small batches"),
    ],
)
def test_every_cell_is_drawn_once_and_no_minibatch_has_one_cell(sizes):
    torch.manual_seed(0)
    batches = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    sampler = BatchPureSampler(batches, 256)
    minibatches = list(sampler)
    assert len(minibatches) == len(sampler)
    np.testing.assert_array_equal(np.sort(np.concatenate(minibatches)), np.arange(len(batches)))
    assert min(map(len, minibatches)) >= 2
    assert max(map(len, minibatches)) <= 256 * 1.5


def test_a_minibatch_holds_one_batch_unless_batches_are_small():
    torch.manual_seed(0)
    batches = np.repeat([0, 1, 2, 3], [600, 300, 10, 12])
    for cells in BatchPureSampler(batches, 128):
        found = set(batches[cells])
        assert len(found) == 1 or found == {2, 3}


def test_every_epoch_has_a_new_order_that_follows_from_the_seed():
    batches = np.repeat([0, 1], 500)
    sampler = BatchPureSampler(batches, 100)
    torch.manual_seed(1)
    first, second = list(sampler), list(sampler)
    torch.manual_seed(1)
    assert first == list(sampler)
    assert first != second


def test_a_model_trains_on_minibatches_of_one_batch():
    mdata = simulate_multiome(n_cells=400, n_genes=200, n_peaks=400, n_batches=2, seed=0)
    SCMAMBA.setup_mudata(mdata, batch_key="batch")
    model = SCMAMBA(mdata)
    seen = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, plan, batch, batch_idx):
            seen.append(batch["batch"].ravel().tolist())

    model.train(max_epochs=2, plan_kwargs={"batch_pure": True}, enable_progress_bar=False, callbacks=[Watch()])
    assert seen and all(len(set(batch)) == 1 for batch in seen)


def test_minibatches_of_one_batch_need_a_batch_key():
    mdata = simulate_multiome(n_cells=400, n_genes=200, n_peaks=400, seed=0)
    SCMAMBA.setup_mudata(mdata)
    with pytest.raises(ScmambaError, match="batch_key"):
        SCMAMBA(mdata).train(max_epochs=1, plan_kwargs={"batch_pure": True})
