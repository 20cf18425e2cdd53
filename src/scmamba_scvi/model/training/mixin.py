"""The order of events of a training: check, choose sizes, initialize or resume, train in stages, keep the best weights."""

from __future__ import annotations

import copy
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ..._compat import device_of, explained, limited_threads, quiet_lightning, warn
from ...config import TrainConfig, check_option_names
from ...errors import ScmambaError
from ..fitting.mixin import FittingMixin
from ..inputs.sampling import modalities_of
from .arguments import check_batches, check_modalities, check_training, choose_precision, names_of, parts_of_cells
from .callbacks import KeepWeights, StopOnInterrupt
from .distributed import count_devices, distributed_trainer, is_first_process
from .history import StageRunner, n_before
from .plan import ContrastivePlan
from .resume import AtomicCheckpointIO, TrainingCheckpoint, checkpoint_to_resume, training_identity
from .run import Run, as_list
from .sizes import LEAST_PAIRED_IN_STEP, TRAIN_SIZE, TrainingSizes, check_training_cells, choose_sizes
from .splitter import PairedSplitter
from .summary import SCORES, describe_batches, describe_result

# below scvi-tools' logger: `scvi.settings.verbosity` is for it too
logger = logging.getLogger(f"scvi.{__name__}")


class ContrastiveTrainingMixin(FittingMixin):
    """`train` of a model whose module is an `SCMAMBAModule`."""

    _training_plan_cls = ContrastivePlan
    _data_splitter_cls = PairedSplitter
    _train_runner_cls = StageRunner

    def train(
        self,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        contrastive_batch_size: int | None = None,
        early_stopping: bool = True,
        early_stopping_monitor: str = "foscttm_validation",
        early_stopping_patience: int | None = None,
        gradient_clip_val: float | None = 1.0,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        precision: str | None = None,
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        resume: bool = False,
        **trainer_kwargs: Any,
    ) -> None:
        """Train, and keep the weights with the best held-out retrieval.

        There are two stages: the linear branch alone, in seconds; then the full network, which is kept only if held-out
        cells find their true matches better with it. What was chosen is logged by scvi-tools' logger, see
        ``scvi.settings.verbosity``.

        Parameters
        ----------
        max_epochs
            Epochs of both stages together; half of them are for the linear branch. `None`: each stage gets as many as make
            about 300 steps, at least 3 and at most 100.
        batch_size
            Cells of a minibatch on one device; each is compared with all others. `None`: 512, or a quarter of the training
            cells if there are fewer than 2,048.
        contrastive_batch_size
            Cells that the loss compares with each other: a multiple of ``batch_size`` times the number of devices. Only
            ``batch_size`` of them have activations in memory at a time on a device, for which every cell is read twice
            (gradient caching, arXiv 2101.06983); the result is that of one minibatch. `None`: ``batch_size`` on every device.
        early_stopping
            End a stage when held-out cells have not been scored better for a while. The best weights are kept in any case.
        early_stopping_monitor
            Score of the held-out cells that decides: ``"foscttm_validation"``, ``"recall_at_10_validation"``,
            ``"modality_gap_validation"`` or ``"validation_loss"``.
        early_stopping_patience
            Epochs without a better score before a stage ends, of those that are scored (``check_val_every_n_epoch``).
            `None`: as many as make about 100 steps, at least 3; a quarter of that, at least 2, for the full network, which
            gains soon or not at all.
        gradient_clip_val
            Largest norm of the gradient; `None`: gradients are not clipped.
        accelerator
            ``"cpu"``, ``"gpu"`` (CUDA), or ``"auto"``: a GPU if there is one.
        devices
            How many of them, or a list of their numbers such as ``[1]``; -1 is all, ``"auto"`` one.
        precision
            ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``. `None`: bf16 on a GPU that has it, float32 elsewhere.
        train_size, validation_size
            Fractions of the cells to train on and to hold out; by default 0.9 and the rest. At most 5,000 cells are held
            out (`TrainConfig.max_validation_cells`), and only cells with several modalities. If neither is given, all
            others are trained on.
        shuffle_set_split
            Draw validation cells at random (by `scvi.settings.seed`), or take the first ones.
        datasplitter_kwargs
            For the loaders, such as ``num_workers``, which has no effect where a GPU keeps the counts or
            they are in a file; ``external_indexing`` gives the cells of each part: up to three lists of positions, to train
            on, held out and left over, each cell in one.
        plan_kwargs
            Entries of :class:`scmamba_scvi.config.TrainConfig`, such as ``{"lr": 1e-3}``.
        checkpoint_dir
            Folder for ``training.ckpt``, which is written after every epoch and holds all that ``resume`` needs. For one
            device. If a save fails, a warning says so, training goes on, and the file stays as it was.
        resume
            Continue from ``checkpoint_dir``, if it holds a checkpoint: the losses are those of a training that was not
            interrupted. Data and arguments must be the ones that it began with; the model may be the same, or a new one
            with the same options.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`, such as ``early_stopping_min_delta``, ``enable_progress_bar``, ``logger``, which
            counts the steps of each stage from 0, or ``callbacks``, whose state begins anew with each stage; those that write
            checkpoints are refused. ``max_steps`` and ``max_time`` are for both stages together, half for each. However large
            ``check_val_every_n_epoch`` is, the end of a stage is scored. With ``num_nodes`` and
            ``strategy`` (of the kind ``"ddp"``), several devices train together: the loss compares the cells of all of them.

        Raises
        ------
        ScmambaError
            Too few cells, or sizes that do not fit them or each other.
        NonFiniteError
            The loss or the weights are no longer finite; the last good weights are kept.
        ResumeError
            The checkpoint is damaged, of another training, or there although ``resume`` is not set.

        Examples
        --------
        >>> model = SCMAMBA(mdata)
        >>> model.train(batch_size=64, plan_kwargs={"lr": 1e-3})
        >>> len(model.history["foscttm_validation"]) > 0
        True
        """
        if self.adata is None:
            raise ScmambaError("This model was loaded without data: SCMAMBA.load(dir, adata=mdata).")
        self._validate_anndata()  # another setup of this MuData may have written its own batches
        counts = {
            "max_epochs": max_epochs, "batch_size": batch_size, "contrastive_batch_size": contrastive_batch_size,
            "early_stopping_patience": early_stopping_patience,
        }  # fmt: skip
        check_training(
            counts, train_size, validation_size, shuffle_set_split, plan_kwargs, datasplitter_kwargs, checkpoint_dir,
            early_stopping_monitor, precision, trainer_kwargs, known=names_of(self.train),
        )  # fmt: skip
        check_option_names("training option", plan_kwargs or {}, TrainConfig)
        config = TrainConfig(**(plan_kwargs or {}))
        distributed = {name: trainer_kwargs[name] for name in ("num_nodes", "strategy") if name in trainer_kwargs}
        world_size = count_devices(accelerator, devices, **distributed)
        self._check_can_train(checkpoint_dir, resume, world_size)
        begun = None if checkpoint_dir is None else checkpoint_to_resume(Path(checkpoint_dir), resume)
        split = {
            "train_size": train_size, "validation_size": validation_size, "shuffle_set_split": shuffle_set_split,
            **(datasplitter_kwargs or {}),
        }  # fmt: skip
        strategy = distributed.get("strategy") if world_size > 1 else None
        device = device_of(accelerator, devices)
        precision = choose_precision(precision, device, strategy)
        trainer = {"gradient_clip_val": gradient_clip_val, "precision": precision, **trainer_kwargs}
        # several processes may be forked later, which none can be that has used a GPU
        keeps = device if world_size == 1 else torch.device("cpu")
        with limited_threads(), self.adata_manager.kept_on(keeps):
            sizes, splitter = self._size_and_split(config, world_size, counts, split)
            run = Run(
                config, sizes, splitter, stages=self._stages(config, sizes, begun), monitor=early_stopping_monitor,
                early_stopping=early_stopping, where={"accelerator": accelerator, "devices": devices}, trainer=trainer,
            )  # fmt: skip
            self._run(run, self._begin(run, checkpoint_dir, begun))
        self._tell_result(run.is_scored)

    def _check_can_train(self, checkpoint_dir: str | os.PathLike[str] | None, resume: bool, world_size: int) -> None:
        """Check that data, folder and devices allow what is asked for, before anything is changed."""
        check_modalities(self)
        check_batches(self)
        if resume and checkpoint_dir is None:
            raise ScmambaError("resume=True needs the folder: train(checkpoint_dir=..., resume=True).")
        if world_size > 1 and checkpoint_dir is not None:
            raise ScmambaError(
                f"checkpoint_dir is for training on one device, this would be on {world_size}, whose processes would all "
                f"write the same file: leave checkpoint_dir out, or pass devices=1, num_nodes=1."
            )

    def _size_and_split(
        self, config: TrainConfig, world_size: int, counts: Mapping[str, int | None], split: Mapping[str, Any]
    ) -> tuple[TrainingSizes, PairedSplitter]:
        """Sizes that follow from the cells to train on, and the split of the cells."""
        n_obs = self.adata_manager.adata.n_obs
        n_modalities = modalities_of(self._matrices(), np.arange(n_obs)).sum(axis=1)
        n_paired, n_cells = int((n_modalities > 1).sum()), int((n_modalities > 0).sum())
        chosen = split.get("external_indexing")
        if chosen is not None:
            split = {**split, "external_indexing": (chosen := parts_of_cells(chosen, n_obs))}
        n_train = int(n_cells * (split["train_size"] or TRAIN_SIZE)) if chosen is None else len(chosen[0])
        sizes = choose_sizes(n_paired, n_train, **counts, world_size=world_size)
        splitter = self._data_splitter_cls(
            self.adata_manager, max_validation_cells=config.max_validation_cells,
            cells_per_step=sizes.cells_per_step, buffer_mb=config.buffer_mb, batch_size=sizes.batch_size, **split,
        )  # fmt: skip
        # a query is not initialized again, so that it may have few cells of a modality
        n_of = {} if self.is_query_ else {self.kinds[kind]: n for kind, n in splitter.n_of_modalities.items()}
        check_training_cells(splitter.n_train, splitter.n_paired, n_of)
        paired_in_step = splitter.n_paired * sizes.cells_per_step / splitter.n_train
        if paired_in_step < LEAST_PAIRED_IN_STEP:
            warn(
                f"Of {sizes.cells_per_step:,} cells of a minibatch, {paired_in_step:.1f} have several modalities on average. "
                f"The loss compares two or more: in most steps nothing is learned, and train_loss counts them as 0. Choose a "
                f"larger contrastive_batch_size, or leave out cells with one modality."
            )
        if splitter.n_val and not splitter.matches:
            warn(
                f"No score can be computed from {splitter.n_val} validation cells, as no two of them have the same two "
                f"modalities: training does not stop early, and the last weights are kept. Raise validation_size."
            )
        return sizes, splitter

    def _stages(self, config: TrainConfig, sizes: TrainingSizes, begun: Mapping[str, Any] | None) -> dict[str, int]:
        """Epochs at most of each stage; which there are depends on the weights at the start, and is in the checkpoint."""
        if begun is None:
            linear_first = config.linear_first and self.module.has_closed_gates and not self.is_query_
        else:
            linear_first = "linear" in begun["stages"]
        return sizes.stages(linear_first=linear_first, has_network=self.config.encoder != "linear")

    def _tell_result(self, scored: bool) -> None:
        """Log what training reached; a warning says that it was interrupted."""
        found = self.training_summary_
        if found["interrupted"]:
            warn("Training was interrupted. The model keeps its best weights so far and can be used.")
        if scored and is_first_process():
            logger.info(describe_result(found))
        if is_first_process() and found.get("batch_variance_removed"):
            logger.info(describe_batches(found["batch_variance_removed"]))

    def _forget_classifier(self) -> None:
        if self.classifier_ is not None:
            self.classifier_ = None
            warn(
                "The classifier was trained on the embedding before this training, and is dropped: call "
                "train_classifier again."
            )

    def _begin(
        self, run: Run, checkpoint_dir: str | os.PathLike[str] | None, begun: dict[str, Any] | None
    ) -> TrainingCheckpoint | None:
        """Restore the state in the checkpoint, or fit to the training cells what must be known before the first step."""
        checkpoint = None
        if checkpoint_dir is not None:
            options = {
                "early_stopping": run.early_stopping, "early_stopping_monitor": run.monitor,
                "early_stopping_patience": (run.sizes.patience, run.sizes.patience_of_network),
                **run.trainer,
            }  # fmt: skip
            identity = training_identity(self, run.splitter, run.config, run.sizes, options)
            checkpoint = TrainingCheckpoint(self, run.splitter, Path(checkpoint_dir), identity, run.stages, begun)
        if checkpoint is None or checkpoint.state is None:
            # several processes may be forked later, which none can be that has used a GPU
            if run.device.type == "cuda" and run.sizes.world_size == 1:
                self.to_device(run.device)
            if is_first_process():
                self._initialize(run.splitter.train_idx, run.splitter.val_idx, run.config.buffer_mb)
            # the other processes get weights and buffers of the first, see `EqualInitialization`
            self.is_initialized_ = True
        return checkpoint

    def _run(self, run: Run, checkpoint: TrainingCheckpoint | None) -> None:
        """Train the stages that are not finished, until one is interrupted, and write `training_summary_`."""
        if is_first_process():
            logger.info(run.describe())
        states = [(callback, copy.deepcopy(callback.state_dict())) for callback in run.callbacks]
        keep = KeepWeights(run.monitor if run.is_scored else None, SCORES[run.monitor].mode)
        on_interrupt = StopOnInterrupt()
        ended = False
        try:
            for stage in list(run.stages)[0 if checkpoint is None else checkpoint.n_finished :]:
                if ended:  # patience that one stage used up must not end the next
                    with explained("callbacks cannot begin anew with the second stage"):
                        for callback, state in states:
                            callback.load_state_dict(state)
                with self.module.freezing(networks=stage == "linear", reference=self.is_query_):
                    self._run_stage(run, stage, keep, on_interrupt, checkpoint)
                ended = True
                if on_interrupt.interrupted:
                    break
                if checkpoint is not None:
                    checkpoint.n_finished += 1
        finally:  # also after an error: the model then has its last good weights, and can be used
            if ended or keep.has_weights:  # else the model is as the training before left it
                self._forget_classifier()
                self.precision_ = str(run.trainer["precision"])
                self.training_summary_ = {
                    **keep.found, "monitor": run.monitor, "validation_matches": run.splitter.matches,
                    "interrupted": on_interrupt.interrupted,
                    "batch_size": run.sizes.batch_size, "contrastive_batch_size": run.sizes.cells_per_step,
                    "max_epochs": sum(run.stages.values()), "precision": self.precision_,
                }  # fmt: skip
                self._fit_to_encoders(run)
            elif checkpoint is not None:
                checkpoint.take_back()

    def _fit_to_encoders(self, run: Run) -> None:
        """Fit what follows from the trained encoders; a model in which that did not end is not trained."""
        self.is_trained_ = False
        with self._as_trained():
            self._fit_joint_embedding(run.splitter.train_idx, run.config.buffer_mb)
            self._fit_to_validation(run.splitter.train_idx, run.splitter.val_idx)
        self.is_trained_ = True

    def _run_stage(
        self,
        run: Run,
        stage: str,
        keep: KeepWeights,
        on_interrupt: StopOnInterrupt,
        checkpoint: TrainingCheckpoint | None,
    ) -> None:
        """Train until held-out cells are scored no better, and put the best weights back."""
        before = n_before(self.history_) if self.is_trained_ else 0
        with quiet_lightning(), distributed_trainer(run.sizes.world_size, run.trainer) as (distributed, report):
            keep.begin_stage(before, report)
            plan = self._training_plan_cls(self.module, config=run.config, micro_batch_size=run.sizes.micro_batch_size)
            with explained("train() cannot make a trainer of these arguments"):
                trainer = {**run.trainer_of(stage, before, keep, on_interrupt), **distributed}
                if checkpoint is not None:
                    trainer["plugins"] = [*as_list(trainer.get("plugins")), AtomicCheckpointIO()]
                    trainer["ckpt_path"] = None if checkpoint.state is None else str(checkpoint.path)
                runner = self._train_runner_cls(self, training_plan=plan, data_splitter=run.splitter, **trainer)
            if run.sizes.world_size > 1:
                runner.device = runner.trainer.strategy.root_device  # of this rank
            if checkpoint is not None:
                runner.trainer.callbacks.append(checkpoint)
            self.module.train()  # scvi-tools leaves a trained module in eval mode, and Lightning keeps the mode it finds
            try:
                runner()
            except BaseException as error:
                if keep.has_weights:
                    self._finish(run)
                if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
                    # Lightning ends the process, which in a notebook is an error that says nothing
                    on_interrupt.interrupted = True
                    kept = "The model keeps its best weights so far." if keep.has_weights else "Nothing was kept."
                    raise KeyboardInterrupt(f"Training was stopped. {kept}") from None
                if isinstance(error, SIGTERMException):  # a batch system would take its exit status, 0, for a success
                    error.code = 128 + signal.SIGTERM
                raise
            finally:
                for network in self.module.sequences:
                    network.graph = None  # its memory is free again
            keep.read_report()

    def _finish(self, run: Run) -> None:
        """Bring about what scvi-tools' runner does after training, where it did not come to that."""
        splitter = run.splitter
        self.train_indices, self.validation_indices = splitter.train_idx, splitter.val_idx
        self.test_indices = splitter.test_idx
        self.module.eval()
        self.to_device(run.device)
        self.is_trained_ = True
