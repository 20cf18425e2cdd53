from __future__ import annotations

import numpy as np
import pytest

from scmamba_scvi.data._sampling import BLOCK, sample_mixture


def test_sampling_has_the_mixture_as_its_mean():
    rng = np.random.default_rng(0)
    programs = rng.dirichlet(np.ones(30), size=3)
    mixture, n_counts = rng.dirichlet(np.ones(3), size=700), np.full(700, 900)
    x = sample_mixture(rng, mixture, programs, n_counts)
    assert (np.asarray(x.sum(1)).ravel() == 900).all()
    expected = 900 * mixture @ programs
    z = (x.toarray() - expected) / np.sqrt(expected * (1 - expected / 900))
    assert abs(z.mean()) < 0.1 and z.std() == pytest.approx(1, abs=0.1)


def test_counts_are_sorted_sparse_and_complete_over_blocks():
    rng = np.random.default_rng(1)
    n_counts = rng.integers(0, 40, 2 * BLOCK + 3)
    x = sample_mixture(rng, np.ones((len(n_counts), 1)), np.full((1, 9), 1 / 9), n_counts)
    assert x.shape == (len(n_counts), 9) and x.dtype == np.float32 and x.has_sorted_indices
    np.testing.assert_array_equal(np.asarray(x.sum(1)).ravel(), n_counts)


def test_a_feature_without_weight_is_never_drawn():
    programs = np.array([[0.5, 0, 0.5], [0, 1, 0]])
    x = sample_mixture(np.random.default_rng(2), np.eye(2), programs, np.array([500, 70])).toarray()
    assert x[0, 1] == 0 and x[1].tolist() == [0, 70, 0]
