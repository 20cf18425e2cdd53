"""Minibatches are sent one ahead; the tests of the copy itself need a GPU."""

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from scmamba_scvi import SCMAMBA
from scmamba_scvi.model.training.prefetch import LoaderOnDevice, map_parts, prefetched, sent_to


def test_the_next_item_is_sent_before_one_is_received():
    order = []

    def logged(what):
        def step(item):
            order.append(f"{what} {item}")
            return item

        return step

    assert list(prefetched(range(3), logged("send"), logged("receive"))) == [0, 1, 2]
    assert order == ["send 0", "send 1", "receive 0", "send 2", "receive 1", "receive 2"]
    assert list(prefetched([], None, None)) == []


def test_parts_of_a_sparse_minibatch_keep_values_and_types():
    x = torch.eye(3).to_sparse_csr()
    moved = map_parts(torch.clone, x)
    assert moved.values().data_ptr() != x.values().data_ptr()
    assert moved.crow_indices().dtype == x.crow_indices().dtype
    torch.testing.assert_close(moved.to_dense(), torch.eye(3))
    torch.testing.assert_close(map_parts(lambda part: part + 1, torch.arange(3)), torch.tensor([1, 2, 3]))


@pytest.mark.parametrize(("device", "waits"), [("cuda", False), ("cpu", True)])
def test_a_gpu_that_makes_minibatches_is_not_waited_for(device, waits):
    asked = []

    class Sent:
        def to(self, device, non_blocking=False):
            asked.append((device.type, non_blocking))

    assert len(list(sent_to(torch.device(device), [{"cells": Sent(), "batch": Sent()}], ahead=False))) == 1
    assert asked == [(device, not waits)] * 2


@pytest.mark.gpu
def test_minibatches_arrive_whole_on_a_gpu(mdata):
    SCMAMBA.setup_mudata(mdata)
    dataset = SCMAMBA(mdata).adata_manager.create_torch_dataset()
    batches = [dataset[np.arange(first, first + 50)] for first in range(0, 200, 50)]
    for sent, given in zip(batches, sent_to(torch.device("cuda", 0), batches), strict=True):
        assert sent.keys() == given.keys()
        for name, tensor in given.items():
            assert tensor.device.type == "cuda"
            torch.testing.assert_close(tensor.cpu(), sent[name])


@pytest.mark.gpu
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("checkpointed", [None, True])
def test_training_and_embedding_on_a_gpu(mdata, quick, checkpointed, kept, monkeypatch):
    if not kept:
        monkeypatch.setattr("scmamba_scvi.model.inputs.manager.FRACTION_OF_MEMORY", 0.0)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata)
    options = {"checkpoint_activations": checkpointed}
    model.train(batch_size=20, contrastive_batch_size=80, plan_kwargs=options, **{**quick, "accelerator": "gpu"})
    assert np.isfinite(model.get_latent_representation()).all()


@pytest.mark.parametrize("ahead", [True, False])
def test_the_order_follows_from_the_epoch_alone(ahead):
    epoch, generator = 0, torch.Generator()
    sampler = BatchSampler(RandomSampler(range(50), generator=generator), 10, drop_last=False)
    cells = DataLoader(
        TensorDataset(torch.arange(50)),
        batch_sampler=sampler,
        collate_fn=lambda rows: {"x": torch.stack(sum(rows, ()))},
    )
    loader = LoaderOnDevice(cells, torch.device("cpu"), ahead=ahead, begin=lambda: generator.manual_seed(epoch))

    def order():
        return torch.cat([batch["x"] for batch in loader]).tolist()

    first = order()
    begun = iter(loader)  # draws nothing before its first minibatch
    epoch = 1
    second = torch.cat([batch["x"] for batch in begun]).tolist()
    assert first != second == order() and sorted(first) == sorted(second) == list(range(50)) and len(loader) == 5
    epoch = 0
    assert order() == first
