from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scmamba_scvi.pl._labels import as_categorical, shorten, shortened, spread


@pytest.mark.parametrize(
    ("values", "categories"),
    [
        pytest.param(["t10", "t9", "T1"], ["T1", "t9", "t10"], id="numbers_in_text_are_counted"),
        pytest.param(["a1²", "a1"], ["a1", "a1²"], id="superscripts_are_no_numbers"),
        pytest.param([10, 9, 1], ["1", "9", "10"], id="numbers"),
        pytest.param(pd.Categorical(["b", "a"], categories=["c", "b", "a"]), ["b", "a"], id="an_order_of_its_own"),
        pytest.param(pd.Categorical(["10", "9"]), ["9", "10"], id="alphabetical_is_no_order_of_its_own"),
        pytest.param(
            pd.Categorical(["a", "b"], categories=["a", "x", "b"], ordered=True),
            ["a", "b"],
            id="ordered_without_unused",
        ),
        pytest.param(pd.Categorical(["b", 1, "b"]), ["1", "b"], id="text_and_numbers"),
        pytest.param(["a", None, np.nan], ["a"], id="missing_is_no_category"),
        pytest.param([2.0, np.nan, 10.0], ["2", "10"], id="whole_numbers_of_which_some_are_missing"),
        pytest.param([0.5, 1.0], ["0.5", "1.0"], id="fractions"),
        pytest.param(pd.Categorical([1, "1"], categories=["1", 1]), ["1"], id="two_categories_of_one_name"),
    ],
)
def test_categories_are_in_the_order_people_expect(values, categories):
    found = as_categorical(pd.Series(values))
    assert list(found.categories) == categories
    assert len(found) == len(values)


@pytest.mark.parametrize("length", [5, 12, 28])
def test_long_names_lose_their_middle(length):
    name = "CD4-positive, alpha-beta memory T cell, CD45RO-positive"
    short = shorten(name, length)
    assert len(short) <= length and "…" in short
    head, tail = short.split("…")
    assert name.startswith(head) and name.endswith(tail)
    assert shorten("B cell", 28) == "B cell"


@pytest.mark.parametrize("boxes", [np.array([1.0, 0.5]), np.tile([1.0, 0.5], (40, 1))], ids=["one_size", "own_sizes"])
def test_boxes_are_moved_until_none_covers_another(boxes):
    points = np.random.default_rng(0).uniform(0, 3, (40, 2))
    placed = spread(points, boxes)
    np.testing.assert_array_equal(placed[:, 0], points[:, 0])
    assert abs(placed[:, 1].mean() - points[:, 1].mean()) < 1  # neither up nor down
    apart = np.abs(placed[:, None] - placed) >= np.array([1.0, 0.5]) - 1e-9
    assert (apart.any(-1) | np.eye(40, dtype=bool)).all()


@pytest.mark.parametrize("length", [12, 28])
def test_different_names_stay_different(length):
    names = [f"{state} CD{i}-positive, alpha-beta T cell" for state in ("naive", "effector memory") for i in (4, 8)]
    short = shortened([*names, "B cell"], length)
    assert len(set(short)) == 5 and short[-1] == "B cell"
    assert sum(map(len, short)) < sum(map(len, names))


def test_boxes_that_are_apart_stay():
    points = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    np.testing.assert_array_equal(spread(points, np.array([1.0, 1.0])), points)
