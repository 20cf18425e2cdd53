"""What happens around the steps of training: equal initialization, the best weights, early stopping, progress, Ctrl-C."""

import json
import signal
import threading
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from scvi.train import LoudEarlyStopping
from torch import Tensor

from ..._compat import scvi_progress_bar
from ...nn.distributed import copy_from_rank_0


class EqualInitialization(Callback):
    """All ranks start from the weights and buffers of the first.

    `DistributedDataParallel` would do so too, and send the buffers again in every step, although they are equal
    everywhere; those of the joint embedding have a row per feature.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy once, before the initialization is scored."""
        copy_from_rank_0(list(pl_module.get_submodule("module").state_dict().values()))


class KeepWeights(Callback):
    """Remembers the weights with the best held-out score of all stages, the initial ones included, and puts them back.

    The initial weights count because on few cells, training may not improve on them. Lightning's sanity check scores
    them, as it is the validation of every later epoch. With ``monitor=None`` nothing tells which weights are the best: the
    last are kept, and those from the start of an epoch put back where it fails.

    ``found`` holds the ``best`` score, its row of the history ``best_epoch`` (`None`: before the first step), the scores of
    the ``start``, and the rows at which stages begin. The first rank writes it into the file ``report``: the process that
    started the ranks may not be one of them.
    """

    def __init__(self, monitor: str | None, mode: str) -> None:
        self.monitor, self.larger_is_better = monitor, mode == "max"
        self.found: dict[str, Any] = {"best": None, "best_epoch": None, "start": {}, "stage_starts": []}
        self._report: Path | None = None
        self._weights: dict[str, Tensor] = {}

    def begin_stage(self, before: int, report: Path | None = None) -> None:
        """A stage begins, before which the model was trained for ``before`` epochs."""
        self.found["stage_starts"].append(before)
        self._report = report

    @property
    def has_weights(self) -> bool:
        """Whether there are good weights to put back."""
        return bool(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """What was found, and the weights, for a checkpoint."""
        return {"found": self.found, "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.found, self._weights = state_dict["found"], state_dict["weights"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Without scores: keep the weights that the previous epoch left, which were checked to be finite."""
        if self.monitor is None:
            self._weights = weights_of(pl_module.get_submodule("module"))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights if they are better than any before."""
        best, module = self.found["best"], pl_module.get_submodule("module")
        scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if trainer.sanity_checking and self.found["start"]:
            if best is not None and not self._weights:  # the stage before was trained in other processes
                self._weights = weights_of(module)
            return
        if trainer.sanity_checking:
            self.found["start"] = scores
        value = scores.get(self.monitor or "", np.nan)
        if np.isfinite(value) and (best is None or (value > best if self.larger_is_better else value < best)):
            epoch = None if trainer.sanity_checking else self.found["stage_starts"][-1] + trainer.current_epoch
            self.found |= {"best": value, "best_epoch": epoch}
            self._weights = weights_of(module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the best weights back."""
        if self.monitor is not None:
            self._restore(pl_module)
        if self._report is not None and trainer.is_global_zero:
            self._report.write_text(json.dumps(self.found))

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Put the best weights back, whatever went wrong."""
        self._restore(pl_module)

    def read_report(self) -> None:
        """Take over what the first rank found."""
        if self._report is not None and self._report.exists():
            self.found = json.loads(self._report.read_text())

    def _restore(self, pl_module: pl.LightningModule) -> None:
        if self._weights:
            pl_module.get_submodule("module").load_state_dict(self._weights)


class EarlyStopping(LoudEarlyStopping):
    """That of scvi-tools, without a line of its own for each stage."""

    def teardown(self, *_: object, **__: object) -> None:
        """Print nothing: `train` says at the end which epoch was the best."""


class ProgressBar(scvi_progress_bar()):  # type: ignore[misc]
    """That of scvi-tools, with epochs counted over all stages and trainings, ``before`` of which are in the history.

    The bar of a stage makes room for that of the next, so that one is seen.
    """

    def __init__(self, stage: str, before: int, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate)
        self.stage, self.before = stage, before

    def init_train_tqdm(self, trainer: pl.Trainer) -> Any:
        """Begin at the first epoch of this stage."""
        bar = super().init_train_tqdm(trainer)
        bar.total, bar.n, bar.initial = self.before + (trainer.max_epochs or 0), self.before, self.before
        bar.last_print_n, bar.leave = self.before, False
        return bar

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: object) -> None:
        """Name the stage and the epoch."""
        if self.is_enabled:
            self.main_progress_bar.set_description(f"{self.stage}, epoch {self.before + trainer.current_epoch + 1}")

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        """Values beside the bar, without the version of a logger that writes no files."""
        return {name: value for name, value in super().get_metrics(*args).items() if name != "v_num"}


def weights_of(module: torch.nn.Module) -> dict[str, Tensor]:
    """Copy of all parameters and buffers on the CPU."""
    return {name: t.detach().to("cpu", copy=True) for name, t in module.state_dict().items()}


class StopOnInterrupt(Callback):
    """Ctrl-C ends training after the minibatch in progress instead of losing it; a second one interrupts as usual.

    Of several ranks all stop after the same minibatch, whichever got the signal.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._previous: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Handle Ctrl-C from here on; only the main thread may set a handler."""
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGINT) is None:  # of a program around Python, as R: it could not be put back
            return

        def stop(signum, frame) -> None:
            self.interrupted = True
            if trainer.world_size == 1:  # ranks that stop alone would leave the others waiting
                trainer.should_stop = True
            signal.signal(signal.SIGINT, self._previous)

        self._previous = signal.signal(signal.SIGINT, stop)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        """Stop all ranks if one of them got the signal."""
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(self.interrupted, all=False):
            self.interrupted = trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the previous handler of Ctrl-C back."""
        self._restore_handler()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Put the previous handler of Ctrl-C back."""
        self._restore_handler()

    def _restore_handler(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
