"""How much of a component is signal: counts split in two, and what is known of Poisson noise."""

import numpy as np
import pytest
import torch
from scipy import sparse

from scmamba_scvi.nn.reliability import are_counts, coefficient_alpha, split_counts, split_half_reliability


@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_halves_hold_every_count(layout):
    counts = sparse.random(40, 30, 0.3, random_state=0, format="csr", dtype=np.float32)
    counts.data = np.ceil(counts.data * 9).astype(np.float32)
    x = torch.from_numpy(counts.toarray())
    x = x.to_sparse_csr() if layout == "csr" else x
    halves, again, other = (
        [h.to_dense() for h in split_counts(x, torch.Generator().manual_seed(seed))] for seed in (0, 0, 1)
    )
    assert torch.equal(halves[0], again[0]) and not torch.equal(halves[0], other[0])
    np.testing.assert_array_equal(sum(halves).numpy(), counts.toarray())
    assert all((h >= 0).all() and (h == h.round()).all() for h in halves)
    assert float(halves[0].sum() / counts.sum()) == pytest.approx(0.5, abs=0.05)


def test_reliability_is_the_fraction_of_variance_that_is_not_counting_noise():
    """Poisson counts of a known rate: of their variance, that of the rate is signal and its mean is noise."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(4.0, 5.0, size=(40_000, 1)) * np.array([[1.0, 0.05]])
    counts = torch.from_numpy(rng.poisson(rates)).float()
    generator = torch.Generator().manual_seed(0)
    found = split_half_reliability((split_counts(block, generator) for block in counts.split(5_000)), torch.eye(2))
    expected = rates.var(0) / (rates.var(0) + rates.mean(0))
    np.testing.assert_allclose(found.numpy(), expected, atol=0.02)


def test_reliability_is_that_of_spearman_and_brown_whatever_the_halves_spread():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(500, 3)) + 2
    b = 5 * a + rng.normal(size=(500, 3)) * [1, 5, 25] - 40
    halves = [torch.from_numpy(half.astype(np.float32)).split(150) for half in (a, b)]
    c = np.array([np.corrcoef(a[:, j], b[:, j])[0, 1] for j in range(3)])
    found = split_half_reliability(zip(*halves, strict=True), torch.eye(3))
    np.testing.assert_allclose(found.numpy(), 2 * c / (1 + c), atol=1e-4)


def test_noise_and_constants_have_no_reliability():
    rng = np.random.default_rng(0)
    counts = torch.from_numpy(np.c_[rng.poisson(3.0, 5_000), np.zeros(5_000)]).float()
    found = split_half_reliability([split_counts(counts, torch.Generator().manual_seed(0))], torch.eye(2))
    assert found[0] < 0.05 and found[1] == 0


@pytest.mark.parametrize("layout", ["dense", "csr"])
@pytest.mark.parametrize(
    ("values", "counts"), [([0, 3, 7], True), ([0, 3, 7.5], False), ([0, 3, -1], False), ([0, 0.25, 0.5], False)]
)
def test_counts_are_told_from_other_values(layout, values, counts):
    x = torch.tensor([values, [0, 0, 0]], dtype=torch.float32)
    assert are_counts(x.to_sparse_csr() if layout == "csr" else x) is counts


@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_alpha_is_the_fraction_of_variance_that_features_share(layout):
    """Values of both signs with a known signal: every feature of a component measures it with independent noise."""
    rng = np.random.default_rng(0)
    signal, noise = rng.normal(size=(20_000, 1)), rng.normal(size=(20_000, 40))
    x = torch.from_numpy(np.c_[signal + 3 * noise[:, :20], noise[:, 20:] - 5]).float()
    components = torch.zeros(40, 3)
    components[:20, 0], components[20:, 1] = 1, 1  # the third has no feature
    blocks = x.split(3_000)
    found = coefficient_alpha([b.to_sparse_csr() for b in blocks] if layout == "csr" else blocks, components)
    # over 20 features, the variance of the signal is 20 ** 2 and that of the noise 20 * 9
    assert found[0] == pytest.approx(400 / 580, abs=0.05) and found[1] < 0.1 and found[2] == 0


def test_alpha_of_few_features_is_cronbachs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 1)) + rng.normal(size=(500, 5))
    expected = 5 / 4 * (1 - x.var(0).sum() / x.sum(1).var())
    found = coefficient_alpha([torch.from_numpy(x).float()], torch.ones(5, 1))
    assert float(found) == pytest.approx(expected, abs=1e-5)
