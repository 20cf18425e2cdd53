"""What is said of a training afterwards: the same epoch in the summary, in the line logged, and in the figure."""

import scvi
from logged import logged
from matplotlib.figure import Figure

from scmamba_scvi import SCMAMBA, pl
from scmamba_scvi.model.training.summary import describe_batches, describe_result


def summary(best, best_epoch, monitor="foscttm_validation"):
    """What a training found, before which the FOSCTTM was 0.3."""
    return {"best": best, "best_epoch": best_epoch, "start": {"foscttm_validation": 0.3}, "monitor": monitor}


def test_the_line_names_score_and_epoch():
    kept = describe_result(summary(0.3, None))
    assert kept.startswith("No epoch improved on the initial weights") and "FOSCTTM 0.300 (" in kept
    assert describe_result(summary(0.2, 1)).startswith("Best epoch: 2. Validation FOSCTTM 0.300 -> 0.200 (")


def test_a_score_that_was_never_finite_is_named():
    never = describe_result(summary(None, None, "recall_at_10_validation"))
    assert never == "Validation recall@10 was never finite: the last weights are kept."


def test_what_was_taken_out_of_batches_is_said():
    said = describe_batches({"rna": 0.0712, "atac": 0.031})
    assert (
        said == "Batch offsets removed from the joint embedding. Fraction of the variance: 7.1% in rna, 3.1% in atac."
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
