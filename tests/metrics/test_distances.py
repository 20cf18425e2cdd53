from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import distances
from scmamba_scvi.metrics.distances import (
    as_matrix,
    count_closer,
    distance_blocks,
    medoid,
    prepare,
    query_rows,
    resolve_k,
)


@pytest.fixture
def clouds(monkeypatch):
    monkeypatch.setattr(distances, "BLOCK_ENTRIES", 100)  # several blocks, the last one ragged
    rng = np.random.default_rng(0)
    return prepare(*(as_matrix(rng.normal(size=(n, 3)) + 40) for n in (23, 31)))


def test_blocks_are_squared_distances_of_all_queries(clouds):
    queries, points = clouds
    found = torch.full((23, 31), torch.nan, dtype=torch.float64)
    for rows, block in distance_blocks(queries, points):
        found[rows] = block
    torch.testing.assert_close(found, torch.cdist(queries, points) ** 2)


def test_closer_points_and_ties_are_counted_without_the_excluded(clouds):
    queries, points = clouds
    exact = torch.cdist(queries, points)
    radius, exclude = exact[:, 4] ** 2, torch.full((23,), 9)
    closer, ties = count_closer(queries, points, radius, exclude)
    exact[:, 9] = torch.inf
    torch.testing.assert_close(closer, (exact < exact[:, 4:5]).sum(1).double())
    assert (ties == 1).all()  # the point at the radius itself


def test_the_medoid_has_the_least_total_distance():
    x = np.random.default_rng(1).normal(size=(40, 4)) ** 3
    assert medoid(x) == np.linalg.norm(x[:, None] - x, axis=2).sum(0).argmin()
    assert medoid(np.ones((1, 2))) == 0


def test_what_is_prepared_is_centred_together():
    x, y = prepare(torch.full((3, 2), 5.0).double(), torch.full((7, 2), 9.0).double())
    assert (x == -2).all() and (y == 2).all()


def test_queries_are_all_rows_or_a_sorted_draw_without_repeats():
    np.testing.assert_array_equal(query_rows(9, None, 0), np.arange(9))
    np.testing.assert_array_equal(query_rows(9, 20, 0), np.arange(9))
    drawn = query_rows(900, 50, 0)
    assert len(np.unique(drawn)) == 50 and (np.diff(drawn) > 0).all()
    assert not np.array_equal(drawn, query_rows(900, 50, 1))


@pytest.mark.parametrize(
    ("n_neighbors", "n", "least", "k"),
    [(5, 150, 1, 5), (None, 150, 1, 2), (None, 150, 10, 10), (None, 2_000, 10, 20), (None, 6, 10, 5), (None, 2, 1, 1)],
)
def test_neighbours_are_a_number_or_one_in_a_hundred_cells(n_neighbors, n, least, k):
    assert resolve_k(n_neighbors, n, least) == k


@pytest.mark.parametrize(
    ("n_neighbors", "message"),
    [(0, "at least 1, got 0"), (10, "10 were asked"), (5.5, "whole number, got 5.5"), ("5", "whole number, got '5'")],
)
def test_numbers_of_neighbours_out_of_range_are_refused(n_neighbors, message):
    with pytest.raises(ScmambaError, match=message):
        resolve_k(n_neighbors, 10)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param([[1.0, np.nan], [0, 0]], "1 of 2 rows of z are not finite", id="nan"),
        pytest.param(np.zeros(3), r"z must be a matrix .*\(3,\)", id="vector"),
        pytest.param(np.zeros((0, 3)), r"not empty; got shape \(0, 3\)", id="empty"),
        pytest.param(pd.DataFrame(np.eye(3)), "got DataFrame: pass its rows", id="table"),
        pytest.param([["a"]], "z must be an array of numbers", id="text"),
        pytest.param(sparse.eye(3).tocsr(), "array of numbers .*; got csr_matrix", id="sparse"),
    ],
)
def test_what_is_no_finite_matrix_is_refused(values, message):
    with pytest.raises(ScmambaError, match=message):
        as_matrix(values, "z")


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ScmambaError, match=f"device='{device}' cannot be used here"):
        as_matrix(np.eye(3), device=device)


def test_queries_are_a_whole_number():
    with pytest.raises(ScmambaError, match=r"max_queries must be a whole number or None \(all cells\), got 3.5"):
        query_rows(9, 3.5, 0)


def test_arrays_that_torch_cannot_share_are_copied(recwarn):
    x = np.arange(6.0).reshape(3, 2)
    fixed = x.copy()
    fixed.flags.writeable = False
    for values in (fixed, x[::-1][::-1], x[::-1]):
        np.testing.assert_array_equal(as_matrix(values).numpy(), values)
    assert not recwarn.list
    assert np.shares_memory(as_matrix(x).numpy(), x)  # others are not
