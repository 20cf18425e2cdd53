"""Row-compressed minibatches: the few operations on `torch.sparse_csr` tensors that every layer needs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

#: A GPU goes through a bag one value after the other, and has work for all its processors if there are more bags than these.
#: Fewer are summed in so many pieces each.
FEW_BAGS, PIECES = 8_192, 16


def csr(crow: Tensor, col: Tensor, values: Tensor, size: tuple[int, ...]) -> Tensor:
    """CSR tensor of the given parts, which are trusted: checking them costs as much as a training step."""
    return torch.sparse_csr_tensor(crow, col, values, size=size, check_invariants=False)


with warnings.catch_warnings():
    # make torch say now, unheard, what it says once per process: that CSR tensors are in beta, which no user can act on
    warnings.simplefilter("ignore")
    csr(torch.zeros(1, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0), (0, 0))


def is_csr(x: Tensor) -> bool:
    """Whether ``x`` is stored by rows (`torch.sparse_csr`)."""
    return x.layout is torch.sparse_csr


def stored(x: Tensor) -> Tensor:
    """What is stored of ``x``: ``(nnz,)`` of CSR, else ``x`` itself."""
    return x.values() if is_csr(x) else x


def with_values(x: Tensor, values: Tensor) -> Tensor:
    """``x`` with other values in place of what is `stored`; CSR shares its index arrays."""
    return csr(x.crow_indices(), x.col_indices(), values, tuple(x.shape)) if is_csr(x) else values


def row_lengths(x: Tensor) -> Tensor:
    """Stored values per row, int64 ``(n,)``."""
    return x.crow_indices().diff().long()


def repeated(x: Tensor, times: Tensor, n: int) -> Tensor:
    """Each number of ``x`` ``(rows,)`` as often as ``times`` ``(rows,)`` says, ``(n,)``; without gradients."""
    if x.device.type == "cpu":  # numpy fills long rows in a tenth of the time
        return torch.from_numpy(np.repeat(x.numpy(), times.numpy()))
    return torch.repeat_interleave(x, times, output_size=n)


def row_index(crow: Tensor, col: Tensor) -> Tensor:
    """Row of each stored value, ``(nnz,)`` in the type of the columns; ``crow`` ``(rows + 1,)`` says where rows begin."""
    rows = torch.arange(crow.numel() - 1, dtype=col.dtype, device=col.device)
    return repeated(rows, crow.diff(), col.numel())


def bag_offsets(bag: Tensor, n_bags: int) -> Tensor:
    """Where each of ``n_bags`` bags begins and the last one ends, for the bag ``(nnz,)`` of each value in rising order."""
    return torch.searchsorted(bag, torch.arange(n_bags + 1, dtype=bag.dtype, device=bag.device))


def grouped(bag: Tensor, n_bags: int) -> tuple[Tensor, Tensor]:
    """Order that puts values of one bag together, and `bag_offsets` in this order, for bags ``(nnz,)`` in any order."""
    if bag.device.type == "cpu":  # scipy counts where torch sorts, in half of the time
        n = len(bag)
        place = np.arange(n, dtype=bag.numpy().dtype)
        by_bag = sparse.csr_matrix((place, bag.numpy(), np.arange(n + 1, dtype=place.dtype)), shape=(n, n_bags)).tocsc()
        return torch.from_numpy(by_bag.data), torch.from_numpy(by_bag.indptr)
    bag, order = torch.sort(bag, stable=True)  # values of a bag stay in the order that they have on a CPU
    return order, bag_offsets(bag, n_bags)


def select_rows(x: Tensor, keep: Tensor | None) -> Tensor:
    """Rows of ``x``, dense or CSR, where the mask ``keep`` holds; `None`: all rows."""
    if keep is None:
        return x
    if not is_csr(x):
        return x[keep]
    return take_rows(x, keep.nonzero().squeeze(1), int(row_lengths(x)[keep].sum()))


def concatenated(parts: Sequence[Tensor]) -> Tensor:
    """Rows of all ``parts``, dense or CSR, one below the other."""
    if not is_csr(parts[0]):
        return torch.cat(list(parts))
    lengths = torch.cat([row_lengths(part) for part in parts])
    crow = F.pad(lengths.cumsum(0), (1, 0))
    col, values = (torch.cat([part_of(part) for part in parts]) for part_of in (Tensor.col_indices, Tensor.values))
    # row starts may be more than the type of the columns can count
    return csr(crow, col, values, (len(lengths), parts[0].shape[1]))


def take_rows(x: Tensor, rows: Tensor, n_stored: int) -> Tensor:
    """Rows of ``x``, dense or CSR, in the order of the positions ``rows``, which have ``n_stored`` stored values."""
    if not is_csr(x):
        return x.index_select(0, rows)
    lengths = x.crow_indices().diff().index_select(0, rows)
    crow = F.pad(lengths.cumsum(0), (1, 0))
    first = x.crow_indices().index_select(0, rows) - crow[:-1]
    at = repeated(first, lengths, n_stored)
    at += torch.arange(n_stored, dtype=at.dtype, device=at.device)
    col, values = x.col_indices().index_select(0, at), x.values().index_select(0, at)
    return csr(crow.to(col.dtype), col, values, (len(rows), x.shape[1]))


def scatter_rows(x: Tensor, present: Tensor | None) -> Tensor:
    """The reverse of `select_rows`: dense rows ``(m, k)`` at the places of the mask ``(n,)`` among zeros, ``(n, k)``."""
    if present is None:
        return x
    return F.pad(x, (0, 0, 0, 1))[torch.where(present, present.cumsum(0) - 1, present.sum())]


def slice_rows(x: Tensor, first: int, last: int) -> Tensor:
    """Rows ``first`` to ``last`` (not included) of ``x``, dense or CSR; columns and values are views."""
    if not is_csr(x):
        return x[first:last]
    crow = x.crow_indices()[first : last + 1]
    begin, end = int(crow[0]), int(crow[-1])
    return csr(crow - begin, x.col_indices()[begin:end], x.values()[begin:end], (len(crow) - 1, x.shape[1]))


def mask_inputs(x: Tensor, rate: float) -> Tensor:
    """``x`` with a random fraction ``rate`` of its entries masked and the others scaled so that the mean stays."""
    scale = 1 / (1 - rate)
    if not is_csr(x):
        return x * (torch.rand_like(x) >= rate) * scale
    values = x.values()
    if values.device.type == "cuda":  # to take them out would cost more there, and the host would wait to know how many
        return with_values(x, F.dropout(values, rate))
    keep = torch.rand(values.shape, device=values.device) >= rate
    # once, as indexing by the mask would search it for each of the two arrays; numpy needs a tenth of torch's time for it
    on_cpu = keep.device.type == "cpu"
    kept = torch.from_numpy(np.flatnonzero(keep.numpy())) if on_cpu else keep.nonzero().squeeze(1)
    crow = torch.searchsorted(kept, x.crow_indices().long()).to(x.crow_indices().dtype)
    return csr(crow, x.col_indices().index_select(0, kept), values.index_select(0, kept).mul_(scale), tuple(x.shape))


def product(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight``, ``(n, f)`` dense or CSR times ``(f, e)``, in their own precision even under autocast."""
    if is_csr(x):
        return bag_product(x.values(), x.col_indices(), x.crow_indices(), weight)
    with torch.autocast(x.device.type, enabled=False):
        return x @ weight


def transposed_product(x: Tensor, dense: Tensor) -> Tensor:
    """``x.T @ dense``: ``(n, f)`` dense or CSR, and ``(n, e)``, to ``(f, e)``."""
    if not is_csr(x):
        return x.T @ dense
    return transposed_bag_product(x.values(), x.col_indices(), x.crow_indices(), dense, x.shape[1])


def column_sums(x: Tensor, values: Tensor | None = None) -> Tensor:
    """Sum of each column of ``x``, or of other ``values`` at its entries, float64 ``(f,)``; the same in every run."""
    values = stored(x) if values is None else values
    if not is_csr(x):
        return values.sum(0, dtype=torch.double)
    if x.device.type == "cpu":
        return torch.bincount(x.col_indices(), weights=values.double(), minlength=x.shape[1])
    # there bincount adds in any order
    ones = values.new_ones(x.shape[0], 1, dtype=torch.double)
    return transposed_product(with_values(x, values.double()), ones).squeeze(1)


def bag_product(values: Tensor, col: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """Sparse-dense product ``S @ weight``, ``(rows, e)``, of a CSR matrix given by its parts and ``weight`` ``(f, e)``.

    ``values`` and ``col`` ``(nnz,)`` are the stored values and their columns, row by row, ``offsets`` ``(rows + 1,)`` where
    each row begins. Columns in int32, as scipy stores them, are sorted and gathered faster than in int64. Cost of the product
    and of its gradients follows ``nnz * e``, never ``rows * f``.
    """
    return _BagProduct.apply(values, col, offsets, weight)


def transposed_bag_product(values: Tensor, col: Tensor, offsets: Tensor, dense: Tensor, n_cols: int) -> Tensor:
    """``S.T @ dense`` for the parts of a CSR matrix as in `bag_product`: ``(rows, e)`` to ``(n_cols, e)``."""
    if values.device.type == "cpu":  # scipy counts where torch sorts, in half of the time
        parts = (part.detach().numpy() for part in (values, col, offsets.to(col.dtype)))
        by_column = sparse.csr_matrix(tuple(parts), shape=(len(offsets) - 1, n_cols)).tocsc()
        row, ends, values = map(torch.from_numpy, (by_column.indices, by_column.indptr, by_column.data))
        return _sum_bags(dense, row, ends, values)
    row = row_index(offsets, col)
    order, by_col = grouped(col, n_cols)
    return _sum_bags(dense, row.index_select(0, order), by_col, values.index_select(0, order))


class _BagProduct(torch.autograd.Function):
    """`bag_product` with gradients by summing the bags of each column, faster than by a transposed matrix of `torch.sparse`."""

    @staticmethod
    def forward(ctx, values: Tensor, col: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(values, col, offsets, weight)
        return _sum_bags(weight, col, offsets, values)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, None, None, Tensor | None]:
        values, col, offsets, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_values = grad_weight = None
        if ctx.needs_input_grad[3]:
            grad_weight = transposed_bag_product(values, col, offsets, grad, weight.shape[0])
        if ctx.needs_input_grad[0]:
            grad_values = (grad[row_index(offsets, col)] * weight[col]).sum(-1)
        return grad_values, None, None, grad_weight


def _sum_bags(table: Tensor, index: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
    is_few = table.device.type == "cuda" and len(offsets) <= FEW_BAGS
    return sums_of_bags(table, index, offsets, values, PIECES if is_few else 1)


def sums_of_bags(table: Tensor, index: Tensor, offsets: Tensor, values: Tensor, n_pieces: int) -> Tensor:
    """Rows of ``table`` ``(f, e)`` at ``index`` ``(nnz,)`` times ``values``, summed over each bag, ``(bags, e)``.

    Each bag is summed in ``n_pieces`` and these are added, always in the same order.
    """
    n_bags = len(offsets) - 1
    offsets = offsets if n_pieces == 1 else _in_pieces(offsets, n_pieces)
    # under autocast the table may have another dtype than the values
    sums = F.embedding_bag(
        index, table, offsets.to(index.dtype), mode="sum", per_sample_weights=values.to(table.dtype),
        include_last_offset=True,
    )  # fmt: skip
    return sums if n_pieces == 1 else sums.view(n_bags, n_pieces, table.shape[1]).sum(1)


def _in_pieces(offsets: Tensor, n_pieces: int) -> Tensor:
    """Where pieces of nearly equal length begin and the last one ends, for the bags that begin at ``offsets``."""
    offsets = offsets.long()  # lengths are multiplied
    part = torch.arange(n_pieces, device=offsets.device)
    return torch.cat([(offsets[:-1, None] + offsets.diff()[:, None] * part // n_pieces).flatten(), offsets[-1:]])
