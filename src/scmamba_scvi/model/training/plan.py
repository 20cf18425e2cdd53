"""How the model is trained: optimizer, schedule, and what is measured on held-out cells."""

from __future__ import annotations

import traceback

import torch
from scvi.train import TrainingPlan

from ..._compat import warn
from ..._keys import CELLS_KEY
from ...config import TrainConfig
from ...errors import ScmambaError, written
from ..fitting.held_out import HeldOut, gather_held_out, joined, on_cpu, retrieval_scores
from .activations import set_checkpointing
from .finite import loss_error, weights_error


class ContrastivePlan(TrainingPlan):
    """AdamW, slower for the weights of the spectral initialization; held-out retrieval is scored after each epoch.

    scvi-tools' stock plan logs the parts of an ELBO, which this model does not have. ``micro_batch_size`` cells have their
    activations in memory together; `None`: the minibatch as the loader gives it.
    """

    def __init__(self, module, *, config: TrainConfig, micro_batch_size: int | None = None) -> None:
        # scvi-tools' MLflow logger records them
        super().__init__(module, lr=config.lr, weight_decay=config.weight_decay, eps=1e-8)
        self.train_config = config
        self.micro_batch_size = micro_batch_size
        self._cells = torch.empty(0, dtype=torch.int64)  # positions in obs of the current minibatch
        # values of the steps of this epoch: Lightning's means cost a GPU many launches a step
        self._steps: dict[str, list[torch.Tensor]] = {}
        self._held_out: list[HeldOut] = []

    def on_fit_start(self) -> None:
        """Compile the kernels of a step side by side, before the first minibatch would do so one after the other."""
        with self.trainer.precision_plugin.forward_context():
            for network in self.module.sequences:
                network.compile_kernels(self._n_cells)

    def on_train_start(self) -> None:
        """Settle how the step is computed: with which activations kept, and which networks launched as a whole."""
        with self.trainer.precision_plugin.forward_context():
            set_checkpointing(self.module, self.train_config.checkpoint_activations, self._n_cells)
            # a graph writes results and gradients where it wrote them before: each must have been used by then
            in_parts = self.micro_batch_size is not None or self.trainer.accumulate_grad_batches > 1
            if not in_parts and self.trainer.world_size == 1:
                self._record_graphs()

    def _record_graphs(self) -> None:
        try:
            for network in self.module.sequences:
                network.record_graph(self._n_cells)
        except RuntimeError as error:  # drivers and versions of torch differ in what they can record
            warn(
                f"No CUDA graph was made of the networks, so that a step takes longer on this GPU: {error}. Some of its "
                f"memory may be taken until this process ends: if it does not suffice, begin again in a new one."
            )

    @property
    def _n_cells(self) -> int:
        """Cells whose activations are in memory together."""
        return self.micro_batch_size or self.trainer.datamodule.max_cells_of_process

    def training_step(self, batch, batch_idx):
        """Loss of one minibatch, of all processes together."""
        self._cells = batch[CELLS_KEY]
        options = {"micro_batch_size": self.micro_batch_size, "gather": self.trainer.world_size > 1}
        outputs, _, output = self.forward(batch, inference_kwargs=options)
        if not torch.isfinite(output.loss):
            raise loss_error(self.module, outputs["z"], self._cell_names(), self.current_epoch, batch_idx)
        found = {f"{name}_train": value for name, value in output.extra_metrics.items()}
        for name, value in {"train_loss": output.loss, "temperature": self.module.temperature(), **found}.items():
            self._steps.setdefault(name, []).append(value.detach())
        return output.loss

    def on_train_batch_end(self, *_: object) -> None:
        """Have the end of a stage scored, however rarely validation is asked for: scores decide which weights are kept."""
        trainer = self.trainer
        is_last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
        if (trainer.is_last_batch and is_last_epoch) or 0 <= trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True  # before it stops, Lightning validates in an epoch that allows it
            trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None  # or it would wait for them
        loop = trainer.fit_loop  # a stop that was asked for earlier waits for `min_epochs` and `min_steps`
        waits = trainer.current_epoch + 1 < (loop.min_epochs or 0) or trainer.global_step < (
            loop.epoch_loop.min_steps or 0
        )
        if trainer.should_stop and not waits and trainer.datamodule.n_val:
            trainer.check_val_every_n_epoch = 1

    def optimizer_step(self, *args, **kwargs) -> None:
        """Forward and backward pass, and the step; says what to pass if the memory of the GPU does not suffice."""
        try:
            super().optimizer_step(*args, **kwargs)
        except torch.OutOfMemoryError as error:
            # they hold the activations, whose memory is needed by what follows on the error
            traceback.clear_frames(error.__traceback__)
            raise self._memory_error() from error

    def _memory_error(self) -> ScmambaError:
        """Half as many cells at a time, with a loss over as many as now, or nearly."""
        size = min(self.micro_batch_size or len(self._cells), len(self._cells))
        half, devices = max(2, size // 2), self.trainer.world_size
        compared = self.trainer.datamodule.cells_per_step // (half * devices) * half * devices
        return ScmambaError(
            f"The GPU has no memory for the activations of {size:,} cells. Pass {written('batch_size', half)} and "
            f"contrastive_batch_size={compared}: fewer cells are in memory at a time, for a loss over {compared:,}. Or pass "
            f"plan_kwargs={{'checkpoint_activations': True}}: slower, and keeps less of each cell."
        )

    def on_validation_epoch_start(self) -> None:
        """Stop at weights that are not finite, before their embeddings are scored."""
        self._check_weights()

    def on_train_epoch_start(self) -> None:
        """Begin new means over the steps."""
        self._steps = {}

    def on_train_epoch_end(self) -> None:
        """Stop at weights that are not finite, while those from the start of the epoch can be put back; log the steps."""
        self._check_weights()
        for name, values in self._steps.items():
            self._log(name, torch.stack(values).mean(), 1, prog_bar=name == "train_loss")

    def _check_weights(self) -> None:
        error = weights_error(self.module, self._cell_names(), self.current_epoch)
        if error is not None:
            raise error

    def _cell_names(self) -> list[str]:
        """Names of the cells of the last minibatch."""
        names = self.trainer.datamodule.adata_manager.adata.obs_names
        return [str(name) for name in names[self._cells.cpu().numpy()]]

    def validation_step(self, batch, batch_idx):
        """Loss and embeddings of one minibatch of held-out cells."""
        outputs, _, output = self.forward(batch)
        self._log("validation_loss", output.loss, output.n_obs_minibatch)
        self._held_out.append(on_cpu(outputs))

    def on_validation_epoch_end(self) -> None:
        """Retrieval among all held-out cells: unlike the loss it does not depend on the size of the last minibatch."""
        held_out = joined(self._held_out)
        if self.trainer.world_size > 1:
            held_out = gather_held_out(held_out, self.device)
        for name, value in retrieval_scores(held_out).items():
            self._log(f"{name}_validation", value, 1)
        self._held_out = []

    def configure_optimizers(self):
        """AdamW, warm-up then cosine, step by step."""
        groups = self._parameter_groups()
        # fused: one pass over parameters and moments instead of ten, as the feature embeddings are large
        optimizer = torch.optim.AdamW(groups, eps=self.eps, fused=True)
        # it need not undo the scaling of fp16 gradients: Lightning does so before they are clipped, and refuses to clip
        # gradients, of bf16 too, for an optimizer that would
        optimizer._step_supports_amp_scaling = False
        steps = max(2, int(self.trainer.estimated_stepping_batches))
        # a warm-up of one step begins and ends at the same step, and OneCycleLR divides by its length
        warmup = self.train_config.warmup if self.train_config.warmup * steps > 1 else 0.0
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [group["lr"] for group in groups], total_steps=steps, pct_start=warmup, cycle_momentum=False,
        )  # fmt: skip
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _parameter_groups(self) -> list[dict]:
        config = self.train_config
        initialized = self.module.encoders.values() if self.module.config.spectral else ()
        is_slow = {id(parameter) for encoder in initialized for parameter in encoder.spectral_parameters()}
        groups: dict[str, dict] = {
            "decayed": {"params": [], "lr": config.lr, "weight_decay": config.weight_decay},
            "plain": {"params": [], "lr": config.lr, "weight_decay": 0.0},
            "slow": {"params": [], "lr": config.spectral_lr, "weight_decay": 0.0},
        }
        for parameter in self.module.parameters():
            if not parameter.requires_grad:
                continue
            no_decay = parameter.ndim < 2 or getattr(parameter, "_no_weight_decay", False)
            name = "slow" if id(parameter) in is_slow else "plain" if no_decay else "decayed"
            groups[name]["params"].append(parameter)
        return [group for group in groups.values() if group["params"]]

    def _log(self, name: str, value, batch_size: int, *, prog_bar: bool = False) -> None:
        of_epoch = {"on_step": False, "on_epoch": True, "sync_dist": self.use_sync_dist}
        self.log(name, value, prog_bar=prog_bar, batch_size=batch_size, **of_epoch)
