"""The checkpoint of a training: a process that was killed continues from the last epoch that it finished."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from scvi import settings

from ..._compat import reason_of, warn
from ..._files import atomic_write, naming_full_disk, remove_unfinished
from ..._keys import BATCH_KEY
from ...config import TrainConfig
from ...errors import ResumeError, ScmambaError
from ...ops.csr import is_csr
from .._base import ModelBase, digest
from ..inputs.kinds import kinds_in
from ..inputs.matrices import iterate_blocks
from .sizes import TrainingSizes
from .splitter import PairedSplitter

FILE: Final = "training.ckpt"
FORMAT: Final = "scmamba-scvi training 5"
#: Further options of `train` that the losses or the weights kept depend on; those beside them say where it runs and what it
#: shows. Lightning would restore the patience of the checkpoint, so that another one, which the user gives, had no effect.
COMPARED: Final = (
    "early_stopping", "early_stopping_monitor", "early_stopping_patience", "early_stopping_min_delta",
    "early_stopping_warmup_epochs", "precision", "gradient_clip_val",
    "gradient_clip_algorithm", "accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval", "max_steps",
    "min_epochs", "min_steps", "limit_train_batches", "limit_val_batches", "overfit_batches",
)  # fmt: skip


class TrainingCheckpoint(Checkpoint):
    """Saves a Lightning checkpoint at the start of a stage and after every epoch but its last, and continues from it.

    Lightning restores weights, optimizer, schedule, epochs and the state of callbacks. Added are the random state, the
    history, the names of the ``stages``, and how many are finished. The model and the splitter get what is theirs from
    ``state``, of `checkpoint_to_resume`; ``identity``, of `training_identity`, must be that of the file.

    Append it to the callbacks of an existing trainer: it must come after early stopping, and a trainer without
    checkpoints of its own refuses it.
    """

    n_finished: int  # stages
    state: dict[str, Any] | None  # what is to be restored; None if there is nothing, and once it is restored

    def __init__(
        self,
        model: ModelBase,
        splitter: PairedSplitter,
        folder: Path,
        identity: Mapping[str, str],
        stages: Iterable[str],
        state: dict[str, Any] | None,
    ) -> None:
        self.model, self.splitter, self.identity, self.stages = model, splitter, dict(identity), list(stages)
        self.path = folder.absolute() / FILE  # also where a callback changes the folder that the process works in
        self.n_finished, self.state = 0, state
        self._before: tuple | None = None
        if state is None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ScmambaError(f"checkpoint_dir {folder} cannot be created: {error.strerror}.") from error
        else:
            self._check_identity(state["identity"])
            self.n_finished, splitter.seed = state["n_finished"], state["order"]
            history = {
                name: pd.Series(values, name=name).rename_axis(unit).to_frame()
                for name, (unit, values) in state["history"].items()
            }
            self._before = model.history_, model.is_trained_, model.is_initialized_
            model.history_ = history or None
            model.is_trained_, model.is_initialized_ = state["is_trained"], True
        remove_unfinished(self.path)

    def take_back(self) -> None:
        """After an error before there were weights to keep: the model has not become that of the checkpoint."""
        if self._before is not None:
            self.model.history_, self.model.is_trained_, self.model.is_initialized_ = self._before

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log again what the finished epochs logged; a new stage is saved before its first step."""
        logger = trainer.logger
        if self.state is None:
            self._save(trainer)
        elif logger is not None and hasattr(logger, "history"):
            for name, (unit, values) in self.state["logged"].items():
                for number, value in values.items():
                    logger.log_metrics({name: value, unit: number}, number)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the random state, after everything that only a new process draws."""
        if self.state is not None:
            torch.set_rng_state(self.state["random"])
            if "random_on_gpu" in self.state and trainer.strategy.root_device.type == "cuda":
                torch.cuda.set_rng_state(self.state["random_on_gpu"], trainer.strategy.root_device)
            self.state = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, unless the stage ends here or the epoch was interrupted."""
        if not trainer.should_stop and trainer.current_epoch + 1 != trainer.max_epochs:
            self._save(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Add what Lightning does not save, as tensors and plain values: reading them runs no code."""
        logged = plain_of(getattr(trainer.logger, "history", {}))
        for name, value in trainer.callback_metrics.items():
            if "validation" not in name:  # the logger gets those of training only after this hook
                logged.setdefault(name, ("epoch", {}))[1][trainer.current_epoch] = float(value)
        checkpoint.update(
            format=FORMAT, identity=self.identity, stages=self.stages, n_finished=self.n_finished,
            is_trained=bool(self.model.is_trained_), history=plain_of(self.model.history_ or {}), logged=logged,
            random=torch.get_rng_state(), order=self.splitter.seed,
        )  # fmt: skip
        if trainer.strategy.root_device.type == "cuda":
            checkpoint["random_on_gpu"] = torch.cuda.get_rng_state(trainer.strategy.root_device)

    def _save(self, trainer: pl.Trainer) -> None:
        try:
            trainer.save_checkpoint(self.path, weights_only=False)  # the default, which Lightning logs at every save
        except ScmambaError as error:
            if not self.path.exists():
                raise ScmambaError(f"checkpoint_dir cannot be used: {error}") from error
            # a full disk must not end the training, and must not pass unnoticed
            warn(f"{error} Training goes on.")

    def _check_identity(self, saved: Mapping[str, str]) -> None:
        now = self.identity
        other = [name for name in {**now, **saved} if saved.get(name) != now.get(name)]
        if other:
            detail = "; ".join(f"{name}: {saved.get(name)} then, {now.get(name)} now" for name in other)
            raise ResumeError(
                f"{self.path} belongs to another training: {', '.join(other)} changed ({detail}). Resume with the same "
                f"data and arguments, or choose another checkpoint_dir."
            )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that replace the previous one only when they are complete; reading them runs no code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write another file beside it, then replace it."""
        with atomic_write(Path(path)) as unfinished:
            with naming_full_disk():
                torch.save(checkpoint, unfinished)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Tensors and plain values only, on the CPU."""
        return torch.load(path, map_location="cpu", weights_only=True)


def checkpoint_to_resume(folder: Path, resume: bool) -> dict[str, Any] | None:
    """Content of the checkpoint in ``folder``; `None` if there is none, and an error if a new training would overwrite it."""
    path = folder / FILE
    if not path.exists():
        return None
    if not resume:
        raise ResumeError(
            f"{path} is the checkpoint of a training. Continue it with train(resume=True), choose another checkpoint_dir, "
            f"or delete it."
        )
    return read_checkpoint(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint; a `ResumeError` says why it cannot be used."""
    try:
        state = AtomicCheckpointIO().load_checkpoint(path)
    except Exception as error:
        raise ResumeError(f"{path} cannot be read, it may be damaged: {reason_of(error)}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ResumeError(f"{path} is not the checkpoint of a training with this release of scmamba-scvi.")
    return state


def training_identity(
    model: ModelBase, splitter: PairedSplitter, config: TrainConfig, sizes: TrainingSizes, options: Mapping[str, Any]
) -> dict[str, str]:
    """What must be equal for the same losses to follow, as text or a digest, each under the name that an error uses for it.

    Of ``options``, further arguments of `train`, those in `COMPARED` count. All counts are read once.
    """
    manager = model.adata_manager
    identity = {
        "the model's configuration": digest(
            [json.dumps(dataclasses.asdict(model.config), sort_keys=True, default=str)]
        ),
        "whether load_query_data made the model": str(model.is_query_),
        "training options": digest([json.dumps(dataclasses.asdict(config), sort_keys=True)]),
        **{f"train({name})": str(value) for name, value in options.items() if name in COMPARED},
        "batch_size": str(sizes.batch_size),
        "contrastive_batch_size": str(sizes.cells_per_step),
        "max_epochs": str(sizes.max_epochs),
        "drop_last": str(splitter.drop_last),
        "scvi.settings.seed": str(settings.seed),
        "the cells": digest(manager.adata.obs_names),
        "the cells held out": digest([splitter.val_idx]),
        "the cells trained on": digest([splitter.train_idx]),
    }
    cells = np.sort(np.concatenate([splitter.train_idx, splitter.val_idx]))
    for kind, key in kinds_in(manager.adata, model.kinds).items():
        matrix = manager.matrix(kind)
        blocks = (
            block.cpu() if is_csr(block) else block.cpu().to_sparse_csr() for block in iterate_blocks(matrix, cells)
        )
        parts = (part for x in blocks for part in (x.crow_indices().long(), x.col_indices().long(), x.values()))
        identity[f"the features of mdata[{key!r}]"] = digest(model.feature_names(kind))
        identity[f"the cells of mdata[{key!r}]"] = digest([matrix.present(cells)])
        identity[f"the counts of mdata[{key!r}]"] = digest(part.numpy() for part in parts)
    if BATCH_KEY in manager.data_registry:
        identity["the batches"] = digest([np.asarray(manager.get_from_registry(BATCH_KEY))])
    return identity


def plain_of(history: Mapping[str, pd.DataFrame]) -> dict[str, tuple[str, dict[int, float]]]:
    """From names to what the rows of a table count, epochs or steps, and to its values by them."""
    return {name: (str(frame.index.name), frame.iloc[:, 0].astype(float).to_dict()) for name, frame in history.items()}
