"""What is said of a training afterwards: the same epoch in the summary, in the line printed, and in the figure."""

from typing import get_args

import pytest
import scvi
from matplotlib.figure import Figure

from scmamba_scvi import SCMAMBA, pl
from scmamba_scvi.config import Monitor, TrainConfig
from scmamba_scvi.model.training.callbacks import KeepBest
from scmamba_scvi.model.training.summary import SCORES, best_of, describe_result

CONFIG = TrainConfig()


def phase(best, best_epoch, n_epochs=3):
    """What a phase of three epochs found; its start had a FOSCTTM of 0.3."""
    start = {CONFIG.monitor: 0.3}
    return KeepBest.from_report(CONFIG, {"best": best, "best_epoch": best_epoch, "start": start, "n_epochs": n_epochs})


@pytest.mark.parametrize(
    ("kept", "earlier", "row", "said"),
    [
        pytest.param({"whole": phase(0.3, None)}, 0, None, "from before the first step: held-out FOSCTTM 0.3000 (", id="the_start"),
        pytest.param({"whole": phase(0.2, 1)}, 0, 1, "of epoch 2: held-out FOSCTTM 0.2000, 0.3000 before", id="one_phase"),
        pytest.param(
            {"linear": phase(0.2, 1), "whole": phase(0.2, None)}, 0, 1, "of epoch 2 (epoch 2 of the linear part): ",
            id="the_network_did_not_help",
        ),
        pytest.param(
            {"linear": phase(0.2, 1), "whole": phase(0.1, 0)}, 0, 3, "of epoch 4 (epoch 1 of the whole network): ",
            id="the_network_helped",
        ),
        pytest.param({"whole": phase(0.2, 1)}, 6, 7, "of epoch 8 (epoch 2 of this training): ", id="a_second_training"),
        pytest.param({"linear": phase(0.2, 1)}, 0, 1, "of epoch 2: ", id="interrupted_before_the_second_phase"),
    ],
)  # fmt: skip
def test_the_epoch_is_counted_over_phases_and_trainings_and_named_as_its_progress_bar_does(kept, earlier, row, said):
    n_epochs = earlier + sum(found.n_epochs for found in kept.values())
    summary = {**best_of(list(kept.values()), {"train_loss": range(n_epochs)}), "monitor": CONFIG.monitor}
    assert summary["best_epoch"] == row
    assert describe_result(summary, kept).startswith(f"Kept the weights {said}")


def test_a_score_that_was_never_finite_is_named():
    summary = {**best_of([phase(None, None)], {}), "monitor": "recall_at_10_validation"}
    said = describe_result(summary, {"whole": phase(None, None)})
    assert said == "Kept the last weights: the held-out recall@10 was never finite."


def test_every_score_that_can_be_watched_has_a_name():
    assert set(SCORES) == set(get_args(Monitor))


def test_summary_history_figure_and_printed_line_agree_after_two_trainings(mdata, capsys):
    scvi.settings.seed = 0
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    for _ in range(2):
        model.train(max_epochs=6, accelerator="cpu", plan_kwargs={"spectral_lr": 1e-3}, early_stopping=False)
    summary = model.training_summary_
    assert summary["best_epoch"] >= 6  # the second training improved on the first
    assert model.history["foscttm_validation"].loc[summary["best_epoch"]].item() == summary["best"]
    shown = {text.get_text() for text in pl.training(model, figure=Figure())[1].get_legend().get_texts()}
    assert f"best epoch ({summary['best_epoch'] + 1})" in shown
    assert (
        f"of epoch {summary['best_epoch'] + 1} (epoch {summary['best_epoch'] - 5} of this training)"
        in capsys.readouterr().out
    )
