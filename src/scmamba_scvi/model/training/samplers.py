"""Which cells a minibatch consists of, and in which order they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, Sampler

from .prefetch import Loader


class BatchPureSampler(Sampler[list[int]]):
    """Positions of one batch's cells at a time, so that the batch cannot tell a cell from its negatives.

    The cells of a batch are cut into parts of nearly equal size rather than full minibatches and a remainder: the
    remainder would have few negatives, or be left out of every epoch. Batches smaller than an eighth of a minibatch have
    too few negatives alone, so they are put together.

    Parameters
    ----------
    batches
        ``(n,)`` batch of each cell, as integers.
    batch_size
        Cells of a minibatch, about: parts have between two thirds and one and a half times as many, or are a whole batch
        that is smaller.
    generator
        Draws the order; `None`: torch's own, which the seed of a run sets.
    """

    def __init__(self, batches: np.ndarray, batch_size: int, generator: torch.Generator | None = None) -> None:
        self._generator = generator
        values, counts = np.unique(batches, return_counts=True)
        small = values[counts < max(2, batch_size // 8)]
        groups = [np.flatnonzero(batches == value) for value in values[~np.isin(values, small)]]
        pooled = np.flatnonzero(np.isin(batches, small))
        if len(pooled) >= 2 or not groups:
            groups.append(pooled)
        elif len(pooled):  # one cell has no negative: it joins the smallest of the others
            smallest = min(range(len(groups)), key=lambda i: len(groups[i]))
            groups[smallest] = np.concatenate([groups[smallest], pooled])
        self._groups = groups
        self._parts = [max(1, round(len(cells) / batch_size)) for cells in groups]

    def __len__(self) -> int:
        return sum(self._parts)

    def __iter__(self) -> Iterator[list[int]]:
        minibatches = [
            part
            for cells, n in zip(self._groups, self._parts, strict=True)
            for part in np.array_split(cells[self._shuffled(len(cells))], n)
        ]
        for i in self._shuffled(len(minibatches)):
            yield minibatches[i].tolist()

    def _shuffled(self, n: int) -> np.ndarray:
        return torch.randperm(n, generator=self._generator).numpy()


class PartOfMinibatch(Sampler[list[int]]):
    """One process's part of every minibatch; the parts of all processes together are the minibatch.

    Every process takes the same number of steps, and no cell is read by two. All must draw the same minibatches.

    Parameters
    ----------
    minibatches
        Sampler of the whole minibatches, with a generator that is the same in all processes.
    rank, world_size
        Number of this process, and of all.
    """

    def __init__(self, minibatches: BatchSampler | BatchPureSampler, rank: int, world_size: int) -> None:
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
