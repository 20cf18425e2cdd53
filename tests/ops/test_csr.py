"""Sparse minibatches: equal to what dense tensors give, at a cost that follows the stored values."""

import pytest
import torch
from scipy import sparse

from scmamba_scvi.ops.csr import (
    bag_offsets,
    bag_product,
    concatenated,
    csr,
    grouped,
    mask_inputs,
    product,
    row_index,
    select_rows,
    slice_rows,
    take_rows,
    transposed_product,
)


def sparse_batch(n=7, f=11, density=0.3, seed=0, dtype=torch.float32):
    m = sparse.random(n, f, density=density, format="lil", random_state=seed)
    m[2] = 0  # an empty row
    m = m.tocsr()
    parts = (torch.from_numpy(m.indptr).long(), torch.from_numpy(m.indices).long(), torch.from_numpy(m.data).to(dtype))
    return csr(*parts, m.shape), torch.from_numpy(m.toarray()).to(dtype)


def test_product_equals_the_dense_one():
    x, dense = sparse_batch()
    weight = torch.randn(11, 5)
    torch.testing.assert_close(product(x, weight), dense @ weight)


def test_gradients_of_the_product():
    x, _ = sparse_batch(dtype=torch.float64)
    values = x.values().clone().requires_grad_()
    weight = torch.randn(11, 3, dtype=torch.float64, requires_grad=True)
    crow, col = x.crow_indices(), x.col_indices()
    assert torch.autograd.gradcheck(lambda v, w: bag_product(v, col, crow, w), (values, weight))


def test_transposed_product_equals_the_dense_one():
    x, dense = sparse_batch()
    other = torch.randn(7, 4)
    torch.testing.assert_close(transposed_product(x, other), dense.T @ other)


def test_selecting_rows_keeps_the_others_as_they_are():
    x, dense = sparse_batch()
    keep = torch.tensor([True, False, False, True, True, True, False])  # row 2 is empty
    torch.testing.assert_close(select_rows(x, keep).to_dense(), dense[keep])


def test_a_slice_of_rows_is_that_of_the_dense_matrix():
    x, dense = sparse_batch()
    torch.testing.assert_close(slice_rows(x, 1, 5).to_dense(), dense[1:5])


@pytest.mark.parametrize("as_sparse", [pytest.param(True, id="sparse"), pytest.param(False, id="dense")])
def test_dropping_values_keeps_the_mean_and_hides_the_share(as_sparse):
    x, dense = sparse_batch(n=400, f=300, density=0.2)
    out = mask_inputs(x if as_sparse else dense, 0.5)
    out = out.to_dense() if as_sparse else out
    kept = out != 0
    assert abs(kept.sum() / (dense != 0).sum() - 0.5) < 0.02
    torch.testing.assert_close(out[kept], 2 * dense[kept])
    assert out.sum() == pytest.approx(float(dense.sum()), rel=0.05)


def test_row_index_counts_each_row():
    x, dense = sparse_batch()
    assert torch.equal(torch.bincount(row_index(x.crow_indices(), x.col_indices()), minlength=7), (dense != 0).sum(1))


@pytest.mark.parametrize("rows", [[4, 0, 0, 2], [2], []])
def test_rows_are_taken_in_any_order_and_more_than_once(rows):
    x, dense = sparse_batch()
    rows = torch.tensor(rows, dtype=torch.long)
    n_stored = int((dense[rows] != 0).sum())
    taken = take_rows(x, rows, n_stored)
    assert taken.values().numel() == n_stored
    torch.testing.assert_close(taken.to_dense(), dense[rows])
    torch.testing.assert_close(take_rows(dense, rows, 0), dense[rows])


def test_parts_are_put_one_below_the_other():
    x, dense = sparse_batch()
    parts = [slice_rows(x, 0, 3), slice_rows(x, 3, 3), slice_rows(x, 3, 7)]
    torch.testing.assert_close(concatenated(parts).to_dense(), dense)
    torch.testing.assert_close(concatenated([dense[:3], dense[3:]]), dense)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_bags_in_any_order_are_grouped_as_by_a_stable_sort(dtype):
    bag = torch.randint(0, 9, (50,), dtype=dtype)
    bag[bag == 4] = 5  # an empty bag
    order, offsets = grouped(bag, 10)
    wanted = bag.argsort(stable=True)
    assert torch.equal(order.long(), wanted)
    assert torch.equal(offsets.long(), bag_offsets(bag[wanted], 10))
    assert [len(part) for part in grouped(bag[:0], 3)] == [0, 4]
