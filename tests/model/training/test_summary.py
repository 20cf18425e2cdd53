"""What is said of a training afterwards: the same epoch in the summary, in the line logged, and in the figure."""

import pytest
import scvi
from logged import logged
from matplotlib.figure import Figure

from scmamba_scvi import SCMAMBA, pl
from scmamba_scvi.model.training.callbacks import StageResult
from scmamba_scvi.model.training.summary import best_of, describe_batches, describe_result


def stage(best, best_epoch, n_epochs=3):
    """What a stage of three epochs found, before which the FOSCTTM was 0.3."""
    return StageResult(best, best_epoch, {"foscttm_validation": 0.3}, n_epochs)


@pytest.mark.parametrize(
    ("results", "earlier", "row", "said"),
    [
        pytest.param([stage(0.3, None)], 0, None, "No epoch improved on the initial weights, which are kept. Held-out FOSCTTM 0.300 (", id="the_initialization"),
        pytest.param([stage(0.2, 1)], 0, 1, "Best epoch: 2. Held-out FOSCTTM 0.300 -> 0.200 (0 is perfect, 0.5 chance).", id="one_stage"),
        pytest.param([stage(0.2, 1), stage(0.2, None)], 0, 1, "Best epoch: 2. ", id="the_network_did_not_help"),
        pytest.param([stage(0.2, 1), stage(0.1, 0)], 0, 3, "Best epoch: 4. Held-out FOSCTTM 0.300 -> 0.100", id="the_network_helped"),
        pytest.param([stage(0.2, 1)], 6, 7, "Best epoch: 8. ", id="a_second_training"),
        pytest.param([stage(0.2, 1)], 0, 1, "Best epoch: 2. ", id="interrupted_before_the_second_stage"),
    ],
)  # fmt: skip
def test_the_epoch_is_counted_over_stages_and_trainings(results, earlier, row, said):
    n_epochs = earlier + sum(result.n_epochs for result in results)
    summary = {**best_of(results, {"train_loss": range(n_epochs)}), "monitor": "foscttm_validation"}
    assert summary["best_epoch"] == row
    assert describe_result(summary).startswith(said)


def test_a_score_that_was_never_finite_is_named():
    summary = {**best_of([stage(None, None)], {}), "monitor": "recall_at_10_validation"}
    assert describe_result(summary) == "Held-out recall@10 was never finite: the last weights are kept."


def test_what_was_taken_out_of_batches_is_said():
    said = describe_batches({"rna": 0.0712, "atac": 0.031})
    assert (
        said
        == "Differences between batches, taken out of the joint embedding: 7.1% of rna and 3.1% of atac (of the variance)."
    )


def test_summary_history_figure_line_and_progress_bar_agree_after_two_trainings(mdata, capsys):
    scvi.settings.seed = 1
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear", spectral=False)  # a start that training improves on
    with logged() as lines:
        for _ in range(2):
            model.train(max_epochs=6, accelerator="cpu", plan_kwargs={"lr": 5e-3}, early_stopping=False)
    summary = model.training_summary_
    assert summary["best_epoch"] >= 6  # the second training improved on the first
    assert model.history["foscttm_validation"].loc[summary["best_epoch"]].item() == summary["best"]
    shown = {text.get_text() for text in pl.training(model, figure=Figure())[1].get_legend().get_texts()}
    assert f"best epoch ({summary['best_epoch'] + 1})" in shown
    assert lines[-1].startswith(f"Best epoch: {summary['best_epoch'] + 1}. ")
    assert "epoch 12: 100%" in "".join(capsys.readouterr())
