"""Samples of cells: whole chunks of a file, and pairs where they are rare."""

from functools import partial

import numpy as np
import pytest

from scmamba_scvi.model.inputs.sampling import sample, sample_chunks, sample_with_rare


@pytest.mark.parametrize("at_most", [100, 300])
def test_a_sample_of_cells_holds_rare_pairs(at_most):
    """Drawn alike from all cells, 100 of 1,000 would hold six of the 60 pairs, too few to correlate modalities on."""
    cells, paired = np.arange(1_000), np.arange(1_000) % 17 == 0
    has = np.stack([np.ones(1_000, bool), paired], axis=1)
    chosen = sample_with_rare(cells, has, at_most, partial(sample, seed=0))
    assert len(np.unique(chosen)) == at_most and (np.diff(chosen) > 0).all()
    assert paired[chosen].sum() == min(paired.sum(), at_most // 2)


def test_a_sample_of_paired_cells_is_a_plain_one():
    cells, all_paired = np.random.default_rng(1).permutation(1_000), np.ones((1_000, 2), bool)
    np.testing.assert_array_equal(
        sample_with_rare(cells, all_paired, 100, partial(sample, seed=0)), sample(cells, 100, seed=0)
    )


@pytest.mark.parametrize("draw", [sample, sample_chunks])
@pytest.mark.parametrize("is_paired", [True, False])
def test_a_sample_holds_every_cell_of_a_rare_modality(draw, is_paired):
    """All 5,000 cells have RNA and protein, 12 accessibility too; or these 12 nothing else."""
    cells = np.random.default_rng(0).permutation(5_000)
    has = np.ones((5_000, 3), bool)
    has[:, 2] = cells % 417 == 0
    has[has[:, 2], :2] = is_paired
    chosen = sample_with_rare(cells, has, 300, partial(draw, seed=0))
    assert len(np.unique(chosen)) == 300 and (np.diff(chosen) > 0).all()
    assert set(cells[has[:, 2]]) <= set(chosen)
    has[:, 2] = cells % 17 == 0  # 295 of them: a tenth of the sample, where a plain one would hold 18
    assert (sample_with_rare(cells, has, 300, partial(draw, seed=0)) % 17 == 0).sum() >= 30


def test_a_sample_consists_of_whole_chunks_from_all_over_the_file():
    cells = np.random.default_rng(0).permutation(10_000)
    chosen = sample_chunks(cells, 640, seed=0)
    assert len(chosen) == 640
    assert (np.diff(chosen) > 0).all()
    assert len(np.unique(chosen // 64)) <= 11
    assert chosen.max() - chosen.min() > 5_000
    np.testing.assert_array_equal(sample_chunks(cells, 20_000, seed=0), np.arange(10_000))
