"""Which cells a minibatch consists of, and in which order they are read."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, Sampler

from .prefetch import Loader


class PartOfMinibatch(Sampler[list[int]]):
    """One process's part of every minibatch; the parts of all processes together are the minibatch.

    Every process takes the same number of steps, and no cell is read by two. All must draw the same ``minibatches``.
    """

    def __init__(self, minibatches: BatchSampler, rank: int, world_size: int) -> None:
        self._minibatches, self._rank, self._world_size = minibatches, rank, world_size

    def __len__(self) -> int:
        return len(self._minibatches)

    def __iter__(self) -> Iterator[list[int]]:
        for cells in self._minibatches:
            yield np.array_split(np.asarray(cells), self._world_size)[self._rank].tolist()


class SeededByEpoch:
    """Iterates over a loader whose order is drawn by ``generator``, which gets a seed of its own in each epoch.

    The order then does not depend on how often the loader was begun before, and a resumed training needs only the seed.
    """

    def __init__(self, loader: Loader, generator: torch.Generator, seed: Callable[[], int]) -> None:
        self._loader, self._generator, self._seed = loader, generator, seed

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Mapping[str, Tensor]]:
        # nothing is drawn before the first minibatch is asked for: only then does a resumed training know its epoch
        self._generator.manual_seed(self._seed())
        yield from self._loader
