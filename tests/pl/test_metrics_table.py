from __future__ import annotations

import copy

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from scmamba_scvi import metrics, pl
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.pl._metrics_table import LOWER_IS_BETTER, _ink, _shade


def scores_of(methods=("first", "second", "third"), seed=0):
    """A table as evaluate_integration makes it; earlier methods are better in everything."""
    rng = np.random.default_rng(seed)
    skill = np.linspace(0.9, 0.3, len(methods))
    columns = {
        (m.group, m.name): np.clip(
            (skill if m.higher_is_better else 1 - skill) + 0.02 * rng.normal(size=len(methods)), 0.001, 1
        )
        for m in metrics.METRICS.values()
    } | {("overall", name): skill for name in ("bio", "omics", "overall")}  # fmt: skip
    table = pd.DataFrame(columns, index=pd.Index(methods, name="method"))
    table.columns = pd.MultiIndex.from_tuples(columns, names=["group", "metric"])
    return table


def draw(scores):
    ax = pl.metrics_table(scores, figure=Figure())
    FigureCanvasAgg(ax.figure).draw()
    return ax


def test_rounding_leads_to_no_colour_beyond_the_hues():
    """The best of these values was rounded to a goodness above 1, and its colour to less than nothing."""
    values = [0.8259572222, 0.5321604735, 0.8132440954]
    table = pd.DataFrame({("bio", "ARI"): values}, index=list("abc"))
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    assert sum(isinstance(patch, Circle) for patch in draw(table).patches) == 3


def texts(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


def rows(ax, names):
    """Names of methods from the top down."""
    found = {t.get_text(): t.get_position()[1] for t in ax.texts if t.get_text() in names}
    return sorted(found, key=found.get, reverse=True)


def test_every_score_stands_under_its_header():
    ax = draw(scores_of())
    for group in ("bio", "omics", "single-cell", "batch", "overall"):
        assert group in texts(ax)
    headers = {" ".join(text.split()) for text in texts(ax)}
    for metric in metrics.METRICS.values():
        assert metric.name + ("" if metric.higher_is_better else " ↓") in headers
    assert sum(isinstance(patch, Circle) for patch in ax.patches) == 3 * len(metrics.METRICS)
    assert sum(isinstance(patch, Rectangle) for patch in ax.patches) == 3 * 3


def test_scores_where_lower_is_better_are_those_of_the_registry():
    assert {m.name for m in metrics.METRICS.values() if not m.higher_is_better} == LOWER_IS_BETTER


def test_methods_are_sorted_by_the_overall_score():
    scores = scores_of()[::-1]
    assert rows(draw(scores), scores.index) == ["first", "second", "third"]
    assert rows(draw(scores.drop(columns="overall", level=0)), scores.index) == ["third", "second", "first"]


def test_methods_without_the_score_come_last():
    scores = scores_of()
    scores.loc["first", ("overall", "overall")] = np.nan
    assert rows(draw(scores), scores.index) == ["second", "third", "first"]


def test_colour_runs_from_worst_to_best_whatever_the_direction():
    scores = pd.DataFrame({"ARI": [0.2, 0.9], "FOSCTTM": [0.4, 0.1]}, index=["bad", "good"])
    ax = draw(scores)
    colors = [patch.get_facecolor() for patch in ax.patches]  # down each column
    assert colors[0] == colors[2] and colors[1] == colors[3]
    assert sum(colors[0][:3]) > sum(colors[1][:3])  # the worse is paler


def test_methods_that_nearly_tie_look_alike():
    scores = pd.DataFrame({"ARI": [0.900, 0.901]}, index=["a", "b"])
    first, second = (np.array(patch.get_facecolor()) for patch in draw(scores).patches)
    assert np.abs(first - second).max() < 0.05


def test_what_is_missing_is_a_dash():
    scores = scores_of()
    scores.loc["second", "single-cell"] = np.nan
    ax = draw(scores)
    assert texts(ax).count("–") == 6 and any("– not scored" in text for text in texts(ax))
    scores["batch", "batch ASW"] = np.nan
    draw(scores)


@pytest.mark.parametrize(
    ("values", "written"),
    [
        pytest.param([0.5, 0.25], ["0.50", "0.25"], id="two_decimals"),
        pytest.param([0.012, 0.3], ["0.012", "0.300"], id="three_where_one_is_small"),
        pytest.param([1.0, 0.0], ["1.000", "0.000"], id="bounds"),
    ],
)
def test_a_column_has_three_decimals_if_one_value_is_small(values, written):
    ax = draw(pd.DataFrame({"ARI": values}, index=["a", "b"]))
    assert [text for text in texts(ax) if text in written] == written


@pytest.mark.parametrize(
    "methods",
    [
        pytest.param(["only"], id="one"),
        pytest.param([f"method {i}" for i in range(20)], id="twenty"),
        pytest.param(["a method of a name that goes on until nobody reads it any more, seed 0", "b"], id="long_name"),
    ],
)
def test_everything_lies_within_the_figure(methods):
    ax = draw(scores_of(methods))
    figure = ax.figure
    for text in ax.texts:
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text


def test_a_table_of_one_narrow_column_has_room_for_its_caption():
    ax = draw(pd.DataFrame({("single-cell", "FOSCTTM"): [0.1, 0.2]}, index=["a", "b"]))
    for text in ax.texts:
        assert text.get_window_extent().x1 <= ax.figure.bbox.x1 + 1


def test_headers_and_names_do_not_overlap():
    ax = draw(scores_of(["Harmony on gene activity", "b"]))
    boxes = [t.get_window_extent() for t in ax.texts if t.get_text()]
    for i, box in enumerate(boxes):
        for other in boxes[i + 1 :]:
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert width <= 0 or height <= 0.5


@pytest.mark.parametrize(
    "hue", ["#009E73", "#0072B2", "#A8508A", "#E69F00", "#5A6472", "#D55E00", "#56B4E9", "#F0E442"]
)
def test_numbers_can_be_read_on_every_shade(hue):
    def luminance(color):
        rgb = np.array(matplotlib.colors.to_rgb(color))
        return np.dot(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), [0.2126, 0.7152, 0.0722])

    for good in np.linspace(0, 1, 21):
        background = _shade(hue, good)
        light, dark = sorted((luminance(background), luminance(_ink(background))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3.0  # the ratio that WCAG 2 asks of graphics


def test_a_file_written_as_csv_draws_the_same(tmp_path):
    scores = scores_of()
    scores.to_csv(tmp_path / "scores.csv")
    read = pd.read_csv(tmp_path / "scores.csv", header=[0, 1], index_col=0)
    assert texts(draw(read)) == texts(draw(scores))


def test_one_method_is_a_list_of_its_scores_with_bars_of_their_length():
    scores = scores_of(["only"])
    scores.loc["only", ("single-cell", "median rank")] = 17.0
    ax = draw(scores)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == "bio: ARI" and "single-cell: FOSCTTM ↓" in names and ax.get_title(loc="left") == "only"
    assert "17.000" in texts(ax)
    expected = scores.loc["only"].where(scores.loc["only"] <= 1, 0)
    bars = [patch.get_width() for patch in ax.patches if patch.get_facecolor()[3] == 1]
    assert bars == pytest.approx(expected.tolist())


def test_drawing_changes_neither_data_nor_settings():
    scores = scores_of()[::-1]
    before, settings = scores.copy(), copy.deepcopy(dict(matplotlib.rcParams))
    draw(scores)
    pd.testing.assert_frame_equal(scores, before)
    assert dict(matplotlib.rcParams) == settings


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        pytest.param(pd.DataFrame(), "got DataFrame of shape", id="empty"),
        pytest.param({"a": 1}, "got dict", id="not_a_table"),
        pytest.param(pd.DataFrame({"ARI": ["high"]}), "numbers only", id="text"),
        pytest.param(pd.DataFrame({"ARI": [np.inf]}), "infinite: .*ARI", id="infinite"),
        pytest.param(pd.DataFrame([[1, 2]], columns=["a", "a"]), "twice", id="columns_twice"),
    ],
)
def test_faults_come_before_a_figure(scores, message):
    figure = Figure()
    with pytest.raises(ScmambaError, match=message):
        pl.metrics_table(scores, figure=figure)
    assert not figure.axes
