"""The linear classifier beside that of scikit-learn, and its way to a file."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.model.tools import linear_classifier
from scmamba_scvi.model.tools.linear_classifier import LinearClassifier


@pytest.mark.parametrize("n_labels", [2, 5])
def test_classifier_is_the_regression_of_scikit_learn(n_labels):
    rng = np.random.default_rng(0)
    y = np.array(list("abcde"))[rng.integers(n_labels, size=400)]
    z = rng.normal(size=(5, 6))[[ord(c) - 97 for c in y]] * 0.3 + 0.4 * rng.normal(size=(400, 6)) + 1
    fitted = linear_classifier.fit_linear_classifier(z, y, seed=0)
    x = (z - z.mean(0)) / np.sqrt(z.var(0).mean())
    counts = dict(zip(*np.unique(y, return_counts=True), strict=True))
    weight = np.array([np.sqrt(400 / counts[c]) for c in y])
    losses = {}
    for penalty in linear_classifier.PENALTIES:
        p = np.zeros((400, n_labels))
        for known, asked in StratifiedKFold(5, shuffle=True, random_state=0).split(x, y):
            fold = LogisticRegression(C=penalty, max_iter=1000).fit(x[known], y[known], sample_weight=weight[known])
            p[asked] = fold.predict_proba(x[asked])
        at_each_t = [softmax(np.log(p) / t, axis=1) for t in np.geomspace(0.1, 10, 200)]
        losses[penalty] = min(log_loss(y, found) for found in at_each_t)
    best = min(losses, key=losses.get)
    want = LogisticRegression(C=best, max_iter=1000).fit(x, y, sample_weight=weight)
    logits = np.log(want.predict_proba(x))
    np.testing.assert_allclose(np.exp(fitted.log_proba(z)), softmax(logits / fitted.temperature, axis=1), atol=1e-3)


def test_random_labels_are_predicted_without_confidence():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(60, 40)), np.repeat(["a", "b", "c"], 20)
    fitted = linear_classifier.fit_linear_classifier(z, y, 0)
    assert fitted.temperature > 2
    assert np.exp(fitted.log_proba(rng.normal(size=(200, 40)))).max(1).mean() < 0.6


@pytest.mark.parametrize("told", [0, 1, 3])
def test_a_rare_label_is_as_probable_as_it_is_frequent_however_little_the_embedding_tells(told):
    rng = np.random.default_rng(0)
    z, is_rare = rng.normal(size=(3000, 64)), rng.random(3000) < 0.1
    z[:, 0] += told * is_rare
    fitted = linear_classifier.fit_linear_classifier(z[:600], np.where(is_rare, "rare", "usual")[:600], 0)
    p = np.exp(fitted.log_proba(z[600:]))[:, 0]
    assert p.mean() == pytest.approx(is_rare[600:].mean(), abs=0.03)
    assert (p > 0.5).mean() < 0.02 if told <= 1 else is_rare[600:][p > 0.5].mean() > 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "do not fit its labels"),
        ({"temperature": float("nan")}, "do not fit its labels"),
        ({"bias": [0.0, float("inf")]}, "do not fit its labels"),
        ({"weight": [[1.0, 2.0, 3.0]]}, "do not fit its labels"),
        ({"classes": ["a"]}, "do not fit its labels"),
    ],
)
def test_a_classifier_comes_back_from_its_dict_and_a_damaged_one_does_not(change, message):
    good = {"classes": ["a", "b"], "weight": [[1.0, -1.0], [0.5, 0.0]], "bias": [0.0, 0.1], "temperature": 2.0}
    assert LinearClassifier.from_dict(good).to_dict() == good
    with pytest.raises(ScmambaError, match=message):
        LinearClassifier.from_dict(good | change)
