from __future__ import annotations

import numpy as np
import pytest

from scmamba_scvi.data._cells import draw_cells, log_normal, make_obs, numbered
from scmamba_scvi.data._programs import structure_of


@pytest.fixture(scope="module")
def cells():
    return draw_cells(np.random.default_rng(0), 4000, 3, structure_of(7), 0.03)


def test_a_cell_has_the_base_its_lineage_and_types_of_that_lineage_only(cells):
    structure = cells.structure
    types = cells.levels[:, structure.first_type : structure.first_type + 7] > 0
    lineages = cells.levels[:, 1 : structure.first_type] > 0
    assert (cells.levels[:, 0] == 1).all() and (lineages.sum(1) == 1).all()
    own = cells.obs["cell_type"].cat.codes.to_numpy()
    assert types[np.arange(4000), own].all() and types.sum(1).max() == 2
    for cell, lineage in zip(types, lineages.argmax(1), strict=True):
        assert (structure.lineage_of[cell] == lineage).all()


def test_levels_are_one_on_average():
    assert log_normal(np.random.default_rng(0).normal(size=100_000), 0.9).mean() == pytest.approx(1, abs=0.02)


def test_names_sort_as_numbers():
    names = list(numbered("type", np.arange(12), 12).categories)
    assert names[0] == "type_01" and names == sorted(names)
    assert list(make_obs(numbered("t", np.zeros(10, int), 1), 1).index)[-1] == "cell_10"
