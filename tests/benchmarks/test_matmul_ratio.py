"""Every matrix product of a step is seen, and replayed as it was."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def matmul_ratio(load):
    return load("harness.matmul_ratio")


class Hidden(torch.autograd.Function):
    """A product forward and two backward, out of autograd's sight."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad @ w.T, x.T @ grad


def test_products_are_recorded_forward_and_backward(matmul_ratio):
    linear, x = torch.nn.Linear(3, 5), torch.randn(7, 3, requires_grad=True)
    products = matmul_ratio.record_products(lambda: linear(x).sum().backward())
    shapes = [tuple(f.shape for f in p.factors) for p in products]
    assert shapes[0] == ((7, 3), (3, 5))
    assert sorted(shapes[1:]) == sorted([((7, 5), (5, 3)), ((5, 7), (7, 3))])


def test_products_inside_a_custom_backward_are_seen(matmul_ratio):
    x, w = torch.randn(7, 3, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    products = matmul_ratio.record_products(lambda: Hidden.apply(x, w).sum().backward())
    assert len(products) == 3


@pytest.mark.parametrize(
    ("product", "n_products"),
    [
        pytest.param(lambda a, b: torch.bmm(a, b), 3, id="batched"),
        pytest.param(lambda a, b: torch.baddbmm(torch.zeros(4, 5, 5), a, b), 3, id="batched_with_addend"),
        pytest.param(lambda a, b: torch.einsum("nij,njk->nik", a, b), 3, id="einsum"),
        pytest.param(lambda a, b: a * b.transpose(1, 2), 0, id="elementwise"),
    ],
)
def test_kinds_of_products(matmul_ratio, product, n_products):
    a, b = torch.randn(4, 5, 3, requires_grad=True), torch.randn(4, 3, 5, requires_grad=True)
    assert len(matmul_ratio.record_products(lambda: product(a, b).sum().backward())) == n_products


def test_sparse_products_are_recorded_and_replayed(matmul_ratio):
    index, offsets, weight = torch.tensor([0, 2, 1]), torch.tensor([0, 2, 3]), torch.randn(3, 4)
    step = lambda: torch.nn.functional.embedding_bag(
        index, weight, offsets, mode="sum", per_sample_weights=torch.ones(3), include_last_offset=True
    )
    (product,) = matmul_ratio.record_products(step)
    assert product.operator in matmul_ratio.BAGS and not product.factors
    assert matmul_ratio.measure(step, rounds=1).matmul_s > 0


def test_replay_keeps_shapes_strides_and_types(matmul_ratio):
    t = torch.randn(6, 4, dtype=torch.bfloat16).T
    copy = matmul_ratio.Operand.of(t).random()
    assert (copy.shape, copy.stride(), copy.dtype) == (t.shape, t.stride(), t.dtype)


def test_a_step_of_products_only_has_a_ratio_near_one_and_idle_work_raises_it(matmul_ratio):
    a, b = torch.randn(400, 400), torch.randn(400, 400)

    def products():
        for _ in range(4):
            a @ b

    def more():
        products()
        for _ in range(500):  # much more than the products: other programs may slow either
            a.exp()

    bare, busy = (matmul_ratio.measure(step, rounds=5) for step in (products, more))
    assert busy.ratio > 1.3 * bare.ratio
    assert len(matmul_ratio.record_products(products)) == 4
