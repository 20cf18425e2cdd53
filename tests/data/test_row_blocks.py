from __future__ import annotations

import numpy as np
import pytest
import zarr
from anndata.io import read_elem, write_elem
from scipy import sparse

from scmamba_scvi.data import _row_blocks
from scmamba_scvi.data._row_blocks import is_sparse, row_blocks, write_rows


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(_row_blocks, "VALUES_PER_COPY", 50)
    monkeypatch.setattr(_row_blocks, "VALUES_PER_CHUNK", 20)


def stored(matrix):
    group = zarr.open_group(zarr.storage.MemoryStore(), mode="w", zarr_format=2)
    write_elem(group, "X", matrix)
    return group


def random(density, shape=(37, 8), dtype=np.float32):
    return sparse.random(*shape, density=density, format="csr", random_state=0, dtype=dtype)


def half(matrix):
    matrix.data = matrix.data.astype(np.float16)
    return matrix


@pytest.mark.parametrize(
    ("matrix", "stays_sparse"),
    [
        pytest.param(random(0.2), True, id="csr"),
        pytest.param(random(0.2).tocsc(), True, id="csc"),
        pytest.param(half(random(0.2).tocsc()), True, id="csc_half_precision"),
        pytest.param(random(0.9).toarray(), False, id="dense"),
        pytest.param(random(0.2).toarray(), True, id="dense_of_zeros"),
        pytest.param(random(0.2).toarray().astype(np.float16), True, id="half_precision"),
        pytest.param(half(random(0.2)), True, id="sparse_half_precision"),
        pytest.param(random(0.2, (0, 8)), True, id="no_rows"),
        pytest.param(random(0.2, (9, 400)), True, id="rows_longer_than_a_block"),
    ],
)
def test_blocks_hold_all_rows_in_order_and_are_written_back_the_same(matrix, stays_sparse):
    group = stored(matrix)
    blocks = list(row_blocks(group["X"]))
    assert all(sparse.issparse(block) == stays_sparse for block in blocks)
    assert all(getattr(block, "format", "csr") == "csr" for block in blocks)
    write_rows(group, "again", iter(blocks))
    again = read_elem(group["again"])
    assert is_sparse(group["again"]) == stays_sparse
    expected = matrix.astype(np.float32).toarray() if sparse.issparse(matrix) else matrix
    np.testing.assert_array_equal(again.toarray() if stays_sparse else again, expected)


def test_no_block_holds_more_than_asked_for():
    blocks = list(row_blocks(stored(random(0.3, (200, 8)))["X"]))
    assert len(blocks) > 5 and max(block.nnz for block in blocks) <= 50
