"""Which process reads which cells, and the order of an epoch."""

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from scmamba_scvi.model.training.samplers import LoaderOnDevice, PartOfMinibatch


@pytest.mark.parametrize("world_size", [2, 3])
def test_each_cell_of_an_epoch_is_read_by_one_process(world_size):
    def minibatches():
        generator = torch.Generator().manual_seed(3)
        return BatchSampler(RandomSampler(range(810), generator=generator), 120, drop_last=False)

    parts_of = [PartOfMinibatch(minibatches(), number, world_size) for number in range(world_size)]
    epochs = [[list(part) for part in parts_of] for _ in range(2)]
    for epoch in epochs:
        assert len({len(parts) for parts in epoch}) == 1 and len(epoch[0]) == len(parts_of[0])
        np.testing.assert_array_equal(
            np.sort(np.concatenate([np.concatenate(parts) for parts in epoch])), np.arange(810)
        )
    assert epochs[0] != epochs[1]
    whole = list(minibatches())
    assert [sorted(sum(parts, [])) for parts in zip(*epochs[0], strict=True)] == [sorted(cells) for cells in whole]


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
