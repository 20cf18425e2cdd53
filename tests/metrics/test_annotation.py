from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.metrics import annotation_scores


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


def test_perfect_predictions_score_1_and_one_answer_for_all_misses_the_rare_type():
    true = pd.Categorical(["a"] * 9 + ["b"])
    assert set(annotation_scores(true, list(true)).values()) == {1.0}
    everyone_a = annotation_scores(true, ["a"] * 10)
    assert everyone_a["accuracy"] == 0.9
    assert everyone_a["recall"] == 0.5  # the rare type counts as much as the frequent one


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
def test_labels_that_cannot_be_compared_are_refused(true, predicted, message):
    with pytest.raises(ScmambaError, match=message):
        annotation_scores(np.array(true, dtype=object), np.array(predicted, dtype=object))
    with pytest.raises(ScmambaError, match=message):
        annotation_scores(true, predicted)


def test_an_unknown_average_is_answered_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="'macro', 'weighted'"):
        annotation_scores(["a"], ["a"], average="micro")
