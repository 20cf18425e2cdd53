"""What happens around the steps of training: equal starts, the best weights, Ctrl-C."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ...config import TrainConfig
from ...nn.distributed import copy_from_rank_0
from .held_out import of_all_ranks, on_cpu, retrieval_scores

#: Attributes of `KeepBest` that are passed on: to the process that started the ranks, and to a resumed training.
REPORTED = ("best", "best_epoch", "start", "n_epochs")


class EqualStart(Callback):
    """All ranks start from the weights and buffers of the first.

    `DistributedDataParallel` would do so too, and send the buffers again in every step, although they are equal
    everywhere; those of the joint embedding have a row per feature.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy once."""
        if trainer.world_size > 1:
            copy_from_rank_0(list(pl_module.module.state_dict().values()))


class KeepBest(Callback):
    """Remembers the weights with the best held-out score, those before the first step included, and puts them back.

    The start counts because on few cells, training may not improve on it.

    Parameters
    ----------
    monitor, mode
        Name of the score, and ``"min"`` or ``"max"``.
    report
        File into which the first rank writes what it found: the process that started the ranks may not be one of them.
    """

    def __init__(self, monitor: str, mode: str, report: Path | None = None) -> None:
        self._report = report
        self.monitor = monitor
        self.larger_is_better = mode == "max"
        self.best: float | None = None
        self.start: dict[str, float] = {}
        self.best_epoch: int | None = None  # None: before the first step
        self.n_epochs = 0  # that were run
        self._weights: dict[str, Tensor] = {}
        self._resumed = False

    @classmethod
    def from_report(cls, config: TrainConfig, report: Mapping[str, Any]) -> KeepBest:
        """What a finished phase of a resumed training found."""
        found = cls(config.monitor, config.monitor_mode)
        for name in REPORTED:
            setattr(found, name, report[name])
        return found

    def to_report(self) -> dict[str, Any]:
        """What was found, without the weights."""
        return {name: getattr(self, name) for name in REPORTED}

    def state_dict(self) -> dict[str, Any]:
        """What was found, and the weights, for a checkpoint."""
        return {**self.to_report(), "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._weights = state_dict["weights"]
        for name in REPORTED:
            setattr(self, name, state_dict[name])
        self._resumed = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score and keep the weights that training starts from."""
        if self._resumed:
            return
        loader = trainer.datamodule.val_dataloader()
        module, was_training = pl_module.module, pl_module.module.training
        module.eval()
        # in the precision of the scores of later epochs, or rounding would decide which weights are kept
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            batches = [
                on_cpu(module(pl_module.transfer_batch_to_device(b, pl_module.device, 0), compute_loss=False)[0])
                for b in loader
            ]
        module.train(was_training)
        if trainer.world_size > 1:
            batches = of_all_ranks(batches, pl_module.device)
        scores = retrieval_scores(batches)
        self.start = {f"{name}_validation": float(torch.tensor(value)) for name, value in scores.items()}
        self._consider(self.start.get(self.monitor), None, module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights if they are better than any before."""
        value = trainer.callback_metrics.get(self.monitor)
        self._consider(None if value is None else float(value), trainer.current_epoch, pl_module.module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the best weights back."""
        self.restore(pl_module.module)
        self.n_epochs = trainer.current_epoch
        if self._report is not None and trainer.is_global_zero:
            self._report.write_text(json.dumps(self.to_report()))

    def read_report(self) -> None:
        """Take over what the first rank found."""
        if self._report is not None and self._report.exists():
            for name, value in json.loads(self._report.read_text()).items():
                setattr(self, name, value)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Put the best weights back, whatever went wrong."""
        self.restore(pl_module.module)

    def restore(self, module: torch.nn.Module) -> None:
        """Load the weights kept, if any were."""
        if self._weights:
            module.load_state_dict(self._weights)

    def _consider(self, value: float | None, epoch: int | None, module: torch.nn.Module) -> None:
        if value is None or not np.isfinite(value):
            return
        better = self.best is None or (value > self.best if self.larger_is_better else value < self.best)
        if better:
            self.best, self.best_epoch = value, epoch
            self._weights = weights_of(module)


class KeepFinite(Callback):
    """Remembers the weights at the start of every epoch and puts them back when training fails.

    For training without held-out cells, where nothing tells which weights are the best.
    """

    def __init__(self) -> None:
        self._weights: dict[str, Tensor] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights that the previous epoch left: they were checked to be finite."""
        self._weights = weights_of(pl_module.module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Put the last good weights back."""
        if self._weights:
            pl_module.module.load_state_dict(self._weights)


def weights_of(module: torch.nn.Module) -> dict[str, Tensor]:
    """Copy of all parameters and buffers on the CPU."""
    return {name: t.detach().to("cpu", copy=True) for name, t in module.state_dict().items()}


class StopOnInterrupt(Callback):
    """Ctrl-C ends training after the minibatch in progress instead of losing it; a second one interrupts as usual.

    Of several ranks all stop after the same minibatch, whichever got the signal.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._previous = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Handle Ctrl-C from here on; only the main thread may set a handler."""
        if threading.current_thread() is not threading.main_thread():
            return

        def stop(signum, frame) -> None:
            self.interrupted = True
            if trainer.world_size == 1:  # ranks that stop alone would leave the others waiting
                trainer.should_stop = True
            self._restore_handler()

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
