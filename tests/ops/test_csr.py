"""Sparse minibatches: equal to what dense tensors give, at a cost that follows the stored values."""

import pytest
import torch
import torch.nn.functional as F
from scipy import sparse

from scmamba_scvi.ops.csr import (
    _in_pieces,
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
    sums_of_bags,
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


def test_gradients_of_the_product_agree_with_finite_differences():
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


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_sums_in_pieces_are_the_sums(dtype):
    lengths = torch.tensor([0, 1, 15, 16, 17, 100, 0, 33])
    offsets = F.pad(lengths.cumsum(0), (1, 0)).to(dtype)
    index = torch.randint(0, 9, (int(offsets[-1]),), dtype=dtype)
    table, values = torch.randn(9, 5, dtype=torch.double), torch.randn(len(index), dtype=torch.double)
    whole, in_pieces = (sums_of_bags(table, index, offsets, values, n) for n in (1, 16))
    torch.testing.assert_close(in_pieces, whole)
    wanted = torch.stack([part.sum(0) for part in (table[index] * values[:, None]).split(lengths.tolist())])
    torch.testing.assert_close(whole, wanted)
    assert sums_of_bags(table, index[:0], offsets[:1], values[:0], 16).shape == (0, 5)


def test_pieces_of_the_longest_bag_begin_where_they_should():
    """An int32 counts the values, but not sixteen times as many."""
    longest = 2**31 - 1
    found = _in_pieces(torch.tensor([0, longest], dtype=torch.int32), 16)
    assert found.tolist() == [longest * part // 16 for part in range(17)]


@pytest.mark.gpu
@pytest.mark.parametrize("n", [5, 9_000], ids=["few bags", "many bags"])
def test_products_on_a_gpu_are_those_of_the_cpu_and_the_same_every_time(n):
    x, _ = sparse_batch(n=n, f=300)
    weight = torch.randn(300, 5)
    found = [product(x.cuda(), weight.cuda()).cpu() for _ in range(2)]
    torch.testing.assert_close(found[0], product(x, weight))
    assert torch.equal(*found)
