"""The history over stages and trainings: every epoch has one number, and every column that was logged is kept."""

import pickle
import warnings

import pandas as pd
import pytest
from lightning.pytorch.callbacks import LearningRateMonitor
from shapes import TINY, mudata_of, poisson

from scmamba_scvi import SCMAMBA
from scmamba_scvi.model.training.history import continued, n_before

TRAIN = {"max_epochs": 4, "accelerator": "cpu", "enable_progress_bar": False, "early_stopping": False}
pytestmark = pytest.mark.filterwarnings("ignore:mdata:UserWarning")


def small():
    mdata = mudata_of({"rna": poisson(100, 20, seed=1), "atac": poisson(100, 30, seed=2)})
    SCMAMBA.setup_mudata(mdata)
    return mdata


def model():
    return SCMAMBA(small(), **TINY)


def epochs(model, name):
    return list(model.history[name].index)


def column(name, numbers, unit="epoch"):
    return pd.DataFrame({name: [float(number) for number in numbers]}, index=pd.Index(numbers, name=unit))


def test_later_epochs_are_numbered_from_where_the_history_ends():
    first = {"loss": column("loss", range(3)), "score": column("score", [1])}
    second = {"loss": column("loss", range(2)), "score": column("score", [1]), "gap": column("gap", [0])}
    both = continued(first, second)
    assert {name: list(frame.index) for name, frame in both.items()} == {
        "loss": [0, 1, 2, 3, 4], "score": [1, 4], "gap": [3],
    }  # fmt: skip
    assert {frame.index.name for frame in both.values()} == {"epoch"} and n_before(both) == 5
    assert n_before(None) == n_before({}) == 0 and continued({}, first)["loss"].equals(first["loss"])


def test_what_is_logged_by_step_is_numbered_by_step():
    first = {"loss": column("loss", range(2)), "lr": column("lr", range(8), "step")}
    both = continued(first, first)
    assert list(both["lr"].index) == list(range(16)) and both["lr"].index.name == "step" and n_before(both) == 4


def test_epochs_of_trainings_with_and_without_validation_have_their_numbers():
    trained = model()
    trained.train(**TRAIN, check_val_every_n_epoch=2)
    trained.train(**TRAIN, train_size=1.0, validation_size=0, callbacks=[LearningRateMonitor("epoch")])
    trained.train(**TRAIN)
    assert epochs(trained, "train_loss") == list(range(12))
    assert epochs(trained, "foscttm_validation") == [1, 3, 8, 9, 10, 11]
    assert trained.training_summary_["stage_starts"] == [8]
    assert any(name.startswith("lr-") for name in trained.history)


def test_a_training_that_logs_nothing_leaves_the_history_to_those_before_and_after():
    trained = model()
    trained.train(**TRAIN, logger=False)
    assert trained.history == {}
    trained.train(**TRAIN)
    assert epochs(trained, "train_loss") == epochs(trained, "foscttm_validation") == [0, 1, 2, 3]
    trained.train(**TRAIN, logger=False)
    assert len(trained.history["train_loss"]) == 4


@pytest.mark.parametrize("made", ["query", "export", "copy"])
def test_a_model_that_brings_no_history_gets_one(made, tmp_path):
    trained = model()
    trained.train(**TRAIN)
    if made == "query":
        other = SCMAMBA.load_query_data(small(), trained)
    elif made == "export":
        trained.export(tmp_path / "e")
        other = SCMAMBA.from_export(tmp_path / "e", small())
    else:
        other = pickle.loads(pickle.dumps(trained))
        other.adata = small()
    before = n_before(other.history)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        other.train(**TRAIN)
    assert not [w for w in caught if "history" in str(w.message)]
    assert epochs(other, "train_loss") == list(range(before + 4))
