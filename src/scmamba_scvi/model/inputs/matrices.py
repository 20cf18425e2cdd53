"""Counts of one modality, in memory or in a file, read by cell of the MuData."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ...ops.csr import concatenated, csr, is_csr, row_lengths, take_rows
from .disk import RowsOnDisk, rows_of

#: Fraction of the free memory that a copy of the counts on a GPU, or the values made of them, may take.
FRACTION_OF_MEMORY = 0.25
#: Cells that are copied to a GPU together.
CELLS_OF_COPY = 4096


class ModalityMatrix:
    """Rows of one modality's counts by cell of the MuData, columns in the order the model knows.

    ``x`` is as AnnData holds it: scipy sparse, numpy, or in a file, from which rows are read when needed. It is never copied
    as a whole, except a sparse matrix that is stored by columns or holds float16, once per object of this class. ``rows`` are
    those of the cells of the MuData, -1 where a cell lacks the modality; ``columns`` positions in the model, `None` if the
    order is the same.
    """

    def __init__(self, x: Any, rows: np.ndarray, columns: np.ndarray | None) -> None:
        self._x, self._rows, self._columns = rows_of(x), rows, columns
        # unsorted or repeated columns are put in order in each minibatch, so that the user's matrix stays as it is
        self._may_be_unsorted = self.on_disk or (sparse.issparse(self._x) and not self._x.has_canonical_format)
        self.n_features = self._x.shape[1]
        self._kept: Tensor | None = None
        self._lengths: np.ndarray | None = None

    def keep_on(self, device: torch.device) -> None:
        """Keep a copy of all counts on a GPU, from which `read` takes them without the CPU, until `release`."""
        parts = [self.read(part).to(device) for part in in_parts(np.arange(len(self._rows)), CELLS_OF_COPY)]
        if is_csr(parts[0]):  # known here, they need not be waited for
            self._lengths = np.concatenate([row_lengths(part).cpu().numpy() for part in parts])
        self._kept = concatenated(parts)

    def release(self) -> None:
        """Forget what `keep_on` copied."""
        self._kept = self._lengths = None

    @property
    def is_kept(self) -> bool:
        """Whether `read` returns tensors on a GPU."""
        return self._kept is not None

    @property
    def n_cells(self) -> int:
        """Cells of the MuData."""
        return len(self._rows)

    @property
    def bytes_of_copy(self) -> float:
        """Memory that `keep_on` takes; infinite if counts are in a file."""
        if isinstance(self._x, RowsOnDisk):
            return math.inf
        return 8 * self._x.nnz if sparse.issparse(self._x) else 4 * len(self._rows) * self.n_features

    @property
    def on_disk(self) -> bool:
        """Whether counts are in a file and read when needed."""
        return isinstance(self._x, RowsOnDisk)

    @property
    def bytes_per_cell(self) -> float:
        """Memory in bytes that the counts of a cell take, on average over the cells of the MuData."""
        if isinstance(self._x, RowsOnDisk):
            per_row = self._x.bytes_per_row
        elif sparse.issparse(self._x):
            per_row = (self._x.data.nbytes + self._x.indices.nbytes) / max(1, self._x.shape[0])
        else:
            per_row = self._x.nbytes / max(1, self._x.shape[0])
        return per_row * (self._rows >= 0).mean()

    def loaded(self, cells: np.ndarray) -> ModalityMatrix:
        """Counts of these cells as a matrix in memory, whose cell ``i`` is ``cells[i]``."""
        rows = self._rows[cells]
        have = rows >= 0
        return ModalityMatrix(self._read_rows(rows[have]), np.where(have, have.cumsum() - 1, -1), self._columns)

    def present(self, cells: np.ndarray) -> np.ndarray:
        """Which cells have the modality."""
        return self._rows[cells] >= 0

    def read(self, cells: np.ndarray) -> Tensor:
        """Counts ``(n, f)`` in float32, where `keep_on` put them, CSR if stored sparse; cells without it have empty rows."""
        if self._kept is not None:
            n_stored = 0 if self._lengths is None else int(self._lengths[cells].sum())
            index = torch.from_numpy(np.ascontiguousarray(cells))
            # the driver keeps a copy of what is to be sent, so that neither the step before nor this index is waited for
            return take_rows(self._kept, index.to(self._kept.device, non_blocking=True), n_stored)
        rows = self._rows[cells]
        have = rows >= 0
        block = self._read_rows(rows[have])
        return self._sparse(block, have) if sparse.issparse(block) else self._dense(block, have)

    def _read_rows(self, rows: np.ndarray) -> sparse.csr_matrix | np.ndarray:
        return self._x.read(rows) if isinstance(self._x, RowsOnDisk) else self._x[rows]

    def _sparse(self, block, have: np.ndarray) -> Tensor:
        columns = block.indices if self._columns is None else self._columns[block.indices]
        # float32 before values of one entry are added, which would overflow in narrow integers
        values = block.data.astype(np.float32, copy=False)
        block = sparse.csr_matrix((values, columns, block.indptr), shape=block.shape)
        if self._columns is not None or self._may_be_unsorted:
            block.sum_duplicates()  # also sorts
        lengths = np.zeros(len(have), dtype=np.int64)
        lengths[have] = np.diff(block.indptr)
        # scipy's own index type, int32 below 2 ** 31 stored values, is half as much to copy as int64
        crow = torch.from_numpy(np.concatenate([[0], lengths.cumsum()]).astype(block.indices.dtype))
        return csr(crow, torch.from_numpy(block.indices), torch.from_numpy(block.data), (len(have), self.n_features))

    def _dense(self, block: np.ndarray, have: np.ndarray) -> Tensor:
        out = np.zeros((len(have), self.n_features), dtype=np.float32)
        out[have if self._columns is None else np.ix_(have, self._columns)] = block
        return torch.from_numpy(out)


def in_parts(cells: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The ``cells`` (or any other array), at most ``size`` at a time, in order."""
    for first in range(0, len(cells), size):
        yield cells[first : first + size]


def iterate_blocks(matrix: ModalityMatrix, cells: np.ndarray, block_size: int = 1024) -> Iterator[Tensor]:
    """Counts of those ``cells`` that have the modality, block by block."""
    for part in in_parts(cells[matrix.present(cells)], block_size):
        yield matrix.read(part)
