from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scmamba_scvi import pl
from scmamba_scvi.errors import ScmambaError


def history(n=6, names=("train_loss", "validation_loss", "foscttm_validation", "recall_at_10_validation")):
    index = pd.RangeIndex(n, name="epoch")
    values = {
        "foscttm_validation": np.abs(np.arange(n) - 2) / 20 + 0.1,
        "recall_at_10_validation": np.linspace(0.1, 0.3, n),
    }
    return {name: pd.DataFrame({name: values.get(name, np.linspace(5, 1, n))}, index=index) for name in names}


def model_of(curves=None, **summary):
    """What is read of a trained model."""
    known = {"best_epoch": 2, "monitor": "foscttm_validation", "stage_starts": [0], "validation_matches": [100]}
    return SimpleNamespace(history=history() if curves is None else curves, training_summary_=known | summary)


def titles(axes):
    return [ax.get_title() for ax in axes]


def levels(ax):
    """Heights of horizontal lines."""
    return [
        line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1 and list(line.get_xdata()) == [0, 1]
    ]


def test_loss_and_retrieval_with_chance_and_best_epoch():
    axes = pl.training(model_of(validation_matches=[200]), figure=Figure())
    assert [title.split(" (")[0] for title in titles(axes)] == ["loss", "validation FOSCTTM", "validation recall@10"]
    assert levels(axes[1]) == [0.5] and levels(axes[2]) == [0.05]
    for ax in axes:
        assert "best epoch (3)" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_legend_covers_no_curve():
    curves = history(18)
    curves["train_loss"].iloc[:, 0] = [  # that of the command demo
        5.98, 5.73, 5.42, 5.01, 4.84, 4.78, 4.76, 4.7, 4.68, 4.68, 5.47, 5.11, 4.78, 4.81, 4.71, 4.63, 4.55, 4.58,
    ]  # fmt: skip
    curves["validation_loss"].iloc[:, 0] = [
        3.1, 3.05, 3.14, 3.42, 3.69, 3.77, 3.75, 3.71, 3.69, 3.69, 3.1, 3.46, 3.8, 3.8, 3.65, 3.53, 3.45, 3.43,
    ]  # fmt: skip
    figure = Figure()
    ax = pl.training(model_of(curves, best_epoch=10, stage_starts=[0, 10]), figure=figure)[0]
    FigureCanvasAgg(figure).draw()
    box = ax.get_legend().get_window_extent()
    drawn = [line.get_path().interpolated(50).vertices for line in ax.lines if len(line.get_xdata()) > 2]
    assert len(drawn) == 4 and not any(box.contains(x, y) for x, y in ax.transData.transform(np.concatenate(drawn)))


def test_chance_that_is_far_away_is_written_and_leaves_the_curve_its_room():
    near = history()
    near["foscttm_validation"] /= 10
    ax = pl.training(model_of(near), figure=Figure())[1]
    assert not levels(ax) and ax.get_ylim()[1] < 0.1
    assert [text.get_text() for text in ax.texts] == ["chance: 0.50, far above"]


@pytest.mark.parametrize(
    ("matches", "chance"),
    [([100], [0.1]), ([20_000], [0.0005]), ([5], [1.0]), ([100, 20, 50], [0.8 / 3]), ([], [])],
    ids=["one_pair", "more_than_are_held_out_by_default", "fewer_than_ten", "three_modalities", "none"],
)
def test_chance_of_recall_is_the_mean_over_the_pairs_of_modalities(matches, chance):
    curves = history()
    curves["recall_at_10_validation"] += 0.5  # high enough for all lines
    assert levels(pl.training(model_of(curves, validation_matches=matches), figure=Figure())[2]) == pytest.approx(
        chance
    )


def marked(axes):
    """What the legend of each panel says of the best epoch."""
    return {text.get_text() for ax in axes for text in ax.get_legend().get_texts() if "best" in text.get_text()}


@pytest.mark.parametrize(
    ("best_epoch", "monitor", "expected"),
    [
        pytest.param(2, "foscttm_validation", {"best epoch (3)"}, id="the_lowest"),
        pytest.param(3, "foscttm_validation", {"best epoch (4)"}, id="the_second_of_two_that_tie"),
        pytest.param(5, "recall_at_10_validation", {"best epoch (6)"}, id="by_another_score"),
        pytest.param(None, "foscttm_validation", set(), id="the_start_was_better"),
    ],
)
def test_the_epoch_marked_is_the_one_whose_weights_the_model_kept(best_epoch, monitor, expected):
    curves = history()
    curves["foscttm_validation"].iloc[3] = curves["foscttm_validation"].iloc[2]
    model = model_of(curves, best_epoch=best_epoch, monitor=monitor)
    assert marked(pl.training(model, figure=Figure())) == expected


@pytest.mark.parametrize("best", [24, 29])
def test_the_line_of_the_best_epoch_does_not_run_through_the_words_of_a_legend(best):
    figure = Figure(dpi=80)
    canvas = FigureCanvasAgg(figure)
    curves = history(31)
    falling = np.exp(-np.r_[:17, :14] / 4)  # leaves room at the upper right only
    curves["train_loss"]["train_loss"] = np.repeat([3.7, 3.1], [17, 14]) + np.repeat([1.5, 0.8], [17, 14]) * falling
    curves["validation_loss"]["validation_loss"] = curves["train_loss"]["train_loss"] + 0.3 + 0.05 * np.cos(range(31))
    axes = pl.training(model_of(curves, best_epoch=best, stage_starts=[0, 17]), figure=figure)
    canvas.draw()
    for ax in axes:
        legend = ax.get_legend()
        (line,) = (line for line in ax.lines if list(line.get_xdata()) == [best + 1] * 2)
        if legend.get_window_extent().x0 < line.get_window_extent().x0 < legend.get_window_extent().x1:
            assert legend.get_frame_on() and legend.get_frame().get_alpha() > 0.8
            assert legend.get_zorder() > line.get_zorder()


def test_the_stages_are_named_and_their_curves_are_not_joined():
    for ax in pl.training(model_of(stage_starts=[0, 4]), figure=Figure()):
        assert {"← linear branch", "full network, from its best epoch →"} <= {text.get_text() for text in ax.texts}
        assert [4.5, 4.5] in [list(line.get_xdata()) for line in ax.lines]  # before epoch 5
        assert not any({4, 5} <= set(line.get_xdata()) for line in ax.lines)
        assert len({text.get_text() for text in ax.get_legend().get_texts()}) == len(ax.get_legend().get_texts())


def test_one_stage_is_not_named():
    assert not any("network" in text.get_text() for ax in pl.training(model_of(), figure=Figure()) for text in ax.texts)


def test_without_held_out_cells_only_the_loss_is_drawn():
    (ax,) = pl.training(model_of(history(names=("train_loss",))), figure=Figure())
    assert len(ax.lines) == 1


def test_one_epoch_is_a_visible_point():
    ax = pl.training(model_of(history(n=1)), figure=Figure())[0]
    assert ax.lines[0].get_marker() == "o"
    low, high = ax.get_xlim()
    assert [tick for tick in ax.get_xticks() if low <= tick <= high] == [1]


def test_epochs_are_counted_from_1_and_left_out_without_a_value():
    table = history()
    table["validation_loss"].iloc[1] = np.nan
    ax = pl.training(model_of(table), figure=Figure())[0]
    assert list(ax.lines[1].get_xdata()) == [1, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param({}, id="empty"),
        pytest.param({"lr": pd.DataFrame({"lr": [1.0]})}, id="no_loss"),
        pytest.param(None, id="model_that_is_not_trained"),
    ],
)
def test_without_training_there_is_nothing_to_draw(bad):
    with pytest.raises(ScmambaError, match="train the model first, with scvi-tools' own logger"):
        pl.training(SimpleNamespace(history=bad), figure=Figure())


def test_data_in_place_of_a_model_are_refused():
    with pytest.raises(ScmambaError, match="pl.training draws a model, an SCMAMBA; got AnnData"):
        pl.training(AnnData(np.ones((2, 2))), figure=Figure())
