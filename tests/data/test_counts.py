from __future__ import annotations

import numpy as np
import pytest

from scmamba_scvi.data._cells import draw_cells
from scmamba_scvi.data._counts import choose_coding_genes, draw_counts, usual_counts
from scmamba_scvi.data._programs import gene_programs, structure_of


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    structure = structure_of(4)
    return draw_cells(rng, 600, 2, structure, 0.1), gene_programs(rng, 400, structure)


def drawn(world, seed=1, **change):
    cells, programs = world
    arguments = {"state_strength": 1.0, "batch_strength": 0.0, "rna_counts": 800.0} | change
    return draw_counts(np.random.default_rng(seed), cells, "rna", np.arange(600) % 3 > 0, programs, arguments)


def test_without_states_no_count_comes_from_them(world):
    mixture = drawn(world, state_strength=0.0)[1]
    structure = world[0].structure
    assert (mixture[:, structure.first_type + 4 : structure.n_shared] == 0).all()


def test_usual_counts_fall_more_slowly_than_features():
    assert usual_counts("rna", 20_000) == 2500 and usual_counts("protein", 10) == 600
    assert 250 < usual_counts("rna", 2_000) < 2500


def test_three_in_four_coding_genes_are_markers(world):
    cells, programs = world
    coding = choose_coding_genes(np.random.default_rng(0), programs, cells.structure, 40)
    assert (np.diff(coding) > 0).all() and len(coding) == 40
    in_program = (programs[1 : cells.structure.n_shared, coding] > 0).any(0)
    assert in_program.sum() >= 30
