"""How a model is trained: what is chosen, what is learned before the first step, which weights are kept."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from scvi import settings
from scvi.train import TrainRunner

from .._compat import device_of, devices_docstring, quiet
from .._keys import BATCH_KEY, x_key
from ..config import TrainConfig, resolve_train_config
from ..errors import ScmambaError
from ._arguments import check_training, explained
from ._callbacks import EqualStart, KeepBest, KeepFinite, StopOnInterrupt
from ._data import MultiModalDataset, n_modalities_of_cells
from ._identity import training_identity
from ._joint import fit_joint, start_joint
from ._matrix import ModalityMatrix
from ._plan import ContrastivePlan
from ._progress import Progress, SaveProgress, WholeFileIO
from ._ranks import count_ranks, is_first_rank, ranks_trainer
from ._sizes import Training, choose_training, count_training_cells
from ._splitter import PairedSplitter
from ._start import MAX_CELLS, decompose, fit_values, sample, start_spectrally
from ._stream import sample_places

#: Arguments of `train` beside sizes, options and data that other losses would follow from.
COMPARED: Final = (
    "early_stopping", "phases", "precision", "limit_train_batches", "accumulate_grad_batches", "check_val_every_n_epoch",
    "gradient_clip_val", "early_stopping_patience", "early_stopping_min_delta",
)  # fmt: skip


class ContrastiveTrainingMixin:
    """`train` of a model whose module is an `SCMAMBAModule`."""

    _training_plan_cls = ContrastivePlan
    _data_splitter_cls = PairedSplitter
    _train_runner_cls = TrainRunner
    classifier_: dict[str, Any] | None

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
        """Train, keep the weights with the best held-out retrieval, and say in one line what was chosen.

        The linear part is trained alone first, in seconds; then the network beside it, which is kept only where cells
        that it does not see find themselves better with it.

        Parameters
        ----------
        max_epochs
            Of the linear part and of the network together, each at most half. `None`: for each enough for about 300
            steps, at least 3 and at most 100 epochs.
        batch_size
            Cells of a minibatch of one device, each other cell of which is a negative. `None`: 512, a quarter of the
            training cells where there are fewer than 2,048.
        contrastive_batch_size
            Cells that the loss compares with each other: a multiple of ``batch_size`` and of the number of devices, at
            most the training cells. Only ``batch_size`` of them have activations in memory at a time on a device; every
            cell is read twice for it (gradient caching, arXiv 2101.06983). Loss, gradient and batch statistics are those
            of one minibatch of this size. `None`: ``batch_size`` on every device.
        early_stopping
            Stop when held-out FOSCTTM has not improved for a while. The best weights are kept in any case.
        %(param_accelerator)s
        %(param_devices)s
        precision
            `None`: bf16 on a GPU that has it, float32 elsewhere.
        train_size, validation_size
            Shares of the cells; by default 0.9 and the rest, of which at most 5,000.
        shuffle_set_split
            Draw validation cells at random (by `scvi.settings.seed`), or take the first ones.
        datasplitter_kwargs
            For the loaders; ``external_indexing`` gives the cells of each part.
        plan_kwargs
            Entries of :class:`scmamba_scvi.config.TrainConfig`.
        checkpoint_dir
            Folder for ``training.ckpt``, written after every epoch: weights, optimizer, schedule, random state, order of
            cells, history. For one device. What cannot be written is said, and training goes on; the file is whole, or
            what it was before. `None`: nothing is written, and a process that is killed loses the training.
        resume
            Go on from ``checkpoint_dir``, if it holds a checkpoint: the losses are those of a training that was not
            interrupted. Model, data and arguments must be those it began with.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`, among them ``num_nodes`` and ``strategy``. Several devices train together
            (``"ddp"`` unless another one of its kind is named): the loss compares the cells of all of them, and held-out
            retrieval is among all held-out cells.

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
        n_modalities = n_modalities_of_cells(self.adata_manager)
        n_train = count_training_cells(
            int((n_modalities > 0).sum()), train_size, (datasplitter_kwargs or {}).get("external_indexing")
        )
        where = {name: trainer_kwargs[name] for name in ("num_nodes", "strategy") if name in trainer_kwargs}
        with explained("accelerator or devices cannot be used"):
            n_ranks = count_ranks(accelerator, devices, **where)
        self._check_can_train(config, checkpoint_dir, resume, n_ranks)
        chosen = choose_training(
            int((n_modalities > 1).sum()), n_train, batch_size, contrastive_batch_size, max_epochs, config, n_ranks
        )
        splitter = self._data_splitter_cls(
            self.adata_manager, max_validation_cells=config.max_validation_cells, batch_pure=config.batch_pure,
            cells_per_step=chosen.cells_per_step, buffer_mb=config.buffer_mb, train_size=train_size,
            validation_size=validation_size, shuffle_set_split=shuffle_set_split, batch_size=chosen.batch_size,
            **(datasplitter_kwargs or {}),
        )  # fmt: skip
        linear_first = config.linear_first and self.module.has_closed_gates and not self.is_query_
        phases = chosen.phases(linear_first=linear_first)
        options = {"early_stopping": early_stopping, "precision": precision, "phases": list(phases), **trainer_kwargs}
        progress = self._begin(splitter, config, chosen, checkpoint_dir, resume, options)
        self._forget_classifier()
        fit = functools.partial(
            self._fit, splitter, config, chosen, progress=progress, early_stopping=early_stopping,
            accelerator=accelerator, devices=devices,
            **{"precision": precision or _default_precision(accelerator), **trainer_kwargs},
        )  # fmt: skip
        talks = trainer_kwargs.get("enable_progress_bar", True) and is_first_rank()
        if talks:
            device = device_of(accelerator, devices)
            print(chosen.describe(self.preset_, device, phases, splitter.n_train, splitter.n_val))
        on_interrupt = StopOnInterrupt()
        kept = [KeepBest.from_report(config, summary) for summary in (progress.summaries if progress else [])]
        if len(kept) == len(phases):
            self._leave_as_a_runner_does(splitter, device_of(accelerator, devices))
        try:
            for phase, n_epochs in list(phases.items())[len(kept) :]:
                if not on_interrupt.interrupted:
                    with self.module.only_linear(phase == "linear"), self._frozen_reference():
                        kept.append(fit(n_epochs, on_interrupt))
                    if progress is not None and not on_interrupt.interrupted:
                        progress.finish_phase(self, kept[-1].to_report())
        finally:  # whatever happened, the weights that are kept are good ones
            self._join(splitter.train_idx, config.buffer_mb)
            if self.is_trained_:
                self._calibrate_matching(np.asarray(splitter.val_idx))
        self.training_summary_ = {
            **summarise(kept), "monitor": config.monitor, "interrupted": on_interrupt.interrupted,
            "batch_size": chosen.batch_size, "contrastive_batch_size": chosen.cells_per_step, "max_epochs": sum(phases.values()),
        }  # fmt: skip
        if on_interrupt.interrupted:
            message = "Training was interrupted. The model keeps its best weights so far and can be used."
            warnings.warn(message, UserWarning, stacklevel=2)
        if talks and splitter.n_val:
            print(_describe_result(self.training_summary_))

    def _check_can_train(
        self, config: TrainConfig, checkpoint_dir: str | os.PathLike[str] | None, resume: bool, n_ranks: int
    ) -> None:
        """Whether the data, the folder and the devices allow what is asked for; nothing is changed before."""
        if config.batch_pure and not self.adata_manager.has_batches:
            raise ScmambaError("batch_pure=True needs batches: name their column in setup_mudata(batch_key=...).")
        if self._corrects_batches and BATCH_KEY not in self.adata_manager.data_registry:
            raise ScmambaError(
                f"This model takes batches out, and the MuData has no obs[{self.batch_key!r}]: add it, or make a model "
                f"with correct_batches=False."
            )
        if resume and checkpoint_dir is None:
            raise ScmambaError("resume=True needs the folder: train(checkpoint_dir=..., resume=True).")
        if n_ranks > 1 and checkpoint_dir is not None:
            raise ScmambaError(
                f"checkpoint_dir is for training on one device, this would be on {n_ranks}, whose processes would write "
                f"one file: leave checkpoint_dir out, or pass devices=1, num_nodes=1."
            )

    def _forget_classifier(self) -> None:
        if self.classifier_ is not None:
            self.classifier_ = None
            warnings.warn(
                "The classifier belongs to the embedding as it was before this training and is forgotten: call "
                "train_classifier again.",
                UserWarning, stacklevel=3,
            )  # fmt: skip

    def _fit(
        self,
        splitter: PairedSplitter,
        config: TrainConfig,
        chosen: Training,
        max_epochs: int,
        on_interrupt: StopOnInterrupt,
        *,
        progress: Progress | None,
        early_stopping: bool,
        accelerator: str,
        devices: int | list[int] | str,
        **trainer_kwargs,
    ) -> KeepBest:
        """Train until held-out retrieval improves no further, and put the best weights back."""
        validated = splitter.n_val > 0
        trainer = {
            "check_val_every_n_epoch": 1, "gradient_clip_val": config.gradient_clip, **trainer_kwargs,
            "enable_progress_bar": trainer_kwargs.get("enable_progress_bar", True) and is_first_rank(),
            "early_stopping": early_stopping and validated, "early_stopping_monitor": config.monitor,
            "early_stopping_patience": chosen.patience, "early_stopping_mode": config.monitor_mode,
            "callbacks": [EqualStart(), *trainer_kwargs.get("callbacks", [])],
        }  # fmt: skip
        if not validated:
            trainer["check_val_every_n_epoch"] = None  # scvi-tools' trainer would ask for a loader that is not there
        with ranks_trainer(chosen.n_ranks, trainer) as (trainer, report):
            keep_best = KeepBest(config.monitor, config.monitor_mode, report)
            trainer["callbacks"] += [keep_best if validated else KeepFinite(), on_interrupt]
            plan = self._training_plan_cls(self.module, config=config, micro_batch_size=chosen.micro_batch_size)
            if progress is not None:
                trainer["plugins"] = [*_as_list(trainer.get("plugins")), WholeFileIO()]
                trainer["ckpt_path"] = str(progress.path) if progress.within_phase else None
            with explained("train() cannot make a trainer of these arguments"):
                runner = self._train_runner_cls(
                    self, training_plan=plan, data_splitter=splitter, max_epochs=max_epochs, accelerator=accelerator,
                    devices=devices, **trainer,
                )  # fmt: skip
            if chosen.n_ranks > 1:
                runner.device = runner.trainer.strategy.root_device  # of this rank
            if progress is not None:
                runner.trainer.callbacks.append(SaveProgress(progress, self))
            self.module.train()  # a trained model comes back in eval mode
            # what is left out names devices that are not there and advertises a logger
            with quiet("lightning.pytorch.utilities.rank_zero"):
                runner()
            keep_best.n_epochs = runner.trainer.current_epoch
            keep_best.read_report()
        return keep_best

    def _begin(
        self,
        splitter: PairedSplitter,
        config: TrainConfig,
        chosen: Training,
        checkpoint_dir: str | os.PathLike[str] | None,
        resume: bool,
        options: Mapping[str, object],
    ) -> Progress | None:
        """Bring the model to where training starts from: its checkpoint, or what the training cells say."""
        if checkpoint_dir is None:
            self._start_from(splitter.train_idx, config.buffer_mb)
            return None
        compared = {name: value for name, value in options.items() if name in COMPARED}
        identity = training_identity(self, splitter, config, chosen, compared)
        progress = Progress(Path(checkpoint_dir), resume, identity)
        splitter.generator = progress.generator
        if progress.state is not None:
            progress.restore(self)
        else:
            self._start_from(splitter.train_idx, config.buffer_mb)
            progress.save_between(self, must=True)
        return progress

    def _leave_as_a_runner_does(self, splitter: PairedSplitter, device: torch.device) -> None:
        """The state after training, where a resumed one was done and no runner brings it about."""
        self.train_indices, self.validation_indices = splitter.train_idx, splitter.val_idx
        self.test_indices = splitter.test_idx
        self.module.eval()
        self.to_device(device)

    def _start_from(self, cells: np.ndarray, buffer_mb: float = TrainConfig.buffer_mb) -> None:
        """Learn from the training cells what must be known before the first step; once in the life of a model."""
        if self.is_started_:
            return
        seed = settings.seed or 0
        # a file is read once, from front to back
        fit_values(self.module, self._matrices(), np.sort(cells) if self._dataset().on_disk else cells)
        starts_spectrally = self.config.spectral and self.config.skip
        if starts_spectrally or self.module.joint is not None:
            matrices, cells, _ = self._sample(cells, buffer_mb)
            svds = decompose(self.module, matrices, cells, seed)
            if starts_spectrally:
                start_spectrally(self.module, matrices, cells, svds, seed)
            if self.module.joint is not None:
                start_joint(self.module, matrices, cells, svds, seed)
        self.is_started_ = True

    def _join(self, cells: np.ndarray, buffer_mb: float = TrainConfig.buffer_mb) -> None:
        """Fit the joint embedding to the encoders as they are; of a query's only the offsets of its batches."""
        if self.module.joint is None:
            return
        if self.is_query_:
            self._place_new_batches()
            return
        matrices, cells, chosen = self._sample(cells, buffer_mb)
        batches = None
        if self._corrects_batches:
            batches = np.asarray(self.adata_manager.get_from_registry(BATCH_KEY)).ravel()[chosen]
        fit_joint(self.module, matrices, cells, batches, settings.seed or 0)

    def _sample(self, cells: np.ndarray, buffer_mb: float) -> tuple[dict[str, ModalityMatrix], np.ndarray, np.ndarray]:
        """Counts, positions in them and in the MuData of those training cells that several passes are made over."""
        seed, dataset = settings.seed or 0, self._dataset()
        if not dataset.on_disk:
            cells = sample(cells, MAX_CELLS, seed)
            return dataset.matrices, cells, cells
        cells = sample_places(cells, min(MAX_CELLS, dataset.cells_within(buffer_mb / 2)), seed)
        part = dataset.loaded(cells)
        return part.matrices, np.arange(len(cells)), cells

    def _dataset(self) -> MultiModalDataset:
        return self.adata_manager.create_torch_dataset(data_and_attributes=[x_key(kind) for kind in self.modalities_])

    def _matrices(self) -> dict[str, ModalityMatrix]:
        return self._dataset().matrices


def _as_list(value: object) -> list:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _default_precision(accelerator: str) -> str:
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32-true"


def summarise(kept: Sequence[KeepBest]) -> dict[str, object]:
    """Best epoch over all phases, counted through, its score, and the scores before the first step."""
    summary = {"best_epoch": None, "best": None, "start": kept[0].start if kept else {}}
    before = 0
    for phase in kept:
        summary["best"] = phase.best if phase.best is not None else summary["best"]
        if phase.best_epoch is not None:
            summary["best_epoch"] = before + phase.best_epoch
        before += phase.n_epochs
    return summary


def _describe_result(summary: Mapping) -> str:
    if summary["best"] is None:
        return f"Kept the last weights: {summary['monitor']} was never finite."
    start = summary["start"].get(summary["monitor"])
    when = "before the first step" if summary["best_epoch"] is None else f"of epoch {summary['best_epoch']}"
    before = "" if start is None else f" ({start:.4f} before training)"
    return f"Kept the weights {when}: {summary['monitor'].replace('_', ' ')} {summary['best']:.4f}{before}."
