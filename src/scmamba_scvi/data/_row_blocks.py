"""Matrices of a file read and written a block of rows at a time, so that none but those by columns is held in memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from anndata.io import sparse_dataset, write_elem
from scipy import sparse

from .._compat import for_scipy

#: Stored values per chunk of a zarr array: a chunk is the least that can be read, about 1 MB here.
VALUES_PER_CHUNK = 2**18
#: Stored values copied at a time.
VALUES_PER_COPY = 2**24


def is_sparse(element: Any) -> bool:
    """Whether a matrix in a file is stored as CSR or CSC."""
    return str(element.attrs.get("encoding-type", "")).endswith(("csr_matrix", "csc_matrix"))


def is_by_columns(element: Any) -> bool:
    """Whether a matrix in a file is stored as CSC, so that cells cannot be read one after another."""
    return element.attrs.get("encoding-type") == "csc_matrix"


def read_sparse(element: Any) -> sparse.csr_matrix | sparse.csc_matrix:
    """All of a sparse matrix in a file, stored as there; float16, which scipy lacks, becomes float32."""
    values, *rest = (element[array][...] for array in ("data", "indices", "indptr"))
    stored = sparse.csc_matrix if is_by_columns(element) else sparse.csr_matrix
    return stored((for_scipy(values), *rest), shape=tuple(element.attrs["shape"]))


def row_blocks(element: Any) -> Iterator[Any]:
    """Rows of a matrix in a file, a block at a time and at least one block, which has no rows if the matrix has none.

    CSR stays CSR; a dense matrix stays dense if most of the values of its first block are not zero, and becomes CSR
    otherwise. CSC is read whole, and is one block in CSR.
    """
    if is_by_columns(element):  # each block of rows would take one more pass over the whole of the file
        return iter([read_sparse(element).tocsr()])
    return _blocks_of_csr(element) if is_sparse(element) else _blocks_of_dense(element)


def write_rows(group: Any, name: str, blocks: Iterator[Any]) -> None:
    """Write a matrix to ``group[name]`` of a zarr folder from its row blocks, CSR or dense, one after another."""
    first = next(blocks)
    chunks: tuple[int, ...] = (VALUES_PER_CHUNK,)
    if not sparse.issparse(first):
        chunks = max(1, min(len(first), VALUES_PER_CHUNK // max(1, first.shape[1]))), first.shape[1]
    kwargs: dict[str, Any] = {"chunks": chunks}
    if sparse.issparse(first):
        kwargs["indptr_dtype"] = np.int64  # more values may follow than the 32 bits of the first block can count
    write_elem(group, name, first, dataset_kwargs=kwargs)
    matrix = sparse_dataset(group[name]) if sparse.issparse(first) else group[name]
    for block in blocks:
        matrix.append(block)


def _blocks_of_dense(element: Any) -> Iterator[Any]:
    n_rows = max(1, VALUES_PER_COPY // max(1, element.shape[1]))
    first = np.asarray(element[:n_rows])
    dense = np.count_nonzero(first) * 2 > first.size
    for start in range(0, max(1, element.shape[0]), n_rows):
        block = np.asarray(element[start : start + n_rows])
        yield block if dense else sparse.csr_matrix(for_scipy(block))


def _blocks_of_csr(element: Any) -> Iterator[sparse.csr_matrix]:
    (n_cells, n_features), indptr = element.attrs["shape"], element["indptr"][...].astype(np.int64)
    start, stop = 0, -1
    while start < n_cells or stop < 0:  # one block at least
        stop = int(np.searchsorted(indptr, indptr[start] + VALUES_PER_COPY, side="right")) - 1
        stop = min(max(stop, start + 1), n_cells)
        first, last = int(indptr[start]), int(indptr[stop])
        parts = (
            for_scipy(element["data"][first:last]),
            element["indices"][first:last],
            indptr[start : stop + 1] - first,
        )
        yield sparse.csr_matrix(parts, shape=(stop - start, n_features))
        start = stop
