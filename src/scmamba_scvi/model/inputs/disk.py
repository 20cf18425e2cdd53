"""Rows of a matrix in a file, read in spans of neighbouring rows: single rows are slow to find and to decompress."""

from typing import Any, TypeAlias

import h5py
import numpy as np
import zarr
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from ..._compat import for_scipy

#: A dense matrix in a file.
ArrayOnDisk: TypeAlias = h5py.Dataset | zarr.Array
#: Rows between two that are wanted, up to which both are read in one span, also from two pieces of the file: a second read
#: would cost as much.
MAX_GAP = 8


class RowsOnDisk:
    """A matrix ``(cells, f)`` in a file of which rows are read: a `CSRDataset`, or an array of h5py or zarr."""

    def __init__(self, x: Any) -> None:
        self.shape = tuple(int(n) for n in x.shape)
        self._dense = None if isinstance(x, CSRDataset) else x
        if self._dense is None:
            # the arrays of the file itself: slices through anndata take twice as long on a few rows
            self._data, self._indices = x.group["data"], x.group["indices"]
            self._indptr = np.asarray(x.group["indptr"][...], dtype=np.int64)

    @property
    def bytes_per_row(self) -> float:
        """Bytes that a row takes in memory, on average."""
        if self._dense is not None:
            return self.shape[1] * np.dtype(self._dense.dtype).itemsize
        return self._indptr[-1] / max(1, self.shape[0]) * (self._data.dtype.itemsize + self._indices.dtype.itemsize)

    def __getitem__(self, rows: slice) -> sparse.csr_matrix | np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        return self._span(start, stop)

    def read(self, rows: np.ndarray) -> sparse.csr_matrix | np.ndarray:
        """The rows, in the order asked for and also repeated: CSR, or an array if stored dense."""
        # the file is read in rising order
        unique, back = np.unique(rows, return_inverse=True)
        if not len(unique):
            return self._span(0, 0)
        far = np.diff(unique) > MAX_GAP
        first, last = self._pieces(unique)
        ends = np.flatnonzero(far & (first[1:] != last[:-1])) + 1
        blocks = [self._span(run[0], run[-1] + 1)[run - run[0]] for run in np.split(unique, ends)]
        if self._dense is not None:
            return np.concatenate(blocks)[back]
        return (blocks[0] if len(blocks) == 1 else sparse.vstack(blocks, format="csr"))[back]

    def _pieces(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last piece of the file that each row lies in: a piece is decompressed whole, once for each span."""
        if self._dense is not None:
            first, last, sizes = rows, rows, self._dense.chunks
        else:
            first, last, sizes = self._indptr[rows], self._indptr[rows + 1] - 1, self._data.chunks
        size = sizes[0] if sizes else 1  # without pieces, single values can be read
        return first // size, last // size

    def _span(self, start: int, stop: int) -> sparse.csr_matrix | np.ndarray:
        if self._dense is not None:
            return np.asarray(self._dense[int(start) : int(stop)])
        first, last = int(self._indptr[start]), int(self._indptr[stop])
        values = for_scipy(self._data[first:last])
        parts = (values, self._indices[first:last], self._indptr[start : stop + 1] - first)
        return sparse.csr_matrix(parts, shape=(stop - start, self.shape[1]))


def in_memory(x: Any) -> Any:
    """A matrix, which may be in a file, as scipy sparse or numpy."""
    if isinstance(x, CSRDataset | CSCDataset):
        stored = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[x.format]
        parts = (x.group[name][...] for name in ("data", "indices", "indptr"))
        return stored((for_scipy(next(parts)), *parts), shape=x.shape)
    return for_scipy(x) if sparse.issparse(x) else np.asarray(x) if isinstance(x, ArrayOnDisk) else x


def rows_of(x: Any) -> Any:
    """A matrix by rows: an array, CSR, which is not copied if scipy can compute with it, or `RowsOnDisk`."""
    if not sparse.issparse(x):
        return x if isinstance(x, np.ndarray) else RowsOnDisk(x)
    x = for_scipy(x)
    return x if x.format == "csr" else x.tocsr()
