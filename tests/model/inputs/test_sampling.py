"""Samples of cells: whole chunks of a file, and pairs where they are rare."""

from functools import partial

import numpy as np
import pytest

from scmamba_scvi.model.inputs.sampling import sample, sample_chunks, sample_with_pairs


@pytest.mark.parametrize("at_most", [100, 300])
def test_a_sample_of_cells_holds_rare_pairs(at_most):
    """Drawn alike from all cells, 100 of 1,000 would hold six of the 60 pairs, too few to correlate modalities on."""
    cells, paired = np.arange(1_000), np.arange(1_000) % 17 == 0
    chosen = sample_with_pairs(cells, paired, at_most, partial(sample, seed=0))
    assert len(np.unique(chosen)) == at_most and (np.diff(chosen) > 0).all()
    assert paired[chosen].sum() == min(paired.sum(), at_most // 2)


def test_a_sample_of_paired_cells_is_a_plain_one():
    cells, all_paired = np.arange(1_000), np.ones(1_000, bool)
    np.testing.assert_array_equal(
        sample_with_pairs(cells, all_paired, 100, partial(sample, seed=0)), sample(cells, 100, seed=0)
    )


def test_a_sample_consists_of_whole_chunks_from_all_over_the_file():
    cells = np.random.default_rng(0).permutation(10_000)
    chosen = sample_chunks(cells, 640, seed=0)
    assert len(chosen) == 640
    assert (np.diff(chosen) > 0).all()
    assert len(np.unique(chosen // 64)) <= 11
    assert chosen.max() - chosen.min() > 5_000
    np.testing.assert_array_equal(sample_chunks(cells, 20_000, seed=0), np.arange(10_000))
