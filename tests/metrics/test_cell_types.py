from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import knn_accuracy


def accuracy_by_counting(x, labels, k):
    neighbours = NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x, return_distance=False)[:, 1:]
    right = 0
    for i, row in enumerate(neighbours):
        places = {}
        for place, j in enumerate(row):
            places.setdefault(labels[j], []).append(place)
        right += min(places, key=lambda name: (-len(places[name]), places[name][0])) == labels[i]
    return right / len(x)


@pytest.mark.parametrize("k", [1, 2, 4, 15])
def test_equals_a_count_of_votes(k):
    rng = np.random.default_rng(0)
    labels = rng.choice(["a", "b", "c"], 120)
    x = rng.normal(size=(120, 3)) + (labels == "a")[:, None]
    assert knn_accuracy(x, labels, k) == pytest.approx(accuracy_by_counting(x, labels, k))


def test_a_tie_goes_to_the_type_of_the_nearest_voter():
    # the first and the last cell have a neighbour of each type, the nearer one of their own; the second has two of type a
    assert knn_accuracy(np.array([[0.0], [1.0], [-0.5]]), ["a", "b", "a"], 2) == pytest.approx(2 / 3)


def test_cells_at_one_point_score_as_chance():
    labels = np.repeat(["a", "b"], [200, 200])
    assert knn_accuracy(np.ones((400, 2)), labels) == pytest.approx(0.5, abs=0.1)


def test_a_sample_of_queries_estimates_the_score_of_all():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=2000)
    x = rng.normal(size=(2000, 2)) + labels[:, None]
    assert knn_accuracy(x, labels, max_queries=800) == pytest.approx(knn_accuracy(x, labels), abs=0.03)


@pytest.mark.parametrize(
    ("x", "labels", "k", "message"),
    [
        pytest.param(np.zeros((5, 2)), list("aabbb"), 5, "1 to 4 neighbours", id="k_of_all_cells"),
        pytest.param(np.zeros((5, 2)), list("aabb"), 2, "one label for each", id="another_length"),
        pytest.param(np.full((5, 2), np.nan), list("aabbb"), 2, "not finite", id="nan"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(x, labels, k, message):
    with pytest.raises(ScmambaError, match=message):
        knn_accuracy(x, labels, k)
