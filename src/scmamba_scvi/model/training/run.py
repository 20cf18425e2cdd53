"""What one call of `train` settled on before its first step, and the arguments of the trainers that follow from it."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any, Final

import torch
from lightning.pytorch.callbacks import Callback, Timer

from ..._compat import device_of
from ...config import TrainConfig
from .callbacks import EarlyStopping, EqualInitialization, KeepWeights, ProgressBar, StopOnInterrupt
from .distributed import is_first_process
from .sizes import SAME_NAMES, TrainingSizes
from .splitter import PairedSplitter
from .summary import SCORES

#: What the stages are called in print.
STAGES: Final = {"linear": "Linear branch", "full": "Full network"}


@dataclasses.dataclass(frozen=True)
class Run:
    """What one call of `train` settled on before its first step."""

    config: TrainConfig
    sizes: TrainingSizes
    splitter: PairedSplitter
    stages: dict[str, int]  # epochs at most
    monitor: str
    early_stopping: bool
    where: dict[str, Any]  # accelerator and devices
    trainer: dict[str, Any]  # further arguments of scvi-tools' trainer

    @property
    def callbacks(self) -> list[Callback]:
        """Those of the user."""
        return as_list(self.trainer.get("callbacks"))

    @property
    def is_scored(self) -> bool:
        """Whether validation cells allow the monitor to be computed."""
        return bool(self.splitter.matches)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return device_of(**self.where)

    def describe(self) -> str:
        """What is logged when training begins."""
        device = self.device
        where = str(device) if self.sizes.world_size == 1 else f"{self.sizes.world_size} {device.type} devices"
        stages = ", then ".join(f"{STAGES[stage].lower()} {n_epochs}" for stage, n_epochs in self.stages.items())
        n_train, n_paired = self.splitter.n_train, self.splitter.n_paired
        paired = f" ({n_paired:,} of them have several modalities)" if n_paired < n_train else ""
        return (
            f"Training on {where}: {n_train:,} cells{paired}, {self.splitter.n_val:,} validation cells, "
            f"{self.sizes.describe()}. Epochs at most: {stages}." + (f" {SAME_NAMES}" if n_paired < n_train / 2 else "")
        )

    def trainer_of(self, stage: str, before: int, keep: KeepWeights, on_interrupt: StopOnInterrupt) -> dict[str, Any]:
        """Arguments of scvi-tools' trainer for a stage before which the model was trained for ``before`` epochs."""
        validates = self.splitter.n_val > 0
        shows = self.trainer.get("enable_progress_bar", True) and is_first_process()
        options = {"log_every_n_steps": 1, "simple_progress_bar": True, "progress_bar_refresh_rate": 1, **self.trainer}
        callbacks = [EqualInitialization(), *self.callbacks, keep, on_interrupt]
        if self.early_stopping and self.is_scored:
            is_first = stage == next(iter(self.stages))
            callbacks.append(
                EarlyStopping(
                    monitor=self.monitor,
                    mode=SCORES[self.monitor].mode,
                    patience=self.sizes.patience if is_first else self.sizes.patience_of_network,
                    min_delta=options.get("early_stopping_min_delta", 0.0),
                    warmup_epochs=options.get("early_stopping_warmup_epochs", 0),
                )
            )
        if options.pop("simple_progress_bar") and shows:
            callbacks.append(ProgressBar(STAGES[stage], before, options.pop("progress_bar_refresh_rate")))
        # without validation, scvi-tools' trainer would need a loader of held-out cells
        every = (self.trainer.get("check_val_every_n_epoch") or 1) if validates else None
        return {
            **options, **self.where, **self._limits_of(stage), "max_epochs": self.stages[stage], "callbacks": callbacks,
            "enable_progress_bar": shows, "simple_progress_bar": False, "check_val_every_n_epoch": every,
            "num_sanity_val_steps": -1 if validates else 0,
        }  # fmt: skip

    def _limits_of(self, stage: str) -> dict[str, Any]:
        """What a stage may use of the steps and the time of all stages: its part of them, as of the epochs."""
        limits: dict[str, Any] = {}
        if self.trainer.get("max_steps", -1) not in (None, -1):
            # the first stage gets the odd one: with a single step there is something to keep
            limits["max_steps"] = -(-(self.trainer["max_steps"] - list(self.stages).index(stage)) // len(self.stages))
        if self.trainer.get("max_time") is not None:
            seconds = Timer(self.trainer["max_time"]).time_remaining() or 0.0
            limits["max_time"] = datetime.timedelta(seconds=seconds / len(self.stages))
        return limits


def as_list(value: object) -> list:
    """A value, several of them, or none."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
