"""The checkpoint of a training: a process that was killed continues from the last epoch that it finished."""

from __future__ import annotations

import errno
import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ..._files import atomic_write, remove_unfinished
from ...errors import ResumeError, ScmambaError

FILE: Final = "training.ckpt"
FORMAT: Final = "scmamba-scvi training"
FORMAT_VERSION: Final = 1


class TrainingCheckpoint:
    """The file ``training.ckpt`` of a folder, and its content.

    Saved between two phases of training, it holds weights, random state, history and what the finished phases found.
    Saved within a phase, it also holds what Lightning restores: optimizer, schedule, early stopping, best weights.

    Parameters
    ----------
    folder
        Created if it does not exist.
    resume
        Continue from the file if there is one.
    identity
        What must be equal to continue, see `training_identity`.

    Raises
    ------
    ResumeError
        There is a checkpoint but ``resume`` is not set, it cannot be read, or it is of another training.
    ScmambaError
        The folder cannot be created.
    """

    def __init__(self, folder: Path, resume: bool, identity: Mapping[str, Any]) -> None:
        self.path = Path(folder) / FILE
        self.identity = {name: str(value) for name, value in identity.items()}
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))  # of the order of cells
        self.phase, self.summaries = 0, []
        self.state: dict[str, Any] | None = None
        if self.path.exists():
            if not resume:
                raise ResumeError(
                    f"{self.path} is the checkpoint of a training. Continue it with train(resume=True), choose another "
                    f"checkpoint_dir, or delete it."
                )
            self.state = read_checkpoint(self.path)
            self._check_identity()
            self.phase, self.summaries = self.state["phase"], self.state["summaries"]
        else:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ScmambaError(f"checkpoint_dir {folder} cannot be created: {error.strerror}.") from error
        remove_unfinished(self.path)

    @property
    def within_phase(self) -> bool:
        """Whether the state was saved after an epoch, so that Lightning restores the rest of it."""
        return self.state is not None and "loops" in self.state

    def restore(self, model: Any) -> None:
        """Restore the history and, between phases, weights and random state."""
        history = self.state["history"]
        model.history_ = None if history is None else {name: frame_of(name, plain) for name, plain in history.items()}
        model.is_trained_, model.is_initialized_ = self.state["is_trained"], True
        if not self.within_phase:
            model.module.load_state_dict(self.state["weights"])
            self.restore_random()

    def restore_random(self) -> None:
        """Restore the random state of python, numpy and torch, and the generator of the order of cells."""
        set_random_state(self.state["random"])
        self.generator.set_state(self.state["order"])

    def describe(self, model: Any) -> dict[str, Any]:
        """What every checkpoint holds, as plain values: reading them runs no code."""
        history = model.history_ if isinstance(model.history_, dict) else None
        return {
            "format": FORMAT, "format_version": FORMAT_VERSION, "identity": self.identity,
            "phase": self.phase, "summaries": self.summaries, "is_trained": bool(model.is_trained_),
            "history": None if history is None else {str(name): plain_of(frame) for name, frame in history.items()},
            "random": random_state(), "order": self.generator.get_state(),
        }  # fmt: skip

    def save_between(self, model: Any, *, must: bool = False) -> None:
        """Save the weights before phase ``self.phase``; with ``must``, a file that cannot be written is an error."""
        weights = {name: t.detach().cpu() for name, t in model.module.state_dict().items()}
        try:
            AtomicCheckpointIO().save_checkpoint({**self.describe(model), "weights": weights}, self.path)
        except OSError as error:
            if must:
                raise ScmambaError(
                    f"Nothing can be written into checkpoint_dir {self.path.parent}: {error.strerror or error}."
                ) from error
            warn_unsaved(self.path, error)

    def finish_phase(self, model: Any, summary: Mapping[str, Any]) -> None:
        """Save what a phase found, and the weights it left."""
        self.summaries, self.phase, self.state = [*self.summaries, dict(summary)], self.phase + 1, None
        self.save_between(model)

    def _check_identity(self) -> None:
        saved = self.state["identity"]
        other = [name for name in self.identity if saved.get(name) != self.identity[name]]
        other += [name for name in saved if name not in self.identity]
        if other:
            shown = [n for n in other if max(len(saved.get(n, "")), len(self.identity.get(n, ""))) < 60]
            detail = "; ".join(f"{n}: {saved.get(n)} then, {self.identity.get(n)} now" for n in shown)
            raise ResumeError(
                f"{self.path} belongs to another training: {', '.join(other)} changed{f' ({detail})' if detail else ''}. "
                f"Resume with the same data and arguments, or choose another checkpoint_dir."
            )


class SaveCheckpoint(Checkpoint):
    """Saves after every epoch but the last of a phase, after which `TrainingCheckpoint.finish_phase` saves.

    Append it to the callbacks of an existing trainer: it must come after early stopping, and scvi-tools' trainer would
    mistake it for a checkpoint callback of its own.
    """

    def __init__(self, checkpoint: TrainingCheckpoint, model: Any) -> None:
        self.checkpoint, self.model = checkpoint, model
        self._to_restore = checkpoint.within_phase

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log again what the finished epochs logged."""
        if self._to_restore and hasattr(trainer.logger, "history"):
            for name, plain in self.checkpoint.state["logged"].items():
                for epoch, value in zip(plain["index"], plain["values"], strict=True):
                    trainer.logger.experiment.log_metrics({name: value, "epoch": epoch})

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the random state, after everything that only a new process draws."""
        if self._to_restore:
            self.checkpoint.restore_random()
            self._to_restore, self.checkpoint.state = False, None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, unless the phase ends here or the epoch was interrupted."""
        if trainer.should_stop or trainer.current_epoch + 1 >= trainer.max_epochs:
            return
        try:
            trainer.save_checkpoint(self.checkpoint.path)
        except OSError as error:
            warn_unsaved(self.checkpoint.path, error)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Add what Lightning does not save."""
        logged = {name: plain_of(frame) for name, frame in getattr(trainer.logger, "history", {}).items()}
        for name in pl_module.logged_in_training:  # the logger gets these only after this hook
            column = logged.setdefault(name, {"index": [], "values": [], "index_name": "epoch"})
            if trainer.current_epoch not in column["index"] and name in trainer.callback_metrics:
                column["index"].append(trainer.current_epoch)
                column["values"].append(float(trainer.callback_metrics[name]))
        checkpoint.update({**self.checkpoint.describe(self.model), "logged": logged})


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that replace the previous one only when they are complete; reading them runs no code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write another file beside it, then replace it."""
        with atomic_write(Path(path)) as unfinished:
            try:
                torch.save(checkpoint, unfinished)
            except RuntimeError as error:  # raised by torch if the file cannot grow
                raise OSError(errno.EIO, "torch could not write it, the disk may be full") from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", **_: object) -> dict[str, Any]:
        """Tensors and plain values only."""
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint; a `ResumeError` says why it cannot be used."""
    try:
        state = AtomicCheckpointIO().load_checkpoint(path)
    except Exception as error:
        raise ResumeError(f"{path} cannot be read, it may be damaged: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ResumeError(f"{path} is not the checkpoint of a training.")
    if state.get("format_version") != FORMAT_VERSION:
        raise ResumeError(
            f"{path} has format version {state.get('format_version')!r}; this release reads {FORMAT_VERSION}."
        )
    return state


def warn_unsaved(path: Path, error: OSError) -> None:
    """Warn: a full disk must not end the training, and must not pass unnoticed."""
    warnings.warn(
        f"{path} could not be written ({error.strerror or error}): it stays as it was, and training goes on.",
        UserWarning, stacklevel=2,
    )  # fmt: skip


def random_state() -> dict[str, Any]:
    """State of all global generators, as plain values."""
    version, keys, gauss = random.getstate()
    name, words, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(keys), gauss],
        "numpy": [name, [int(word) for word in words], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore what `random_state` returned."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    name, words, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(words, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"][: torch.cuda.device_count()]])


def plain_of(frame: pd.DataFrame) -> dict[str, Any]:
    """A table of one column, as plain values."""
    values: Sequence[Any] = frame.iloc[:, 0].tolist()
    return {
        "index": [int(i) for i in frame.index], "values": [float(v) for v in values],
        "index_name": frame.index.name or "epoch",
    }  # fmt: skip


def frame_of(name: str, plain: Mapping[str, Any]) -> pd.DataFrame:
    """The table that `plain_of` was given."""
    return pd.DataFrame({name: plain["values"]}, index=pd.Index(plain["index"], name=plain["index_name"]))
