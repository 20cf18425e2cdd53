"""The best weights are kept and come back, through Lightning's own loop."""

import lightning.pytorch as pl
import pytest
import torch

from scmamba_scvi.model.training.callbacks import KeepWeights


class Counter(pl.LightningModule):
    """A single weight that grows by 1 in each epoch, and the score of each value of it."""

    automatic_optimization = False

    def __init__(self, scores):
        super().__init__()
        self.module, self.scores = torch.nn.Linear(1, 1, bias=False), scores
        torch.nn.init.zeros_(self.module.weight)

    def training_step(self, *_):
        self.module.weight.data += 1

    def validation_step(self, *_):
        self.log("score", self.scores[int(self.module.weight)])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters())


def run(scores, mode, monitor="score", epochs=3, starts=(0,)):
    """Train as many stages as there are ``starts``."""
    plan, keep = Counter(scores), KeepWeights(monitor, mode)
    loader = torch.utils.data.DataLoader(torch.zeros(1))
    for start in starts:
        keep.begin_stage(start)
        pl.Trainer(
            accelerator="cpu", max_epochs=epochs, callbacks=[keep], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=-1, log_every_n_steps=1,
        ).fit(plan, loader, loader)  # fmt: skip
    return plan.module.weight.item(), keep.found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("scores", "mode", "kept", "epoch"),
    [
        pytest.param([4.0, 2.0, 1.0, 3.0], "min", 2, 1, id="lowest"),
        pytest.param([1.0, 2.0, 3.0, 0.0], "max", 2, 1, id="highest"),
        pytest.param([1.0, 2.0, 2.0, 2.0], "min", 0, None, id="nothing improves on the first weights"),
        pytest.param([1.0, 1.0, 1.0, 1.0], "max", 0, None, id="a tie is no gain"),
        pytest.param([float("nan"), float("nan"), 5.0, float("nan")], "min", 2, 1, id="scores that are no numbers"),
    ],
)
def test_the_weights_with_the_best_score_come_back(scores, mode, kept, epoch):
    weight, found = run(scores, mode)
    assert (weight, found["best_epoch"], found["best"]) == (kept, epoch, scores[kept])


@pytest.mark.filterwarnings("ignore")
def test_without_a_score_the_last_weights_stay():
    weight, found = run([0.0] * 4, "min", monitor=None)
    assert weight == 3 and found["best"] is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("scores", "starts", "kept", "row"),
    [
        pytest.param([3.0, 2.0, 2.0, 2.0], (0, 3), 1, 0, id="the second stage does not help"),
        pytest.param([3.0, 2.0, 4.0, 1.0], (0, 2), 3, 3, id="the second stage helps"),
        pytest.param([3.0, 4.0, 1.0], (6,), 2, 7, id="a second training"),
        pytest.param([1.0, 2.0, 3.0], (0, 2), 0, None, id="no stage improves on the first weights"),
    ],
)
def test_the_epoch_is_counted_over_stages_and_trainings(scores, starts, kept, row):
    """A stage of two epochs begins with the best weights before it; ``starts`` are its rows of the history."""
    weight, found = run(scores, "min", epochs=2, starts=starts)
    assert (weight, found["best_epoch"], found["best"]) == (kept, row, scores[kept])
    assert found["stage_starts"] == list(starts) and found["start"] == {"score": scores[0]}
