from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from scmamba_scvi import pl
from scmamba_scvi.errors import ScmambaError


def labels_of(n_types, n=2000, right=0.7, seed=0):
    """Cells that are mostly predicted as their own type, else as another one of the same family of three."""
    rng = np.random.default_rng(seed)
    true = rng.integers(n_types, size=n)
    family = rng.permutation(n_types) // 3
    mates = [np.flatnonzero(family == family[t]) for t in range(n_types)]
    predicted = np.array([t if rng.random() < right else rng.choice(mates[t]) for t in true])
    names = np.array([f"type {i}" for i in range(n_types)])
    return names[true], names[predicted], {names[i]: family[i] for i in range(n_types)}


def draw(*args):
    ax = pl.confusion(*args, figure=Figure())
    FigureCanvasAgg(ax.figure).draw()
    return ax


def axis(ax):
    return [t.get_text() for t in ax.get_yticklabels()], [t.get_text() for t in ax.get_xticklabels()]


def test_values_are_those_of_scikit_learn():
    true, predicted, _ = labels_of(7)
    ax = draw(true, predicted)
    rows, columns = axis(ax)
    assert rows == columns
    np.testing.assert_allclose(
        ax.images[0].get_array(), confusion_matrix(true, predicted, labels=rows, normalize="true")
    )


def test_fractions_below_one_per_cent_are_not_written():
    ax = draw(["a"] * 999 + ["b"] * 10, ["a"] * 998 + ["b"] * 11)
    written = {text.get_position(): text.get_text() for text in ax.texts}
    # nothing of b is taken for a, and of a one in a thousand
    assert written[0, 0] == "100" and written[1, 1] == "100" and (1, 0) not in written and (0, 1) not in written
    assert "999" in written.values() and "10" in written.values()  # cells of each row


def test_labels_that_are_confused_stand_together():
    true, predicted, family = labels_of(12)
    rows, _ = axis(draw(true, predicted))
    found = [family[name] for name in rows]
    assert sum(a != b for a, b in zip(found, found[1:], strict=False)) == 3  # four families, each in one piece


def test_an_ordered_categorical_keeps_its_order():
    true = pd.Categorical(["late", "early", "late"], categories=["early", "late"], ordered=True)
    assert axis(draw(true, true))[0] == ["early", "late"]


def test_perfect_predictions_are_a_diagonal_in_order():
    true = [f"t{i % 11}" for i in range(200)]
    ax = draw(true, true)
    np.testing.assert_array_equal(ax.images[0].get_array(), np.eye(11))
    assert axis(ax)[0] == [f"t{i}" for i in range(11)] and "100.0% right" in ax.get_title(loc="left")


def test_clusters_follow_the_types_they_belong_to():
    true, predicted, _ = labels_of(6, right=0.95)
    cluster = {f"type {i}": str((i * 5 + 2) % 6) for i in range(6)}
    ax = draw(true, [cluster[name] for name in predicted])
    rows, columns = axis(ax)
    assert [cluster[name] for name in rows] == columns
    assert "right" not in ax.get_title(loc="left")


def test_labels_of_one_side_only_come_last():
    rows, columns = axis(draw(["b", "a", "a", "c"], ["b", "a", "new", "a"]))
    assert rows == ["a", "c", "b"] and columns == ["a", "b", "new"]  # cells of a and c are predicted alike


def test_missing_labels_are_left_out():
    ax = draw(pd.Series(["a", None, "b", "b"]), ["a", "a", np.nan, "b"])
    np.testing.assert_array_equal(ax.images[0].get_array(), np.eye(2))


def test_columns_that_name_their_cells_are_aligned_by_name():
    true = pd.Series(["a", "a", "b"], index=["c1", "c2", "c3"])
    np.testing.assert_array_equal(draw(true, true[::-1]).images[0].get_array(), np.eye(2))
    # numbered by pandas: without names, in the order given
    np.testing.assert_array_equal(draw(true, pd.Series(["a", "a", "b"])).images[0].get_array(), np.eye(2))
    with pytest.raises(ScmambaError, match="y_pred names other cells: it lacks 1 of 3, such as 'c3'"):
        draw(true, true.set_axis(["c1", "c2", "c4"]))


@pytest.mark.parametrize("n", [1, 12, 100])
def test_everything_lies_within_the_figure_and_is_legible(n):
    true, predicted, _ = labels_of(n, n=3000)
    long = {f"type {i}": f"hematopoietic progenitor, subtype {i} of a lineage" for i in range(n)}
    ax = draw([long[name] for name in true], [long[name] for name in predicted])
    figure = ax.figure
    box = ax.get_tightbbox()
    assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
    own = ax.get_window_extent()
    cell = own.width / n
    assert own.width == pytest.approx(own.height)
    for text in ax.texts:
        assert text.get_fontsize() >= 4.5
        if text.get_ha() == "center":
            assert text.get_window_extent().width < cell
    names = [t.get_window_extent() for t in ax.get_yticklabels()]
    assert all(upper.y0 >= lower.y1 - 2 for upper, lower in zip(names, names[1:], strict=False))


def test_short_names_of_many_columns_do_not_touch():
    names = [f"{i}_{i % 7}" for i in range(10, 90)]
    ax = draw(names, names)
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert all(left.x1 + 1 < right.x0 for left, right in itertools.pairwise(boxes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param((["a"], ["a", "b"]), "got 1 and 2", id="different_lengths"),
        pytest.param(([], []), "at least one", id="empty"),
        pytest.param(([None], ["a"]), "No cell has both", id="all_missing"),
        pytest.param((range(101), range(101)), "101 different", id="too_many"),
    ],
)
def test_faults_come_before_a_figure(arguments, message):
    figure = Figure()
    with pytest.raises(ScmambaError, match=message):
        pl.confusion(*arguments, figure=figure)
    assert not figure.axes
