"""How far a training has come, in one file: a process that was killed goes on where it last finished an epoch."""

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

from .._files import remove_unfinished, replacing
from ..errors import ResumeError, ScmambaError

FILE: Final = "training.ckpt"
FORMAT: Final = "scmamba-scvi training"
FORMAT_VERSION: Final = 1


class TrainingCheckpoint:
    """The file ``training.ckpt`` of a folder, and what it says.

    Between phases of training it holds weights, random state, history and what the phases before have found; within one
    also what Lightning restores: optimizer, schedule, early stopping, best weights.

    Parameters
    ----------
    folder
        Made if it is not there.
    resume
        Go on from the file if there is one.
    identity
        What must be the same for the same losses to follow, by the words an error uses for it.

    Raises
    ------
    ResumeError
        There is a checkpoint and ``resume`` is not set, it cannot be read, or ``identity`` is another one.
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
                    f"{self.path} is the checkpoint of a training. Go on with it, train(resume=True), choose another "
                    f"checkpoint_dir, or delete it."
                )
            self.state = read_checkpoint(self.path)
            self._check_identity()
            self.phase, self.summaries = self.state["phase"], self.state["summaries"]
        else:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ScmambaError(f"checkpoint_dir {folder} cannot be made: {error.strerror}.") from error
        remove_unfinished(self.path)

    @property
    def within_phase(self) -> bool:
        """Whether the state is that of an epoch's end, which Lightning restores."""
        return self.state is not None and "loops" in self.state

    def restore(self, model: Any) -> None:
        """Put history and, between phases, weights and random state back."""
        history = self.state["history"]
        model.history_ = None if history is None else {name: frame_of(name, plain) for name, plain in history.items()}
        model.is_trained_, model.is_started_ = self.state["is_trained"], True
        if not self.within_phase:
            model.module.load_state_dict(self.state["weights"])
            self.restore_random()

    def restore_random(self) -> None:
        """Put the random state of python, numpy and torch, and the order of cells, where they were."""
        set_random_state(self.state["random"])
        self.generator.set_state(self.state["order"])

    def describe(self, model: Any) -> dict[str, Any]:
        """What every checkpoint holds, in values that can be read without running code."""
        history = model.history_ if isinstance(model.history_, dict) else None
        return {
            "format": FORMAT, "format_version": FORMAT_VERSION, "identity": self.identity,
            "phase": self.phase, "summaries": self.summaries, "is_trained": bool(model.is_trained_),
            "history": None if history is None else {str(name): plain_of(frame) for name, frame in history.items()},
            "random": random_state(), "order": self.generator.get_state(),
        }  # fmt: skip

    def save_between(self, model: Any, *, must: bool = False) -> None:
        """Save weights as they are before phase ``self.phase``; ``must``: a file that cannot be written is an error."""
        weights = {name: t.detach().cpu() for name, t in model.module.state_dict().items()}
        try:
            WholeFileIO().save_checkpoint({**self.describe(model), "weights": weights}, self.path)
        except OSError as error:
            if must:
                raise ScmambaError(
                    f"Nothing can be written into checkpoint_dir {self.path.parent}: {error.strerror or error}."
                ) from error
            warn_unsaved(self.path, error)

    def finish_phase(self, model: Any, summary: Mapping[str, Any]) -> None:
        """Save that a phase is over."""
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
    """Saves after every epoch but the last of a phase, which `TrainingCheckpoint.finish_phase` does.

    To be appended to the callbacks of a trainer that exists: it has to come after early stopping, and scvi-tools' trainer
    takes it for one of its own otherwise.
    """

    def __init__(self, checkpoint: TrainingCheckpoint, model: Any) -> None:
        self.checkpoint, self.model = checkpoint, model
        self._to_restore = checkpoint.within_phase

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up the history of the epochs that were finished."""
        if self._to_restore and hasattr(trainer.logger, "history"):
            for name, plain in self.checkpoint.state["logged"].items():
                for epoch, value in zip(plain["index"], plain["values"], strict=True):
                    trainer.logger.experiment.log_metrics({name: value, "epoch": epoch})

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the random state back, after all that only a new process draws."""
        if self._to_restore:
            self.checkpoint.restore_random()
            self._to_restore, self.checkpoint.state = False, None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, unless the phase ends here or the epoch was cut short."""
        if trainer.should_stop or trainer.current_epoch + 1 >= trainer.max_epochs:
            return
        try:
            trainer.save_checkpoint(self.checkpoint.path)
        except OSError as error:
            warn_unsaved(self.checkpoint.path, error)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Add what Lightning does not know of."""
        logged = {name: plain_of(frame) for name, frame in getattr(trainer.logger, "history", {}).items()}
        for name in pl_module.logged_in_training:  # these reach the logger after the hooks of the epoch's end
            column = logged.setdefault(name, {"index": [], "values": [], "index_name": "epoch"})
            if trainer.current_epoch not in column["index"] and name in trainer.callback_metrics:
                column["index"].append(trainer.current_epoch)
                column["values"].append(float(trainer.callback_metrics[name]))
        checkpoint.update({**self.checkpoint.describe(self.model), "logged": logged})


class WholeFileIO(TorchCheckpointIO):
    """Checkpoints that are whole or the ones before, read without running code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the file and put it in its place."""
        with replacing(Path(path)) as unfinished:
            try:
                torch.save(checkpoint, unfinished)
            except RuntimeError as error:  # what torch makes of a file that cannot grow
                raise OSError(errno.EIO, "torch could not write it, the disk may be full") from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", **_: object) -> dict[str, Any]:
        """Tensors and plain values only."""
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint, or a `ResumeError` that says why not."""
    try:
        state = WholeFileIO().load_checkpoint(path)
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
    """A disk that is full must not cost the training, nor go without a word."""
    warnings.warn(
        f"{path} could not be written ({error.strerror or error}): it is what it was before, and training goes on.",
        UserWarning, stacklevel=2,
    )  # fmt: skip


def random_state() -> dict[str, Any]:
    """State of all global generators, in values that can be read without running code."""
    version, keys, gauss = random.getstate()
    name, words, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(keys), gauss],
        "numpy": [name, [int(word) for word in words], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """What `random_state` gave, put back."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    name, words, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(words, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"][: torch.cuda.device_count()]])


def plain_of(frame: pd.DataFrame) -> dict[str, Any]:
    """One column of numbers and its index."""
    values: Sequence[Any] = frame.iloc[:, 0].tolist()
    return {
        "index": [int(i) for i in frame.index], "values": [float(v) for v in values],
        "index_name": frame.index.name or "epoch",
    }  # fmt: skip


def frame_of(name: str, plain: Mapping[str, Any]) -> pd.DataFrame:
    """What `plain_of` was given."""
    return pd.DataFrame({name: plain["values"]}, index=pd.Index(plain["index"], name=plain["index_name"]))
