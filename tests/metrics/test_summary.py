from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.metrics import annotation_scores, overall_scores

# --- annotation ---


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_annotation_scores_are_the_definitions(average):
    rng = np.random.default_rng(0)
    true = rng.choice(list("aaabbcd"), 200)
    predicted = np.where(rng.random(200) < 0.6, true, rng.choice(list("abce"), 200))  # d is rare, e is never true
    types = sorted(set(true) | set(predicted))
    weights = np.array([np.sum(true == t) for t in types]) if average == "weighted" else np.ones(len(types))
    per_type = []
    for t in types:
        hit = np.sum((true == t) & (predicted == t))
        precision, recall = hit / max(1, np.sum(predicted == t)), hit / max(1, np.sum(true == t))
        per_type.append((precision, recall, 2 * precision * recall / (precision + recall) if hit else 0.0))
    expected = np.average(per_type, axis=0, weights=weights)
    ours = annotation_scores(true, predicted, average)
    assert ours["accuracy"] == pytest.approx(np.mean(true == predicted))
    assert [ours["precision"], ours["recall"], ours["f1"]] == pytest.approx(expected.tolist(), abs=1e-12)


def test_annotation_of_perfect_and_of_one_answer():
    true = pd.Categorical(["a"] * 9 + ["b"])
    assert set(annotation_scores(true, list(true)).values()) == {1.0}
    everyone_a = annotation_scores(true, ["a"] * 10)
    assert everyone_a["accuracy"] == 0.9
    assert everyone_a["recall"] == 0.5  # the rare type counts as much


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        pytest.param(["a", "b"], ["a"], r"\(2,\) and \(1,\)", id="lengths"),
        pytest.param([], [], "for the same cells", id="no_cells"),
        pytest.param(["a", None], ["a", "b"], "y_true is missing .* 1 of 2", id="true_missing"),
        pytest.param(["a", "b"], ["a", np.nan], "y_pred is missing .* 1 of 2", id="predicted_missing"),
        pytest.param(["a", "b"], [0, 1], "both as names or both as codes", id="names_against_codes"),
    ],
)
def test_annotation_faults(true, predicted, message):
    with pytest.raises(ScmambaError, match=message):
        annotation_scores(np.array(true, dtype=object), np.array(predicted, dtype=object))
    with pytest.raises(ScmambaError, match=message):
        annotation_scores(true, predicted)


def test_unknown_average():
    with pytest.raises(UnknownNameError, match="'macro', 'weighted'"):
        annotation_scores(["a"], ["a"], average="micro")


# --- overall ---


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "ari": [0.2, 0.6, 0.4],
            "map": [0.9, 0.9, 0.9],
            "oems": [0.5, 0.1, 0.3],
            "gc": [1.0, 0.8, 0.9],
            "foscttm": 0.1,
        },
        index=["one", "two", "three"],
    )


def test_plain_means(table):
    ours = overall_scores(table)
    np.testing.assert_allclose(ours["bio"], [0.55, 0.75, 0.65])
    np.testing.assert_allclose(ours["omics"], [0.75, 0.45, 0.6])
    np.testing.assert_allclose(ours["overall"], 0.6 * ours["bio"] + 0.4 * ours["omics"])
    assert ours.index.equals(table.index)
    np.testing.assert_allclose(overall_scores(table, weights=(1, 0))["overall"], ours["bio"])


def test_minmax_with_a_tie_in_the_middle(table):
    ours = overall_scores(table, "minmax")
    np.testing.assert_allclose(ours["bio"], [(0 + 0.5) / 2, (1 + 0.5) / 2, 0.5])  # all tie on map
    np.testing.assert_allclose(ours["omics"], [1, 0, 0.5], atol=1e-12)
    rounding = overall_scores(table.assign(map=[0.9, 0.9 + 1e-15, 0.9 - 1e-15]), "minmax")
    np.testing.assert_allclose(rounding["bio"], ours["bio"])
    every_tie = overall_scores(table.assign(ari=0.3, oems=0.2, gc=0.7), "minmax")
    assert (every_tie == 0.5).all().all()


def test_groups_in_the_columns(table):
    grouped = table.set_axis(
        pd.MultiIndex.from_tuples([("bio", "ari"), ("bio", "MAP"), ("omics", "x"), ("omics", "y"), ("pairs", "f")]),
        axis=1,
    )
    pd.testing.assert_frame_equal(overall_scores(grouped), overall_scores(table))


def test_what_is_missing(table):
    # nobody has it: left out; one lacks it: no number for that one
    pd.testing.assert_frame_equal(overall_scores(table.assign(nmi=np.nan)), overall_scores(table))
    for scale in (None, "minmax"):
        lacking = overall_scores(table.assign(ari=[0.2, np.nan, 0.4]), scale)
        assert lacking.isna().sum().tolist() == [1, 0, 1]
        assert lacking.loc["two", ["bio", "overall"]].isna().all()
    tie = overall_scores(table.assign(map=[0.9, 0.9, np.nan]), "minmax")
    assert tie["bio"].isna().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("change", "scale", "message"),
    [
        pytest.param(lambda t: t.iloc[:1], "minmax", "needs at least two; got 1", id="one_method"),
        pytest.param(lambda t: t[["ari"]], None, "score of omics", id="no_omics"),
        pytest.param(lambda t: t.drop(columns=["ari", "map"]), None, "score of bio; needed one of ari", id="no_bio"),
        pytest.param(lambda t: t.assign(gc=np.inf), None, "omics is infinite: gc", id="infinite"),
        pytest.param(lambda t: t, "zscore", "Unknown scale", id="unknown_scale"),
    ],
)
def test_overall_faults(table, change, scale, message):
    with pytest.raises(ScmambaError, match=message):
        overall_scores(change(table), scale)


def test_one_method_has_plain_scores(table):
    assert overall_scores(table.iloc[:1])["overall"].item() == pytest.approx(0.6 * 0.55 + 0.4 * 0.75)
