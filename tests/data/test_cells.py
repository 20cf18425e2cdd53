from __future__ import annotations

import numpy as np
import pytest

from scmamba_scvi.data._cells import draw_cells, draw_presence, log_normal, make_obs, numbered
from scmamba_scvi.data._programs import N_STATES, structure_of


@pytest.fixture(scope="module")
def cells():
    return draw_cells(np.random.default_rng(0), 4000, 3, structure_of(7), 0.03)


def test_shapes_are_those_of_the_programs(cells):
    assert cells.levels.shape == (4000, cells.structure.n_shared)
    assert cells.state.shape == (4000, N_STATES) and cells.depth.shape == (4000,)


def test_a_cell_has_the_base_its_lineage_and_types_of_that_lineage_only(cells):
    structure = cells.structure
    types = cells.levels[:, structure.first_type : structure.first_type + 7] > 0
    lineages = cells.levels[:, 1 : structure.first_type] > 0
    assert (cells.levels[:, 0] == 1).all() and (lineages.sum(1) == 1).all()
    own = cells.obs["cell_type"].cat.codes.to_numpy()
    assert types[np.arange(4000), own].all() and types.sum(1).max() == 2
    for cell, lineage in zip(types, lineages.argmax(1), strict=True):
        assert (structure.lineage_of[cell] == lineage).all()


def test_sizes_of_types_fall_geometrically_to_the_rarest(cells):
    fractions = cells.obs["cell_type"].value_counts(normalize=True, sort=False).to_numpy()
    assert fractions[-1] == pytest.approx(0.03, abs=0.001)
    np.testing.assert_allclose(fractions[1:] / fractions[:-1], fractions[1] / fractions[0], rtol=0.05)


def test_batches_follow_one_another_in_equal_parts(cells):
    codes = cells.obs["batch"].cat.codes.to_numpy()
    assert (np.diff(codes) >= 0).all()
    assert np.ptp(np.bincount(codes)) <= 1


@pytest.mark.parametrize("paired", [0.0, 0.5, 1.0])
def test_cells_with_one_modality_are_halved_and_none_has_none(paired):
    has = draw_presence(np.random.default_rng(0), 100, paired, ("rna", "atac"))
    rna, atac = has["rna"], has["atac"]
    assert (rna | atac).all() and (rna & atac).sum() == 100 * paired
    assert (rna & ~atac).sum() == (atac & ~rna).sum() == 50 * (1 - paired)


def test_levels_are_one_on_average():
    assert log_normal(np.random.default_rng(0).normal(size=100_000), 0.9).mean() == pytest.approx(1, abs=0.02)


def test_names_sort_as_numbers():
    names = list(numbered("type", np.arange(12), 12).categories)
    assert names[0] == "type_01" and names == sorted(names)
    assert list(make_obs(numbered("t", np.zeros(10, int), 1), 1).index)[-1] == "cell_10"
