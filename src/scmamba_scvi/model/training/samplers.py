"""Which cells a minibatch consists of, and in which order they are read."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, Sampler

from .prefetch import Loader, sent_to


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


class LoaderOnDevice:
    """Iterates over a loader; its minibatches are sent to the ``device``, ahead of their use unless they are made there.

    ``begin`` is called at the start of an epoch.
    """

    def __init__(
        self, loader: Loader, device: torch.device, *, ahead: bool, begin: Callable[[], object] = lambda: None
    ) -> None:
        self._loader, self._device, self._ahead, self._begin = loader, device, ahead, begin

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Mapping[str, Tensor]]:
        # not before the first minibatch is asked for: only then does a resumed training know its epoch
        self._begin()
        yield from sent_to(self._device, self._loader, ahead=self._ahead)
