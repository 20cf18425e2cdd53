"""Minibatches one ahead; the copy to a GPU itself needs one."""

import numpy as np
import pytest
import torch

from scmamba_scvi import SCMAMBA
from scmamba_scvi.model._activations import decide_checkpointing, fits
from scmamba_scvi.model._transfer import OneAhead, map_parts, one_ahead


def test_the_next_is_sent_before_one_is_given_out():
    order = []
    given = one_ahead(range(3), lambda i: order.append(f"send {i}") or i, lambda i: order.append(f"give {i}") or i)
    assert list(given) == [0, 1, 2]
    assert order == ["send 0", "send 1", "give 0", "send 2", "give 1", "give 2"]
    assert list(one_ahead([], None, None)) == []


def test_parts_of_a_sparse_minibatch_keep_values_and_types():
    x = torch.eye(3).to_sparse_csr()
    moved = map_parts(torch.clone, x)
    assert moved.values().data_ptr() != x.values().data_ptr()
    assert moved.crow_indices().dtype == x.crow_indices().dtype
    torch.testing.assert_close(moved.to_dense(), torch.eye(3))
    torch.testing.assert_close(map_parts(lambda part: part + 1, torch.arange(3)), torch.tensor([1, 2, 3]))


def test_checkpointing_is_decided_by_what_is_free(mdata):
    SCMAMBA.setup_mudata(mdata)
    module = SCMAMBA(mdata).module
    network = module.encoders["rna"].network
    for asked in (True, False):
        decide_checkpointing(module, asked, None, None)
        assert network.checkpoint_blocks is asked
    network.checkpoint_blocks = True
    decide_checkpointing(module, None, None, None)
    assert not network.checkpoint_blocks  # a CPU keeps activations
    to_come = 12 * sum(p.numel() for p in module.parameters())  # gradient and two moments in float32
    assert fits(700, module, to_come + 1000) and not fits(701, module, to_come + 1000)


def test_training_with_checkpointed_blocks_is_the_same_training(mdata, quick):
    SCMAMBA.setup_mudata(mdata)
    losses = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = SCMAMBA(mdata, n_latent=16, gate_init=0.5)
        torch.manual_seed(1)
        model.train(
            batch_size=40, contrastive_batch_size=160, plan_kwargs={"checkpoint_activations": checkpointed}, **quick
        )
        assert model.module.encoders["rna"].network.checkpoint_blocks is checkpointed
        losses.append(model.history["train_loss"].astype(float))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


@pytest.mark.gpu
def test_minibatches_arrive_whole_on_a_gpu(mdata):
    SCMAMBA.setup_mudata(mdata)
    dataset = SCMAMBA(mdata).adata_manager.create_torch_dataset()
    batches = [dataset[np.arange(first, first + 50)] for first in range(0, 200, 50)]
    for sent, given in zip(batches, OneAhead(batches, torch.device("cuda", 0)), strict=True):
        assert sent.keys() == given.keys()
        for name, tensor in given.items():
            assert tensor.device.type == "cuda"
            torch.testing.assert_close(tensor.cpu(), sent[name])


@pytest.mark.gpu
def test_training_and_embedding_on_a_gpu(mdata, quick):
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata)
    model.train(batch_size=20, contrastive_batch_size=80, **{**quick, "accelerator": "gpu"})
    assert np.isfinite(model.get_latent_representation()).all()
