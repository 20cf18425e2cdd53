from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import normalize
from torch import Tensor

from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.ops.csr import csr, is_csr
from scmamba_scvi.pp import VALUE_TRANSFORMS, value_transform

NAMES = [*VALUE_TRANSFORMS]
LEARNING = ["tfidf", "pareto"]


def counts(n: int = 23, f: int = 17, *, seed: int = 0) -> Tensor:
    """Sparse counts with rows and columns that are empty."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.poisson(torch.full((n, f), 0.5), generator=generator) * torch.randint(1, 9, (n, f), generator=generator)
    x[n // 2] = 0
    x[:, f // 3] = 0
    return x


def dense(x: Tensor) -> Tensor:
    return x.to_dense() if is_csr(x) else x


def fitted(name: str, x: Tensor, **kwargs):
    return value_transform(name, x.shape[1], **kwargs).fit([x])


def quantile_bins(row: np.ndarray, n_bins: int) -> np.ndarray:
    """The documented formula, value by value."""
    stored = row[row != 0]
    return np.array([0 if v == 0 else 1 + (n_bins - 1) * (stored < v).sum() // len(stored) for v in row], dtype=float)


def second_opinion(name: str, x: np.ndarray) -> np.ndarray:
    if name == "log1p":
        return np.log1p(normalize(x, norm="l1") * 1e4)
    if name == "pareto":
        scale = 1e3 / np.maximum(x.sum(1, keepdims=True), 1)
        logs = np.log1p(x * scale)
        noise = np.zeros(x.shape[1])
        for cell, feature in np.argwhere(x > 0):  # molecule by molecule
            one_less = np.log1p((x[cell, feature] - 1) * scale[cell, 0])
            noise[feature] += x[cell, feature] * (logs[cell, feature] - one_less) ** 2
        noise = np.sqrt(noise / (x.sum(1) > 0).sum())
        return logs / np.sqrt(np.maximum(noise, np.quantile(noise[noise > 1e-6], 0.1)))
    if name == "tfidf":
        n_train = (x.sum(1) > 0).sum()
        idf = np.log1p(n_train / np.maximum((x > 0).sum(0), 1))
        return normalize((x > 0) * idf, norm="l2")
    if name == "binary":
        return (x > 0).astype(float)
    if name == "binned":
        return np.stack([quantile_bins(row, 51) for row in x])
    if name == "clr":
        return np.log1p(x) - np.log1p(x).mean(1, keepdims=True)
    return x


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("as_csr", [pytest.param(True, id="csr"), pytest.param(False, id="dense")])
def test_each_transform_equals_its_numpy_twin(name, as_csr):
    x = counts()
    transform = fitted(name, x)
    got = transform(x.to_sparse_csr() if as_csr else x)
    np.testing.assert_allclose(dense(got).numpy(), second_opinion(name, x.double().numpy()), atol=2e-6, rtol=1e-6)
    assert got.dtype == torch.float32


@pytest.mark.parametrize("name", ["binary", "tfidf"])
def test_a_corrected_count_below_zero_is_a_count(name):
    x = counts()
    np.testing.assert_array_equal(
        dense(fitted(name, -x)(-x.to_sparse_csr())), dense(fitted(name, x)(x.to_sparse_csr()))
    )


@settings(deadline=None)
@given(seed=st.integers(0, 2**16), n=st.integers(1, 12), f=st.integers(1, 12), name=st.sampled_from(NAMES))
def test_csr_equals_dense(seed, n, f, name):
    x = counts(n, f, seed=seed)
    if not x.any():
        x[0, 0] = 1
    transform = fitted(name, x)
    torch.testing.assert_close(dense(transform(x.to_sparse_csr())), transform(x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_csr_stays_csr_with_the_same_index_arrays_but_for_clr(name):
    x = counts().to_sparse_csr()
    got = fitted(name, x)(x)
    assert is_csr(got) == (name != "clr")
    if name == "clr":
        return
    assert got.col_indices().data_ptr() == x.col_indices().data_ptr()
    assert got.crow_indices().data_ptr() == x.crow_indices().data_ptr()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("as_csr", [pytest.param(True, id="csr"), pytest.param(False, id="dense")])
def test_a_row_depends_on_itself_alone(name, as_csr):
    x = counts()
    transform = fitted(name, x)
    form = (lambda t: t.to_sparse_csr()) if as_csr else (lambda t: t)
    whole = dense(transform(form(x)))
    for i in range(len(x)):
        assert torch.equal(dense(transform(form(x[i : i + 1]))), whole[i : i + 1])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    assert torch.equal(dense(transform(form(x[order]))), whole[order])


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_not_changed(name):
    x = counts()
    stored = x.to_sparse_csr()
    transform = fitted(name, stored)
    transform(stored), transform(x)
    assert torch.equal(x, counts()) and torch.equal(stored.to_dense(), counts())


@pytest.mark.parametrize("name", NAMES)
def test_no_cells_give_no_values(name):
    x = counts()
    transform = fitted(name, x)
    assert dense(transform(x[:0])).shape == dense(transform(x[:0].to_sparse_csr())).shape == (0, x.shape[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_zero_is_a_zero(name):
    x = counts()
    n, f = x.shape
    everything = csr(torch.arange(0, n * f + 1, f), torch.arange(f).repeat(n), x.flatten(), (n, f))
    transform = fitted(name, everything)
    torch.testing.assert_close(dense(transform(everything)), fitted(name, x)(x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("index_type", [torch.int32, torch.int64])
def test_int32_and_int64_indices_give_the_same(index_type):
    x = counts().to_sparse_csr()
    x = csr(x.crow_indices().to(index_type), x.col_indices().to(index_type), x.values(), tuple(x.shape))
    for name in NAMES:
        torch.testing.assert_close(dense(fitted(name, x)(x)), fitted(name, counts())(counts()), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("row", "n_bins", "expected"),
    [
        pytest.param([0, 1, 2, 3, 4], 5, [0, 1, 2, 3, 4], id="a_bin_for_each"),
        pytest.param([1, 1, 1, 2], 5, [1, 1, 1, 4], id="ties_share_the_lowest_bin"),
        pytest.param([7, 7, 7, 0], 51, [1, 1, 1, 0], id="all_equal"),
        pytest.param([9, 0, 0, 0], 51, [1, 0, 0, 0], id="one_value"),
        pytest.param([1, 2, 3, 4], 2, [1, 1, 1, 1], id="two_bins_are_presence"),
        pytest.param([1, 2, 3, 4], 3, [1, 1, 2, 2], id="halves"),
    ],
)
def test_values_fall_into_the_bins_that_are_known(row, n_bins, expected):
    x = torch.tensor([row], dtype=torch.float32)
    assert value_transform("binned", len(row), n_bins=n_bins)(x).tolist() == [expected]


def test_pareto_weighs_by_counting_noise_and_not_by_signal():
    generator = torch.Generator().manual_seed(0)
    rates = torch.tensor([8.0, 8.0]).repeat(4000, 1)
    rates[:2000, 1] *= 1.9  # a marker: the same mean, and more spread
    rates[2000:, 1] *= 0.1
    x = torch.cat([torch.poisson(rates, generator=generator), torch.full((4000, 1), 500.0)], dim=1)
    weight = fitted("pareto", x).weight
    spread = torch.log1p(1e3 * x / x.sum(1, keepdim=True)).std(0)
    assert weight[1] / weight[0] > 0.8 > 0.6 > (spread[0] / spread[1]).sqrt()


def test_the_counting_noise_of_the_jackknife_is_that_of_poisson_draws():
    x = torch.cat([torch.full((1, 4), 5.0), torch.full((1, 1), 980.0)], dim=1)
    draws = torch.poisson(x.expand(40_000, 5), generator=torch.Generator().manual_seed(0))
    draws[:, 4] = 1_000 - draws[:, :4].sum(1)  # at the scale of one, as for the cells of `fit`
    expected = torch.log1p(draws[:, :4]).std(0)
    weight = fitted("pareto", draws).weight[:4]
    torch.testing.assert_close(1 / weight.square(), expected, rtol=0.1, atol=0)


def test_a_gene_counted_once_gets_no_outlying_weight():
    x = counts(400, 40)
    x[:, :3] = 0
    x[0, 0] = x[1, 1] = x[2, 2] = 1
    weight = fitted("pareto", x).weight
    assert weight[:3].max() <= weight[3:].max()
    assert torch.isfinite(weight).all()


def test_features_without_counts_change_nothing_for_the_others():
    x = counts(60)
    wider = torch.cat([x, torch.zeros(60, 200)], dim=1)
    torch.testing.assert_close(fitted("pareto", wider)(wider)[:, : x.shape[1]], fitted("pareto", x)(x))


@pytest.mark.parametrize("name", LEARNING)
def test_fit_reads_blocks_forgets_earlier_fits_and_ignores_empty_cells(name):
    x = counts(60)
    whole = fitted(name, x)
    absent = torch.cat([x, torch.zeros(40, x.shape[1])])
    for blocks in (x.split(7), [b.to_sparse_csr() for b in x.split(13)], iter(absent.split(9))):
        again = value_transform(name, x.shape[1]).fit([counts(5, seed=3)]).fit(blocks)
        torch.testing.assert_close(again.weight, whole.weight)
        assert again.n_train == whole.n_train == 59


@pytest.mark.parametrize("name", LEARNING)
def test_what_was_learned_is_in_the_state_dict(name):
    x = counts()
    transform, copy = fitted(name, x), value_transform(name, x.shape[1])
    copy.load_state_dict(transform.state_dict())
    assert torch.equal(copy(x), transform(x))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in LEARNING])
def test_transforms_without_weights_learn_nothing(name):
    transform = value_transform(name, 17)
    assert not transform.state_dict()
    assert torch.equal(dense(transform(counts())), dense(fitted(name, counts(seed=5))(counts())))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda: value_transform("tfidf", 17)(counts()), "fit", id="tfidf_before_fit"),
        pytest.param(lambda: value_transform("tfidf", 17).fit([]), "all cells given are empty", id="fit_on_nothing"),
        pytest.param(lambda: value_transform("tfidf", 17).fit([torch.zeros(3, 17)]), "empty", id="fit_on_empty_cells"),
        pytest.param(lambda: value_transform("pareto", 17)(counts()), "fit", id="evened_before_fit"),
        pytest.param(lambda: value_transform("pareto", 17).fit([torch.zeros(3, 17)]), "empty", id="evened_of_nothing"),
        pytest.param(lambda: value_transform("log1p", 5)(counts()), r"5 features are needed.*\(23, 17\)", id="width"),
        pytest.param(lambda: value_transform("log1p", 17)(counts()[0]), "17 features are needed", id="one_dimension"),
        pytest.param(lambda: value_transform("clr", 20_001), "fill 20,001 columns.*'log1p'", id="clr_of_too_many"),
        pytest.param(lambda: value_transform("binned", 5, n_bins=1), "at least 2", id="one_bin"),
    ],
)
def test_what_cannot_be_transformed_is_refused(make, says):
    with pytest.raises(ScmambaError, match=says):
        make()


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="Did you mean 'log1p'.*'tfidf'"):
        value_transform("log1", 5)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_gives_the_same_and_in_every_run(name):
    x = counts(512, 300)
    transform = fitted(name, x)
    expected = transform(x)
    transform = transform.cuda()
    for form in (x.cuda(), x.to_sparse_csr().cuda()):
        got = dense(transform(form))
        torch.testing.assert_close(got.cpu(), expected, atol=1e-6, rtol=1e-5)
        assert torch.equal(got, dense(transform(form)))
