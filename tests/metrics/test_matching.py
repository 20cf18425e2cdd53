from __future__ import annotations

import numpy as np
import pytest
import torch

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import _matching, foscttm, recall_at_k


def closer_by_loops(x, y):
    """Definition, cell by cell in plain Python."""
    n = len(x)
    distance = [[float(np.sqrt(((x[i] - y[j]) ** 2).sum())) for j in range(n)] for i in range(n)]
    return np.array([sum(distance[i][j] < distance[i][i] for j in range(n)) for i in range(n)])


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5))
    return x, x + rng.normal(size=x.shape)


def test_foscttm_is_the_definition_in_both_directions(pairs):
    x, y = pairs
    ours_x, ours_y = foscttm(x, y)
    np.testing.assert_array_equal(ours_x, closer_by_loops(x, y) / 60)
    np.testing.assert_array_equal(ours_y, closer_by_loops(y, x) / 60)
    assert not np.array_equal(ours_x, ours_y)  # the two directions are different numbers


@pytest.mark.parametrize("k", [1, 10, 60])
def test_recall_is_the_definition(pairs, k):
    x, y = pairs
    expected = ((closer_by_loops(x, y) < k).mean() + (closer_by_loops(y, x) < k).mean()) / 2
    assert recall_at_k(x, y, k) == pytest.approx(expected, abs=1e-12)


def test_known_value_on_a_line():
    # partner distances are 2, 0 and 2; from x=0: y=1 is closer; from x=1: none; from x=4: none (|4-1|=3 > 2)
    x, y = np.array([[0.0], [1.0], [4.0]]), np.array([[2.0], [1.0], [6.0]])
    np.testing.assert_allclose(foscttm(x, y)[0], [1 / 3, 0, 0])
    # from y=2: x=1 is closer than x=0; from y=1: none; from y=6: none
    np.testing.assert_allclose(foscttm(x, y)[1], [1 / 3, 0, 0])
    assert recall_at_k(x, y, k=1) == pytest.approx(2 / 3)


def test_perfect_and_reversed():
    x = np.arange(10.0)[:, None]
    assert np.concatenate(foscttm(x, x)).max() == 0
    assert recall_at_k(x, x, 1) == 1
    assert foscttm(x, x[::-1].copy())[0][0] == pytest.approx(0.9)


def test_ties_are_not_closer():
    x, y = np.zeros((4, 2)), np.ones((4, 2))
    assert np.concatenate(foscttm(x, y)).max() == 0


@pytest.mark.parametrize("float64_below", [0, 1000], ids=["float32", "float64"])
def test_duplicated_cells_are_ties(monkeypatch, float64_below):
    monkeypatch.setattr(_matching, "FLOAT64_BELOW", float64_below)
    rng = np.random.default_rng(3)
    x = np.repeat(rng.normal(size=(50, 16)), 4, axis=0)
    assert np.concatenate(foscttm(x, x)).max() == 0
    assert recall_at_k(x, x, 1) == 1


def test_chance_is_a_half():
    rng = np.random.default_rng(1)
    score = np.concatenate(foscttm(rng.normal(size=(800, 8)), rng.normal(size=(800, 8)))).mean()
    assert score == pytest.approx(799 / 1600, abs=0.02)


def test_order_of_cells_does_not_matter(pairs):
    x, y = pairs
    order = np.random.default_rng(2).permutation(len(x))
    np.testing.assert_array_equal(foscttm(x[order], y[order])[0], foscttm(x, y)[0][order])


def test_blocks_and_precision_change_nothing(pairs, monkeypatch):
    x, y = pairs
    expected, recall = foscttm(x + 1e3, y + 1e3), recall_at_k(x, y)
    monkeypatch.setattr(_matching, "BLOCK_ENTRIES", 60 * 7)  # ragged last block
    monkeypatch.setattr(_matching, "FLOAT64_BELOW", 10)  # float32 by matrix product
    np.testing.assert_allclose(foscttm(x + 1e3, y + 1e3), expected, atol=1e-12)
    assert recall_at_k(x, y) == recall


def test_float32_tensors_and_arrays_agree(pairs):
    x, y = (a.astype(np.float32) for a in pairs)
    np.testing.assert_array_equal(foscttm(x, y), foscttm(torch.from_numpy(x), torch.from_numpy(y)))


NAN = np.array([[0.0, 1.0], [np.nan, 0.0]])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        pytest.param(np.zeros((3, 2)), np.zeros((4, 2)), r"\(3, 2\) and \(4, 2\)", id="different_numbers_of_cells"),
        pytest.param(np.zeros((3, 2)), np.zeros((3, 1)), r"\(3, 2\) and \(3, 1\)", id="different_dimensions"),
        pytest.param(np.zeros(3), np.zeros(3), "matrices", id="vectors"),
        pytest.param(np.zeros((0, 2)), np.zeros((0, 2)), "matrices", id="no_cells"),
        pytest.param(NAN, np.zeros((2, 2)), "1 of 2 rows of x", id="nan_in_x"),
        pytest.param(np.zeros((2, 2)), NAN, "1 of 2 rows of y", id="nan_in_y"),
    ],
)
def test_faults(x, y, message):
    for score in (foscttm, recall_at_k):
        with pytest.raises(ScmambaError, match=message):
            score(x, y)


@pytest.mark.parametrize("k", [pytest.param(0, id="none"), pytest.param(61, id="more_than_cells")])
def test_k_out_of_range(pairs, k):
    with pytest.raises(ScmambaError, match="between 1 and the number of cells, 60"):
        recall_at_k(*pairs, k)
