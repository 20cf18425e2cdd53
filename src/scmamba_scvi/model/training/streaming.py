"""Minibatches of cells whose counts are in a file, through a buffer in memory."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..inputs.manager import MultiModalDataset
from ..inputs.sampling import chunks
from .prefetch import read_ahead

#: Fraction of the memory that one buffer takes: a second one is filled meanwhile, from parts that take memory as well.
FRACTION_OF_BUFFER = 0.25


class StreamedLoader:
    """Every cell once per epoch, in an order that is random between buffers and within each.

    Chunks of `CELLS_PER_CHUNK` neighbouring cells fill a buffer in random order, minibatches are drawn from it at random,
    and while they are used the next buffer is read in the background.

    ``batch_size`` counts the cells of all processes, each of which reads its part of every minibatch; the last cells that do
    not fill one wait for the next epoch. ``generator`` draws the order; `None`: torch's own.
    """

    def __init__(
        self,
        dataset: MultiModalDataset,
        cells: np.ndarray,
        batch_size: int,
        buffer_mb: float,
        generator: torch.Generator | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._dataset, self._cells, self._size = dataset, np.sort(cells), batch_size
        self._generator, self._rank, self._world_size = generator, rank, world_size
        n_cells = dataset.cells_within(FRACTION_OF_BUFFER * buffer_mb) * world_size
        self._per_buffer = max(1, n_cells // batch_size)  # minibatches

    def __len__(self) -> int:
        return len(self._cells) // self._size

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for minibatches, buffer in read_ahead(map(self._read, self._plan())):
            for cells in minibatches:
                yield buffer[cells]

    def _plan(self) -> Iterator[list[np.ndarray]]:
        """Cells of the minibatches of each buffer, of this process."""
        parts = chunks(self._cells)
        order = np.concatenate([parts[i] for i in self._shuffled(len(parts))])
        order = order[: len(self) * self._size]
        for start in range(0, len(order), self._per_buffer * self._size):
            cells = order[start : start + self._per_buffer * self._size]
            cells = cells[self._shuffled(len(cells))].reshape(-1, self._size)
            yield [np.array_split(row, self._world_size)[self._rank] for row in cells]

    def _read(self, minibatches: list[np.ndarray]) -> tuple[list[np.ndarray], MultiModalDataset]:
        """Positions in the buffer of each minibatch, and the buffer."""
        cells = np.sort(np.concatenate(minibatches))
        return [np.searchsorted(cells, part) for part in minibatches], self._dataset.loaded(cells)

    def _shuffled(self, n: int) -> np.ndarray:
        return torch.randperm(n, generator=self._generator).numpy()
