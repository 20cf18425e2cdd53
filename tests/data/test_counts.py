from __future__ import annotations

import numpy as np
import pytest

from scmamba_scvi.data._cells import draw_cells
from scmamba_scvi.data._counts import choose_coding_genes, draw_counts, draw_protein_counts, usual_counts
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


def test_only_cells_that_have_the_modality_are_drawn_around_the_median(world):
    x, mixture = drawn(world)
    assert x.shape == (400, 400) and mixture.shape == (600, len(world[1]))
    np.testing.assert_allclose(mixture.sum(1), 1)
    assert np.median(np.asarray(x.sum(1))) == pytest.approx(800, rel=0.1)


def test_without_states_no_count_comes_from_them(world):
    mixture = drawn(world, state_strength=0.0)[1]
    structure = world[0].structure
    assert (mixture[:, structure.first_type + 4 : structure.n_shared] == 0).all()


def test_a_batch_changes_features_by_a_factor_of_its_own(world):
    first = (world[0].obs["batch"] == "batch_1").to_numpy()[np.arange(600) % 3 > 0]

    def difference(strength):
        x = drawn(world, batch_strength=strength)[0].toarray()
        rates = [np.log(1 + x[rows].sum(0)) for rows in (first, ~first)]
        return np.std(rates[0] - rates[1])

    assert difference(1.0) > 2 * difference(0.0)


def test_usual_counts_fall_more_slowly_than_features():
    assert usual_counts("rna", 20_000) == 2500 and usual_counts("protein", 10) == 600
    assert 250 < usual_counts("rna", 2_000) < 2500


def test_three_in_four_coding_genes_are_markers(world):
    cells, programs = world
    coding = choose_coding_genes(np.random.default_rng(0), programs, cells.structure, 40)
    assert (np.diff(coding) > 0).all() and len(coding) == 40
    in_program = (programs[1 : cells.structure.n_shared, coding] > 0).any(0)
    assert in_program.sum() >= 30


def test_proteins_follow_the_rate_of_their_gene(world):
    cells, _ = world
    rate = np.where(np.arange(600)[:, None] < 300, 1.0, 9.0) * np.ones((600, 5))
    x = draw_protein_counts(np.random.default_rng(0), cells, np.ones(600, bool), rate, 500.0, 0.0).toarray()
    assert (x == np.round(x)).all() and x.min() >= 0
    assert (x[300:].mean(0) > 1.5 * x[:300].mean(0)).all()
