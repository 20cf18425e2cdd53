"""Counts by cell of the MuData, whatever the storage: order, absent cells, repeated entries."""

import numpy as np
import pytest
import torch
from scipy import sparse
from shapes import poisson
from torch.utils._python_dispatch import TorchDispatchMode

from scmamba_scvi import SCMAMBA
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.model.inputs.matrices import ModalityMatrix, in_parts, iterate_blocks

COUNTS = poisson(6, 4, mean=1.0).astype(np.float32)
ROWS = np.array([2, -1, 0, 5, -1, 1])  # of each of six cells
COLUMNS = np.array([3, 1, 0, 2])
WANTED = np.zeros((6, 4), dtype=np.float32)
WANTED[np.ix_(ROWS >= 0, COLUMNS)] = COUNTS[ROWS[ROWS >= 0]]


@pytest.mark.parametrize("store", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, np.asarray])
def test_rows_and_columns_are_those_of_the_model(store):
    matrix = ModalityMatrix(store(COUNTS), ROWS, COLUMNS)
    cells = np.array([3, 1, 1, 0])
    np.testing.assert_array_equal(matrix.read(cells).to_dense(), WANTED[cells])
    np.testing.assert_array_equal(matrix.present(cells), [True, False, False, True])
    part = matrix.loaded(cells)
    np.testing.assert_array_equal(part.read(np.arange(4)).to_dense(), WANTED[cells])
    blocks = [block.to_dense() for block in iterate_blocks(matrix, np.arange(6), block_size=3)]
    assert [len(block) for block in blocks] == [3, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), WANTED[ROWS >= 0])


def test_counts_by_columns_are_turned_once_in_a_training(quick, monkeypatch):
    """For a large matrix this takes seconds and as much memory again."""
    mdata = simulate_multiome(n_cells=90, n_genes=60, n_peaks=80, n_cell_types=3, seed=0)
    mdata["rna"].X = sparse.csc_matrix(mdata["rna"].X)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    turned, tocsr = [], sparse.csc_matrix.tocsr
    monkeypatch.setattr(
        sparse.csc_matrix, "tocsr", lambda x, *args, **kwargs: turned.append(x.shape) or tocsr(x, *args, **kwargs)
    )
    model.train(**quick)
    assert turned == [(90, 60)]


@pytest.mark.parametrize("store", [sparse.csr_matrix, np.asarray])
def test_a_copy_on_a_device_gives_the_same_minibatches(store, monkeypatch):
    monkeypatch.setattr("scmamba_scvi.model.inputs.matrices.CELLS_OF_COPY", 4)  # of six cells
    matrix = ModalityMatrix(store(COUNTS), ROWS, COLUMNS)
    assert matrix.bytes_of_copy == (8 * np.count_nonzero(COUNTS) if store is sparse.csr_matrix else 4 * COUNTS.size)
    cells = np.array([3, 1, 1, 0])
    before = matrix.read(cells)
    matrix.keep_on(torch.device("cpu"))
    assert matrix.is_kept
    copied = matrix.read(cells)
    assert copied.layout == before.layout
    np.testing.assert_array_equal(copied.to_dense(), WANTED[cells])
    matrix._x = None  # from which nothing is read any more
    assert len(matrix.read(cells[:0])) == 0
    np.testing.assert_array_equal(matrix.read(cells[::-1]).to_dense(), WANTED[cells[::-1]])
    matrix.release()
    assert not matrix.is_kept


class Copies(TorchDispatchMode):
    """Notes whether copies to another device are waited for."""

    waited = None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default:
            self.waited = not kwargs["non_blocking"]
        return func(*args, **(kwargs or {}))


def test_the_device_of_a_copy_is_not_waited_for():
    matrix = ModalityMatrix(COUNTS, ROWS, COLUMNS)
    matrix.keep_on(torch.device("meta"))
    with Copies() as copies:
        assert matrix.read(np.array([3, 1, 1, 0])).shape == (4, 4)
    assert copies.waited is False


def test_entries_stored_twice_are_added_without_overflow_and_the_matrix_is_left_as_it_is():
    x = sparse.csr_matrix((np.array([200, 100, 1], np.uint8), np.array([1, 1, 0]), np.array([0, 3])), shape=(1, 2))
    read = ModalityMatrix(x, np.array([0]), None).read(np.array([0]))
    np.testing.assert_array_equal(read.to_dense(), [[1, 300]])
    np.testing.assert_array_equal(x.indices, [1, 1, 0])


def test_parts_are_in_order_and_none_is_empty():
    assert [part.tolist() for part in in_parts(np.arange(5), 2)] == [[0, 1], [2, 3], [4]]
    assert list(in_parts(np.arange(0), 2)) == []
