from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scmamba_scvi.pl._canvas import MARGIN, figure_or_new, fit_figure, style_axes, style_plane


def test_a_figure_that_is_given_is_used_and_sized():
    figure = Figure()
    assert figure_or_new(figure, 4, 3) is figure
    assert figure.get_size_inches().tolist() == [4, 3]


def test_without_one_pyplot_makes_it():
    before = set(plt.get_fignums())
    figure = figure_or_new(None)
    assert set(plt.get_fignums()) - before == {figure.number}
    plt.close(figure)


@pytest.mark.parametrize("label", ["y", "a label\nof three\nlines"])
def test_axes_get_their_size_and_all_text_lies_inside(label):
    figure = Figure()
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(ylabel=label, title="title", xlim=(0, 1), ylim=(0, 1))
    fit_figure(figure, ax, 2.5, 1.5)
    size = figure.get_size_inches()
    box = ax.get_position()
    assert (box.width * size[0], box.height * size[1]) == pytest.approx((2.5, 1.5))
    around = ax.get_tightbbox().transformed(figure.dpi_scale_trans.inverted())
    np.testing.assert_allclose([around.x0, around.y0], MARGIN, atol=0.02)
    np.testing.assert_allclose([around.x1, around.y1], size - MARGIN, atol=0.02)


def test_planes_have_no_ticks_and_axes_no_box():
    plane, axes = Figure().subplots(1, 2)
    style_plane(plane)
    assert not len(plane.get_xticks()) and not len(plane.get_yticks())
    style_axes(axes)
    assert {name for name, spine in axes.spines.items() if spine.get_visible()} == {"left", "bottom"}
