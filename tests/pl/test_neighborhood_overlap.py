from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scmamba_scvi import metrics, pl
from scmamba_scvi.errors import ScmambaError


def draw(curves, **kwargs):
    ax = pl.neighborhood_overlap(curves, figure=Figure(), **kwargs)
    FigureCanvasAgg(ax.figure).draw()
    return ax


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.lines}


def test_curves_are_those_of_the_metric():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    curves = {f"noise {s}": metrics.neighborhood_overlap(x, x + s * rng.normal(size=x.shape)) for s in (2.0, 0.2)}
    drawn = lines(draw(curves, n_pairs=60))
    for name, curve in curves.items():
        np.testing.assert_array_equal(drawn[name], np.c_[np.arange(1, 120), curve])
    assert list(drawn) == ["noise 0.2", "noise 2.0", "chance"]  # from the highest down
    k, share = drawn["chance"].T
    np.testing.assert_allclose(share, k / 119)


@pytest.mark.parametrize(
    "curves",
    [
        pytest.param({"a": [0.1, 0.2, 0.4], "b": [0.2, 0.3, 0.5]}, id="dict"),
        pytest.param(pd.DataFrame({"a": [0.1, 0.2, 0.4], "b": [0.2, 0.3, 0.5]}, index=[1, 2, 3]), id="table"),
        pytest.param(
            {"a": pd.Series([0.4, 0.1, 0.2], index=[3, 1, 2]), "b": [0.2, 0.3, 0.5]}, id="series_in_any_order"
        ),
    ],
)
def test_curves_can_be_a_dict_a_table_or_series(curves):
    drawn = lines(draw(curves))
    np.testing.assert_allclose(drawn["a"], [[1, 0.1], [2, 0.2], [3, 0.4]])
    np.testing.assert_allclose(drawn["b"], [[1, 0.2], [2, 0.3], [3, 0.5]])


def test_one_array_needs_no_legend():
    ax = draw(np.array([0.1, 0.5, 1.0]))
    assert ax.get_legend() is None and len(ax.lines) == 1


def test_a_curve_of_one_point_is_seen():
    (line,) = draw({"a": pd.Series([0.5], index=[10])}).lines
    assert line.get_marker() == "o"


@pytest.mark.parametrize("n", [2, 8, 20])
def test_methods_differ_in_colour_or_dash_and_fit_the_figure(n):
    ax = draw({f"a method with a rather long name, number {i}": [0.1, 0.2] for i in range(n)}, n_pairs=50)
    assert len({(line.get_color(), str(line._dash_pattern)) for line in ax.lines[:n]}) == n
    box = ax.get_legend().get_window_extent()
    assert box.x1 <= ax.figure.bbox.x1 and box.y0 >= 0 and box.y1 <= ax.figure.bbox.y1


@pytest.mark.parametrize(
    ("curves", "arguments", "message"),
    [
        pytest.param({}, {}, "no curve to draw", id="none"),
        pytest.param({"a": [0.1, 1.2]}, {}, "between 0 and 1", id="above_1"),
        pytest.param({"a": [np.nan]}, {}, "between 0 and 1", id="only_nan"),
        pytest.param({"a": ["x"]}, {}, "must hold numbers", id="text"),
        pytest.param({"a": pd.Series([0.1], index=[0])}, {}, "from 1", id="no_neighbours"),
        pytest.param({"a": [0.1]}, {"n_pairs": 1}, "at least 2", id="one_pair"),
    ],
)
def test_faults_come_before_a_figure(curves, arguments, message):
    figure = Figure()
    with pytest.raises(ScmambaError, match=message):
        pl.neighborhood_overlap(curves, figure=figure, **arguments)
    assert not figure.axes
