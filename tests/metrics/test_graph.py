from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData

from scmamba_scvi.metrics.graph import break_ties, nearest, neighbor_graph


def test_the_graph_is_that_of_scanpys_exact_search_and_copies_are_no_hubs():
    x = np.random.default_rng(0).normal(size=(240, 5)) + 4 * np.eye(4, 5)[np.arange(240) % 4]
    theirs = AnnData(obsm={"X": x}, shape=(len(x), 0))
    sc.pp.neighbors(theirs, n_neighbors=11, use_rep="X", transformer="sklearn")
    ours = neighbor_graph(x + 1e3, 10, 0)
    for key in ("connectivities", "distances"):
        np.testing.assert_allclose(ours.obsp[key].toarray(), theirs.obsp[key].toarray(), atol=1e-4)
    of_one_point = neighbor_graph(np.ones((200, 3)), 10).obsp["connectivities"]
    assert np.diff(of_one_point.indptr).max() < 50


@pytest.mark.parametrize("k", [1, 4, 29])
def test_neighbours_are_the_nearest_other_rows_in_order(k):
    x = np.random.default_rng(0).normal(size=(30, 3))
    distance = np.linalg.norm(x[:, None] - x, axis=2)
    np.fill_diagonal(distance, np.inf)
    rows = np.array([3, 17, 29])
    ((found_rows, found),) = nearest(x, k, rows)
    np.testing.assert_array_equal(found_rows, rows)
    np.testing.assert_array_equal(found, np.argsort(distance[rows], axis=1)[:, :k])


def test_a_row_is_never_its_own_neighbour_even_among_copies(monkeypatch):
    monkeypatch.setattr("scmamba_scvi.metrics.graph.BLOCK_ROWS", 7)  # ragged last block
    x = np.repeat(np.random.default_rng(1).normal(size=(10, 4)), 5, axis=0)
    for rows, found in nearest(x, 4, np.arange(50)):
        assert (found != rows[:, None]).all()
        assert (found // 5 == rows[:, None] // 5).all()  # its copies


def test_the_seed_orders_ties_and_moves_nothing_else():
    x = np.random.default_rng(2).normal(size=(40, 3)) + 100
    one, same, other = (break_ties(x, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).all()
    np.testing.assert_allclose(one, x - x.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(break_ties(1e-9 * x, 0), 1e-9 * one, rtol=1e-9)  # however small its spread
