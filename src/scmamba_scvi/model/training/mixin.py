"""The order of events of a training: check, choose sizes, start or resume, train in phases, keep the best weights."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from scvi.train import TrainRunner

from ..._compat import device_of, devices_docstring, quiet
from ..._keys import BATCH_KEY
from ...config import TrainConfig, resolve_train_config
from ...errors import ScmambaError
from ..fitting.mixin import FittingMixin
from ..inputs.arguments import explained
from ..inputs.manager import n_modalities_of_cells
from .arguments import check_training
from .callbacks import EqualStart, KeepBest, KeepFinite, StopOnInterrupt
from .distributed import count_devices, distributed_trainer, is_first_process
from .plan import ContrastivePlan
from .resume import AtomicCheckpointIO, TrainingCheckpoint, training_identity
from .sizes import TrainingSizes, choose_sizes, count_training_cells
from .splitter import PairedSplitter
from .summary import best_of, describe_result


class ContrastiveTrainingMixin(FittingMixin):
    """`train` of a model whose module is an `SCMAMBAModule`."""

    _training_plan_cls = ContrastivePlan
    _data_splitter_cls = PairedSplitter
    _train_runner_cls = TrainRunner

    @devices_docstring()
    def train(
        self,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        contrastive_batch_size: int | None = None,
        early_stopping: bool = True,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        precision: str | None = None,
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        datasplitter_kwargs: dict | None = None,
        plan_kwargs: dict | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        resume: bool = False,
        **trainer_kwargs,
    ) -> None:
        """Train, keep the weights with the best held-out retrieval, and print in one line what was chosen.

        The linear part is trained alone first, in seconds; then the network beside it, which is kept only if held-out
        cells find their partners better with it.

        Parameters
        ----------
        max_epochs
            Epochs of the linear part and of the network together; half of them are for the linear part. `None`: each gets
            as many as make about 300 steps, at least 3 and at most 100.
        batch_size
            Cells of a minibatch on one device; each is compared with all others. `None`: 512, or a quarter of the training
            cells if there are fewer than 2,048.
        contrastive_batch_size
            Cells that the loss compares with each other: a multiple of ``batch_size`` and of the number of devices, at
            most the training cells. Only ``batch_size`` of them have activations in memory at a time on a device, for
            which every cell is read twice (gradient caching, arXiv 2101.06983). Loss, gradient and batch statistics are
            those of one minibatch of this size. `None`: ``batch_size`` on every device.
        early_stopping
            Stop when held-out retrieval (`TrainConfig.monitor`, by default FOSCTTM) has not improved for a while. The best
            weights are kept in any case.
        %(param_accelerator)s
        %(param_devices)s
        precision
            `None`: bf16 on a GPU that has it, float32 elsewhere.
        train_size, validation_size
            Shares of the cells to train on and to hold out; by default 0.9 and the rest. At most 5,000 cells are held out
            (`TrainConfig.max_validation_cells`), and only cells with several modalities. If neither is given, all others are
            trained on.
        shuffle_set_split
            Draw validation cells at random (by `scvi.settings.seed`), or take the first ones.
        datasplitter_kwargs
            For the loaders; ``external_indexing`` gives the cells of each part.
        plan_kwargs
            Entries of :class:`scmamba_scvi.config.TrainConfig`.
        checkpoint_dir
            Folder for ``training.ckpt``, written after every epoch: weights, optimizer, schedule, random state of torch, order
            of cells, history. For one device. If a save fails, a warning says so, training goes on, and the file stays as it
            was. `None`: nothing is written, and a process that is killed loses the training.
        resume
            Continue from ``checkpoint_dir``, if it holds a checkpoint: the losses are those of a training that was not
            interrupted. Model, data and arguments must be the ones that it began with.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`, among them ``num_nodes`` and ``strategy``. Several devices train together
            (``"ddp"`` unless another strategy of this kind is named): the loss compares the cells of all of them, and
            held-out retrieval is among all held-out cells.

        Raises
        ------
        ScmambaError
            Too few cells, or sizes that do not fit them or each other.
        NonFiniteError
            The loss or the weights are no longer finite; the model then keeps its last good weights.
        ResumeError
            The checkpoint is damaged, belongs to another training, or is there although ``resume`` is not set.

        Examples
        --------
        >>> model = SCMAMBA(mdata)
        >>> model.train(batch_size=64, plan_kwargs={"batch_pure": True})
        >>> len(model.history["foscttm_validation"]) > 0
        True
        """
        if self.adata is None:
            raise ScmambaError("This model was loaded without data: SCMAMBA.load(dir, adata=mdata).")
        check_training(
            max_epochs=max_epochs, batch_size=batch_size, contrastive_batch_size=contrastive_batch_size,
            train_size=train_size, validation_size=validation_size, plan_kwargs=plan_kwargs,
            datasplitter_kwargs=datasplitter_kwargs, checkpoint_dir=checkpoint_dir, n_cells=self.adata.n_obs,
        )  # fmt: skip
        config = resolve_train_config(**(plan_kwargs or {}))
        where = {name: trainer_kwargs[name] for name in ("num_nodes", "strategy") if name in trainer_kwargs}
        with explained("accelerator or devices cannot be used"):
            n_ranks = count_devices(accelerator, devices, **where)
        self._check_can_train(config, checkpoint_dir, resume, n_ranks)
        sizes, splitter = self._size_and_split(
            config, n_ranks, batch_size=batch_size, contrastive_batch_size=contrastive_batch_size, max_epochs=max_epochs,
            train_size=train_size, validation_size=validation_size, shuffle_set_split=shuffle_set_split,
            datasplitter_kwargs=datasplitter_kwargs or {},
        )  # fmt: skip
        linear_first = config.linear_first and self.module.has_closed_gates and not self.is_query_
        phases = sizes.phases(linear_first=linear_first)
        options = {"early_stopping": early_stopping, "precision": precision, "stages": list(phases), **trainer_kwargs}
        checkpoint = self._begin(splitter, config, sizes, checkpoint_dir, resume, options)
        self._forget_classifier()
        device = device_of(accelerator, devices)
        prints = trainer_kwargs.get("enable_progress_bar", True) and is_first_process()
        if prints:
            print(sizes.describe(self.preset_, device, phases, splitter.n_train, splitter.n_val))
        fit = functools.partial(
            self._fit, splitter, config, sizes, checkpoint=checkpoint, early_stopping=early_stopping,
            accelerator=accelerator, devices=devices,
            **{"precision": precision or _default_precision(accelerator), **trainer_kwargs},
        )  # fmt: skip
        finished = [] if checkpoint is None else checkpoint.summaries
        kept = [KeepBest.from_report(config, summary) for summary in finished]
        on_interrupt = StopOnInterrupt()
        try:
            self._run_phases(phases, fit, kept, on_interrupt, checkpoint)
        finally:  # also after an error: the model then has its last good weights, and can be used
            self._fit_joint_embedding(splitter.train_idx, config.buffer_mb)
            if self.is_trained_:
                self._calibrate_matching(splitter.val_idx)
        self._summarise(kept, config, sizes, phases, on_interrupt)
        if prints and splitter.n_val:
            print(describe_result(self.training_summary_, dict(zip(phases, kept, strict=False))))

    def _check_can_train(
        self, config: TrainConfig, checkpoint_dir: str | os.PathLike[str] | None, resume: bool, n_ranks: int
    ) -> None:
        """Check that data, folder and devices allow what is asked for, before anything is changed."""
        if config.batch_pure and not self.adata_manager.has_batches:
            raise ScmambaError("batch_pure=True needs batches: name their column in setup_mudata(batch_key=...).")
        if self._corrects_batches and BATCH_KEY not in self.adata_manager.data_registry:
            raise ScmambaError(
                f"This model corrects for batches, and the MuData has no obs[{self.batch_key!r}]: add it, or make a model "
                f"with correct_batches=False."
            )
        if resume and checkpoint_dir is None:
            raise ScmambaError("resume=True needs the folder: train(checkpoint_dir=..., resume=True).")
        if n_ranks > 1 and checkpoint_dir is not None:
            raise ScmambaError(
                f"checkpoint_dir is for training on one device, this would be on {n_ranks}, whose processes would all "
                f"write the same file: leave checkpoint_dir out, or pass devices=1, num_nodes=1."
            )

    def _size_and_split(
        self,
        config: TrainConfig,
        n_ranks: int,
        *,
        batch_size: int | None,
        contrastive_batch_size: int | None,
        max_epochs: int | None,
        train_size: float | None,
        validation_size: float | None,
        shuffle_set_split: bool,
        datasplitter_kwargs: Mapping[str, Any],
    ) -> tuple[TrainingSizes, PairedSplitter]:
        """Sizes that follow from the cells to train on, and the split of the cells."""
        n_modalities = n_modalities_of_cells(self.adata_manager)
        n_paired, n_cells = int((n_modalities > 1).sum()), int((n_modalities > 0).sum())
        n_train = count_training_cells(n_cells, train_size, datasplitter_kwargs.get("external_indexing"))
        sizes = choose_sizes(n_paired, n_train, batch_size, contrastive_batch_size, max_epochs, config, n_ranks)
        splitter = self._data_splitter_cls(
            self.adata_manager, max_validation_cells=config.max_validation_cells, batch_pure=config.batch_pure,
            cells_per_step=sizes.cells_per_step, buffer_mb=config.buffer_mb, train_size=train_size,
            validation_size=validation_size, shuffle_set_split=shuffle_set_split, batch_size=sizes.batch_size,
            **datasplitter_kwargs,
        )  # fmt: skip
        return sizes, splitter

    def _forget_classifier(self) -> None:
        if self.classifier_ is not None:
            self.classifier_ = None
            warnings.warn(
                "The classifier was trained on the embedding before this training, and is dropped: call "
                "train_classifier again.",
                UserWarning, stacklevel=3,
            )  # fmt: skip

    def _run_phases(
        self,
        phases: Mapping[str, int],
        fit: Callable[[int, StopOnInterrupt], KeepBest],
        kept: list[KeepBest],
        on_interrupt: StopOnInterrupt,
        checkpoint: TrainingCheckpoint | None,
    ) -> None:
        """Train the phases that are not finished, one after the other, until one is interrupted.

        Parameters
        ----------
        phases
            Epochs of each phase, at most.
        kept
            Best weights of each finished phase; those of this run are appended.
        """
        for phase, n_epochs in list(phases.items())[len(kept) :]:
            with self.module.only_linear(phase == "linear"), self.module.frozen_reference(self.is_query_):
                kept.append(fit(n_epochs, on_interrupt))
            if on_interrupt.interrupted:
                return
            if checkpoint is not None:
                checkpoint.summaries.append(kept[-1].to_report())

    def _fit(
        self,
        splitter: PairedSplitter,
        config: TrainConfig,
        sizes: TrainingSizes,
        max_epochs: int,
        on_interrupt: StopOnInterrupt,
        *,
        checkpoint: TrainingCheckpoint | None,
        early_stopping: bool,
        accelerator: str,
        devices: int | list[int] | str,
        **trainer_kwargs,
    ) -> KeepBest:
        """Train until held-out retrieval improves no further, and put the best weights back."""
        validated = splitter.n_val > 0
        trainer = {
            "check_val_every_n_epoch": 1, "gradient_clip_val": config.gradient_clip, **trainer_kwargs,
            "enable_progress_bar": trainer_kwargs.get("enable_progress_bar", True) and is_first_process(),
            "early_stopping": early_stopping and validated, "early_stopping_monitor": config.monitor,
            "early_stopping_patience": sizes.patience, "early_stopping_mode": config.monitor_mode,
            "callbacks": [EqualStart(), *trainer_kwargs.get("callbacks", [])],
        }  # fmt: skip
        if not validated:
            trainer["check_val_every_n_epoch"] = None  # scvi-tools' trainer would need a validation loader
        with distributed_trainer(sizes.n_ranks, trainer) as (trainer, report):
            keep_best = KeepBest(config.monitor, config.monitor_mode, report)
            trainer["callbacks"] += [keep_best if validated else KeepFinite(), on_interrupt]
            plan = self._training_plan_cls(self.module, config=config, micro_batch_size=sizes.micro_batch_size)
            if checkpoint is not None:
                trainer["plugins"] = [*_as_list(trainer.get("plugins")), AtomicCheckpointIO()]
                trainer["ckpt_path"] = None if checkpoint.state is None else str(checkpoint.path)
            with explained("train() cannot make a trainer of these arguments"):
                runner = self._train_runner_cls(
                    self, training_plan=plan, data_splitter=splitter, max_epochs=max_epochs, accelerator=accelerator,
                    devices=devices, **trainer,
                )  # fmt: skip
            if sizes.n_ranks > 1:
                runner.device = runner.trainer.strategy.root_device  # of this rank
            if checkpoint is not None:
                runner.trainer.callbacks.append(checkpoint)
            self.module.train()  # a trained model comes back in eval mode
            # Lightning lists devices that are not there and advertises a logger
            with quiet("lightning.pytorch.utilities.rank_zero"):
                runner()
            keep_best.n_epochs = runner.trainer.current_epoch
            keep_best.read_report()
        return keep_best

    def _begin(
        self,
        splitter: PairedSplitter,
        config: TrainConfig,
        sizes: TrainingSizes,
        checkpoint_dir: str | os.PathLike[str] | None,
        resume: bool,
        options: Mapping[str, object],
    ) -> TrainingCheckpoint | None:
        """Bring the model to its start: the state in its checkpoint, or what is fitted to the training cells beforehand."""
        checkpoint = None
        if checkpoint_dir is not None:
            identity = training_identity(self, splitter, config, sizes, options)
            checkpoint = TrainingCheckpoint(self, splitter, Path(checkpoint_dir), resume, identity)
        if checkpoint is None or checkpoint.state is None:
            self._initialize(splitter.train_idx, config.buffer_mb)
        return checkpoint

    def _summarise(
        self,
        kept: Sequence[KeepBest],
        config: TrainConfig,
        sizes: TrainingSizes,
        phases: Mapping[str, int],
        on_interrupt: StopOnInterrupt,
    ) -> None:
        """Write `training_summary_`, and warn if training was interrupted."""
        self.training_summary_ = {
            **best_of(kept, self.history_ or {}), "monitor": config.monitor, "interrupted": on_interrupt.interrupted,
            "batch_size": sizes.batch_size, "contrastive_batch_size": sizes.cells_per_step, "max_epochs": sum(phases.values()),
        }  # fmt: skip
        if on_interrupt.interrupted:
            message = "Training was interrupted. The model keeps its best weights so far and can be used."
            warnings.warn(message, UserWarning, stacklevel=3)


def _as_list(value: object) -> list:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _default_precision(accelerator: str) -> str:
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    # older GPUs only emulate bfloat16: slower than float32, and compilers of kernels refuse it
    has_bfloat16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if has_bfloat16 else "32-true"
