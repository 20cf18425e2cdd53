"""How the model is trained: optimizer, schedule, and what is measured on held-out cells."""

from __future__ import annotations

import functools
import gc
import warnings
from collections.abc import Callable

import torch
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from scvi.train import TrainingPlan
from torch import nn

from ..._keys import CELLS_KEY
from ...config import TrainConfig
from ...errors import ScmambaError
from ...nn.gradient_caching import n_cells_of
from .activations import decide_checkpointing
from .finite import first_non_finite, loss_error, weights_error
from .held_out import HeldOut, of_all_ranks, on_cpu, retrieval_scores


class ContrastivePlan(TrainingPlan):
    """AdamW, slower for what starts at the spectral solution; held-out retrieval is scored after each epoch.

    scvi-tools' stock plan logs the parts of an ELBO, which this model does not have.

    Parameters
    ----------
    config
        Learning rates, schedule and the rest of the options.
    micro_batch_size
        Cells whose activations are in memory together; `None`: the minibatch as the loader gives it. Halved when a GPU
        runs out of memory.
    """

    def __init__(self, module, *, config: TrainConfig, micro_batch_size: int | None = None, **kwargs) -> None:
        super().__init__(module, lr=config.lr, weight_decay=config.weight_decay, n_epochs_kl_warmup=None, **kwargs)
        self.train_config = config
        self.micro_batch_size = micro_batch_size
        self._n_cells = 0  # of the current minibatch
        self._cells = torch.empty(0, dtype=torch.int64)  # their positions in obs
        self._to_log: list[tuple[str, object, int]] = []
        self.logged_in_training: set[str] = set()
        self._held_out: list[HeldOut] = []

    # the base class would set up metrics of an ELBO, and pass arguments of a variational module
    def initialize_train_metrics(self) -> None:
        """No running metrics: every value is logged as it comes."""

    def initialize_val_metrics(self) -> None:
        """No running metrics: every value is logged as it comes."""

    def forward(self, *args, **kwargs):
        """Run the module."""
        return self.module(*args, **kwargs)

    def on_train_start(self) -> None:
        """Switch to training mode: Lightning keeps the mode it finds, and scvi-tools leaves a trained module in eval mode."""
        self.module.train()
        decide_checkpointing(self.module, self.train_config.checkpoint_activations, self.micro_batch_size, self.trainer)

    def training_step(self, batch, batch_idx):
        """Loss of one minibatch, of all ranks together."""
        self._n_cells, self._cells = n_cells_of(batch), batch[CELLS_KEY]
        gather = self.trainer.world_size > 1
        outputs, _, output = self.forward(batch, micro_batch_size=self.micro_batch_size, gather=gather)
        if not torch.isfinite(output.loss):
            raise loss_error(self.module, outputs["z"], self._cell_names(), self.current_epoch, batch_idx)
        values = {f"{name}_train": value for name, value in output.extra_metrics.items()}
        values |= {"train_loss": output.loss.detach(), "temperature": self.module.temperature().detach()}
        self._to_log = [(name, value, output.n_obs_minibatch) for name, value in values.items()]
        return output.loss

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        """Log the step here, where it is done: `training_step` may need several attempts."""
        for name, value, n_cells in self._to_log:
            self._log(name, value, n_cells, prog_bar=name == "train_loss")
            self.logged_in_training.add(name)
        self._to_log = []

    def on_validation_epoch_start(self) -> None:
        """Stop at weights that are not finite, before their embeddings are scored."""
        self._check_weights()

    def on_train_epoch_end(self) -> None:
        """Stop at weights that are not finite, while those from the start of the epoch can be put back."""
        self._check_weights()

    def _check_weights(self) -> None:
        found = first_non_finite(self.module)
        if found is not None:
            raise weights_error(*found, self._cell_names(), self.current_epoch)

    def _cell_names(self) -> list[str]:
        """Names of the cells of the last minibatch."""
        names = self.trainer.datamodule.adata_manager.adata.obs_names
        return [str(name) for name in names[self._cells.cpu().numpy()]]

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None) -> None:
        """One step; if memory does not suffice, with fewer cells at a time."""
        super().optimizer_step(epoch, batch_idx, optimizer, functools.partial(self._within_memory, optimizer_closure))

    def _within_memory(self, closure: Callable[[], object]) -> object:
        """Forward and backward pass, repeated with half the activations as long as they do not fit."""
        statistics = [
            (buffer, buffer.clone())
            for module in self.module.modules()
            if isinstance(module, nn.BatchNorm1d)
            for buffer in module.buffers()
        ]
        while True:
            try:
                return closure()
            except torch.cuda.OutOfMemoryError as error:
                self._halve_micro_batches(error)
            # after the except block, as the error keeps the activations alive
            for parameter in self.module.parameters():
                parameter.grad = None
            for buffer, before in statistics:
                buffer.copy_(before)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _halve_micro_batches(self, error: torch.cuda.OutOfMemoryError) -> None:
        size = min(self.micro_batch_size or self._n_cells, self._n_cells)
        smaller = (size + 1) // 2
        if self.trainer.world_size > 1 or self.trainer.accumulate_grad_batches > 1 or smaller == size:
            # other ranks would not join a second attempt, and accumulated gradients would be lost
            raise ScmambaError(
                f"The GPU has no memory for the activations of {size:,} cells. Keep the minibatch and read it in smaller "
                f"parts: train(batch_size={max(1, smaller)}, contrastive_batch_size=...), or pass "
                f"plan_kwargs={{'checkpoint_activations': True}}."
            ) from error
        self.micro_batch_size = smaller
        warnings.warn(
            f"The GPU has no memory for the activations of {size:,} cells: they are read {smaller:,} at a time from now "
            f"on, slower, with the same loss over {self._n_cells:,} cells. train(batch_size={smaller}, "
            f"contrastive_batch_size={self._n_cells}) asks for this from the start.",
            UserWarning, stacklevel=2,
        )  # fmt: skip

    def validation_step(self, batch, batch_idx):
        """Loss and embeddings of one minibatch of held-out cells."""
        outputs, _, output = self.forward(batch)
        self._log("validation_loss", output.loss, output.n_obs_minibatch)
        self._held_out.append(on_cpu(outputs))

    def on_validation_epoch_end(self) -> None:
        """Retrieval among all held-out cells: unlike the loss it does not depend on the size of the last minibatch."""
        held_out = self._held_out
        if self.trainer.world_size > 1:
            held_out = of_all_ranks(held_out, self.device)
        for name, value in retrieval_scores(held_out).items():
            self._log(f"{name}_validation", value, 1)
        self._held_out = []

    def configure_optimizers(self):
        """AdamW, warm-up then cosine, step by step."""
        groups = self._parameter_groups()
        # fused: one pass over parameters and moments instead of ten, as the feature embeddings are large; but it would
        # undo the scaling of fp16 gradients itself, after they were clipped
        optimizer = torch.optim.AdamW(groups, fused=not self._scales_gradients)
        steps = max(2, int(self.trainer.estimated_stepping_batches))
        # a warm-up of one step begins and ends at the same step, and OneCycleLR divides by its length
        warmup = self.train_config.warmup if self.train_config.warmup * steps > 1 else 0.0
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [group["lr"] for group in groups], total_steps=steps, pct_start=warmup, cycle_momentum=False,
        )  # fmt: skip
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Clip, under bf16 too: Lightning refuses a fused optimizer in mixed precision even if no gradient is scaled."""
        if self._scales_gradients:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        Precision.clip_gradients(
            self.trainer.precision_plugin, optimizer, gradient_clip_val or 0.0,
            gradient_clip_algorithm or GradClipAlgorithmType.NORM,
        )  # fmt: skip

    @property
    def _scales_gradients(self) -> bool:
        """Whether the loss is scaled, as it is under fp16, so that small gradients do not vanish."""
        plugin = self.trainer.precision_plugin
        return isinstance(plugin, MixedPrecision) and plugin.scaler is not None

    def _parameter_groups(self) -> list[dict]:
        config = self.train_config
        starts = self.module.encoders.values() if self.module.config.spectral else ()
        is_slow = {id(parameter) for encoder in starts for parameter in encoder.spectral_parameters()}
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
        self.log(
            name,
            value,
            on_step=False,
            on_epoch=True,
            prog_bar=prog_bar,
            batch_size=batch_size,
            sync_dist=self.use_sync_dist,
        )
