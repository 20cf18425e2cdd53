"""How the model is trained: optimizer, schedule, and what is measured on held-out cells."""

from __future__ import annotations

import itertools
import logging
import signal
import threading
from collections.abc import Iterable

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from scvi.train import TrainingPlan
from torch import Tensor

from ..config import TrainConfig
from ..errors import ScmambaError
from ..metrics import modality_gap, partner_ranks

logger = logging.getLogger(__name__)


class ContrastivePlan(TrainingPlan):
    """AdamW with a slow group for what starts at the spectral solution; retrieval among held-out cells after each epoch.

    scvi-tools' stock plan logs the parts of an ELBO, which this model does not have.
    """

    def __init__(self, module, *, config: TrainConfig, **kwargs) -> None:
        super().__init__(module, lr=config.lr, weight_decay=config.weight_decay, n_epochs_kl_warmup=None, **kwargs)
        self.train_config = config
        self._held_out: list[dict[str, tuple[Tensor, Tensor]]] = []

    # -- the base class would set up ELBO metrics and pass arguments of a variational module
    def initialize_train_metrics(self) -> None:
        """No running metrics: every value is logged as it comes."""

    def initialize_val_metrics(self) -> None:
        """No running metrics: every value is logged as it comes."""

    def forward(self, *args, **kwargs):
        """Run the module."""
        return self.module(*args, **kwargs)

    def on_train_start(self) -> None:
        """Lightning keeps the mode it finds, and scvi-tools leaves a trained module in eval mode."""
        self.module.train()

    def training_step(self, batch, batch_idx):
        """Loss of one minibatch."""
        _, _, output = self.forward(batch)
        if not torch.isfinite(output.loss):
            raise ScmambaError(
                f"The loss is not finite in epoch {self.current_epoch}, minibatch {batch_idx}. The weights before it are "
                f"kept. Try a lower learning rate, plan_kwargs={{'lr': ...}}, or precision='32-true'."
            )
        self._log("train_loss", output.loss, output.n_obs_minibatch, prog_bar=True)
        for name, value in output.extra_metrics.items():
            self._log(f"{name}_train", value, output.n_obs_minibatch)
        self._log("temperature", self.module.temperature().detach(), output.n_obs_minibatch)
        return output.loss

    def validation_step(self, batch, batch_idx):
        """Loss and embeddings of one minibatch of held-out cells."""
        outputs, _, loss = self.forward(batch)
        self._log("validation_loss", loss.loss, loss.n_obs_minibatch)
        self._held_out.append(_on_cpu(outputs))

    def on_validation_epoch_end(self) -> None:
        """Retrieval among all held-out cells: unlike the loss it does not depend on the size of the last minibatch."""
        for name, value in retrieval_scores(self._held_out).items():
            self._log(f"{name}_validation", value, 1)
        self._held_out = []

    def configure_optimizers(self):
        """AdamW, warm-up then cosine, step by step."""
        groups = self._parameter_groups()
        # one pass over each parameter and its moments instead of ten: the feature embeddings are large
        optimizer = torch.optim.AdamW(groups, fused=True)
        steps = max(2, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [group["lr"] for group in groups], total_steps=steps, pct_start=self.train_config.warmup,
            cycle_momentum=False,
        )  # fmt: skip
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _parameter_groups(self) -> list[dict]:
        config = self.train_config
        starts = self.module.encoders.values() if self.module.config.spectral else ()
        is_slow = {id(parameter) for encoder in starts for parameter in encoder.spectral_parameters()}
        groups = {
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


def retrieval_scores(batches: Iterable[dict[str, tuple[Tensor, Tensor]]], k: int = 10) -> dict[str, float]:
    """FOSCTTM, recall@k and the distance between modalities' means, averaged over the pairs of modalities.

    Parameters
    ----------
    batches
        Per minibatch and modality: embeddings ``(n, z)`` and mask ``(n,)`` of the cells that have it.
    """
    batches = list(batches)
    if not batches:
        return {}
    whole = {
        kind: tuple(torch.cat(parts) for parts in zip(*(b[kind] for b in batches), strict=True)) for kind in batches[0]
    }
    scores: dict[str, list[float]] = {"foscttm": [], f"recall_at_{k}": [], "modality_gap": []}
    for (za, has_a), (zb, has_b) in itertools.combinations(whole.values(), 2):
        both = has_a & has_b
        if int(both.sum()) < 2:
            continue
        a, b = za[both].numpy(), zb[both].numpy()
        ranks = partner_ranks(a, b)
        scores["foscttm"].append(float(np.mean(ranks.fractions)))
        scores[f"recall_at_{k}"].append(float(ranks.recall(min(k, len(a)))[0]))
        scores["modality_gap"].append(modality_gap(a, b))
    return {name: float(np.mean(values)) for name, values in scores.items() if values}


def _on_cpu(outputs) -> dict[str, tuple[Tensor, Tensor]]:
    return {kind: (z.detach().float().cpu(), outputs["present"][kind].cpu()) for kind, z in outputs["z"].items()}


class KeepBest(Callback):
    """Remembers the weights with the best held-out score, those before the first step included, and puts them back.

    Counting the start matters: on few cells no step of training may improve on it.
    """

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor = monitor
        self.larger_is_better = mode == "max"
        self.best: float | None = None
        self.start: dict[str, float] = {}
        self.best_epoch: int | None = None  # None: before the first step
        self.n_epochs = 0  # that were run in the end
        self._weights: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: ContrastivePlan) -> None:
        """Score and keep the weights that training starts from."""
        loader = trainer.datamodule.val_dataloader()
        module, was_training = pl_module.module, pl_module.module.training
        module.eval()
        with torch.no_grad():
            batches = [
                _on_cpu(module(pl_module.transfer_batch_to_device(b, pl_module.device, 0), compute_loss=False)[0])
                for b in loader
            ]
        module.train(was_training)
        self.start = {f"{name}_validation": value for name, value in retrieval_scores(batches).items()}
        self._consider(self.start.get(self.monitor), None, module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: ContrastivePlan) -> None:
        """Keep the weights if they are better than any before."""
        value = trainer.callback_metrics.get(self.monitor)
        self._consider(None if value is None else float(value), trainer.current_epoch, pl_module.module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: ContrastivePlan) -> None:
        """Put the best weights back."""
        self.restore(pl_module.module)

    def on_exception(self, trainer: pl.Trainer, pl_module: ContrastivePlan, exception: BaseException) -> None:
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
            self._weights = {name: t.detach().to("cpu", copy=True) for name, t in module.state_dict().items()}


class StopOnInterrupt(Callback):
    """Ctrl-C ends training after the minibatch in progress instead of losing it; a second one interrupts as usual."""

    def __init__(self) -> None:
        self.interrupted = False
        self._previous = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen for Ctrl-C; only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            return

        def stop(signum, frame) -> None:
            self.interrupted = trainer.should_stop = True
            self._stop_listening()

        self._previous = signal.signal(signal.SIGINT, stop)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen no longer."""
        self._stop_listening()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Listen no longer."""
        self._stop_listening()

    def _stop_listening(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
