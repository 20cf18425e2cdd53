"""How much of a component is signal: halves of counts, and what is known of Poisson noise."""

import numpy as np
import pytest
import torch
from scipy import sparse

from scmamba_scvi.nn.reliability import in_halves, reliability


@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_halves_share_out_every_count(layout):
    counts = sparse.random(40, 30, 0.3, random_state=0, format="csr", dtype=np.float32)
    counts.data = np.ceil(counts.data * 9).astype(np.float32)
    x = torch.from_numpy(counts.toarray())
    x = x.to_sparse_csr() if layout == "csr" else x
    halves = [h.to_dense() for h in in_halves(x, torch.Generator().manual_seed(0))]
    np.testing.assert_array_equal(sum(halves).numpy(), counts.toarray())
    assert all((h >= 0).all() and (h == h.round()).all() for h in halves)
    assert float(halves[0].sum() / counts.sum()) == pytest.approx(0.5, abs=0.05)


def test_reliability_is_the_share_of_variance_that_is_not_counting_noise():
    """Poisson counts of a known rate: of their variance, that of the rate is signal and its mean is noise."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(4.0, 5.0, size=(40_000, 1)) * np.array([[1.0, 0.05]])
    counts = torch.from_numpy(rng.poisson(rates)).float()
    generator = torch.Generator().manual_seed(0)
    found = reliability((in_halves(block, generator) for block in counts.split(5_000)), torch.eye(2))
    expected = rates.var(0) / (rates.var(0) + rates.mean(0))
    np.testing.assert_allclose(found.numpy(), expected, atol=0.02)


def test_noise_and_constants_have_no_reliability():
    rng = np.random.default_rng(0)
    counts = torch.from_numpy(np.c_[rng.poisson(3.0, 5_000), np.zeros(5_000)]).float()
    found = reliability([in_halves(counts, torch.Generator().manual_seed(0))], torch.eye(2))
    assert found[0] < 0.05 and found[1] == 0
