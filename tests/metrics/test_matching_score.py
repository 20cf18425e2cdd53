from __future__ import annotations

import numpy as np
import pytest

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import matching_score


def order_of_neighbours(x):
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1)[:, :-1]


def matching_by_sets(x, y, k):
    n = len(x)
    across = np.linalg.norm(x[:, None] - y[None], axis=2)
    own_x, own_y = ([{i, *row[: k - 1].tolist()} for i, row in enumerate(order_of_neighbours(a))] for a in (x, y))
    x_of_y = [set(np.argsort(across[:, j])[:k].tolist()) for j in range(n)]
    y_of_x = [set(np.argsort(across[i])[:k].tolist()) for i in range(n)]
    m = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            # neighbours of the two modalities are told apart by a tag
            of_i = {("x", a) for a in own_x[i]} | {("y", a) for a in y_of_x[i]}
            of_j = {("x", a) for a in x_of_y[j]} | {("y", a) for a in own_y[j]}
            m[i, j] = len(of_i & of_j) / len(of_i | of_j)
    rows = m.sum(axis=1)
    return np.mean(np.divide(np.diag(m), rows, out=np.zeros(n), where=rows > 0))


@pytest.fixture
def pairs():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(70, 5))
    return x, x + 0.7 * rng.normal(size=x.shape)


@pytest.mark.parametrize("k", [1, 2, 5, 70])
def test_matching_score_is_the_definition(pairs, k):
    assert matching_score(*pairs, n_neighbors=k) == pytest.approx(matching_by_sets(*pairs, k), abs=1e-12)


def test_blocks_and_a_common_shift_change_nothing(pairs, monkeypatch):
    x, y = pairs
    expected = matching_score(x, y, n_neighbors=3)
    monkeypatch.setattr("scmamba_scvi.metrics._matching_score.BLOCK_ROWS", 16)  # ragged last block
    assert matching_score(x + 50, y + 50, n_neighbors=3) == pytest.approx(expected, abs=1e-12)
    order = np.random.default_rng(3).permutation(70)
    assert matching_score(x[order], y[order], n_neighbors=3) == pytest.approx(expected)


def test_chance_and_broken_embeddings_score_low():
    x = np.random.default_rng(10).normal(size=(300, 5))
    assert matching_score(x, x) == 1
    assert matching_score(x, x[np.random.default_rng(0).permutation(300)]) == pytest.approx(1 / 300, abs=0.01)
    assert matching_score(np.zeros((100, 3)), np.zeros((100, 3))) < 0.1
    assert matching_score(x, x + 1000) < 0.05


X = np.random.default_rng(11).normal(size=(6, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: matching_score(X[:1], X[:1]), "one cell", id="one_cell"),
        pytest.param(lambda: matching_score(X, X, n_neighbors=7), "more than the 6 cells", id="k"),
        pytest.param(lambda: matching_score(X, X, n_neighbors=1.5), "whole number, got 1.5", id="half_a_neighbour"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(call, message):
    with pytest.raises(ScmambaError, match=message):
        call()
