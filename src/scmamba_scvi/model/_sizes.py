"""Sizes that follow from the data and the hardware: preset, patches, minibatch, epochs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch

from ..config import ModelConfig, TrainConfig
from ..errors import ScmambaError

#: Steps after which held-out retrieval no longer improved on any data set tried.
STEPS = 300
#: Steps without improvement before training stops.
PATIENCE_STEPS = 100
#: Below this the larger network only overfits.
BASE_CELLS = 5_000
#: Fewer pairs say nothing about how modalities relate.
MIN_PAIRED_CELLS = 20
#: Shortest patch worth a token.
MIN_PATCH = 16


def choose_preset(n_cells: int) -> str:
    """``"base"`` where there are a GPU and cells enough to train it on, ``"small"`` elsewhere."""
    return "base" if torch.cuda.is_available() and n_cells >= BASE_CELLS else "small"


def patch_size_for(config: ModelConfig, kind: str, n_features: int) -> int:
    """Features of a patch: as configured, or so that about ``config.max_patches`` hold all features."""
    return config.of_kind("patch_size", kind) or max(MIN_PATCH, math.ceil(n_features / config.max_patches))


@dataclasses.dataclass(frozen=True)
class Training:
    """What `SCMAMBA.train` was asked for or chose."""

    batch_size: int
    max_epochs: int
    patience: int
    asked: bool  # the epochs are what the user named, for all phases together

    def phases(self, *, linear_first: bool) -> dict[str, int]:
        """Epochs at most of each phase: the linear part alone, then all of the network."""
        alone = self.max_epochs // 2 if self.asked else self.max_epochs
        if not linear_first or not alone:
            return {"whole": self.max_epochs}
        return {"linear": alone, "whole": self.max_epochs - alone if self.asked else self.max_epochs}

    def describe(self, preset: str, device: torch.device, phases: Mapping[str, int], n_train: int, n_val: int) -> str:
        """One line for the user."""
        epochs = f"at most {phases['whole']} epochs"
        if "linear" in phases:
            epochs = f"at most {phases['linear']} epochs of the linear part alone, then {phases['whole']} of all"
        return (
            f"SCMAMBA: preset {preset!r} on {device}, {n_train:,} cells to train on and {n_val:,} held out, "
            f"minibatches of {self.batch_size}, {epochs}."
        )


def choose_training(
    n_paired: int,
    n_cells: int,
    batch_size: int | None,
    max_epochs: int | None,
    train_size: float | None,
    config: TrainConfig,
) -> Training:
    """Minibatch, epochs and patience for a number of cells.

    Raises
    ------
    ScmambaError
        Too few cells to learn from, or a minibatch that takes more than half of them: batch statistics and negatives
        would then come from the same cells in every step.
    """
    n_train = int(n_cells * (train_size or 0.9))
    if n_paired < MIN_PAIRED_CELLS:
        raise ScmambaError(f"{n_paired} cells have two modalities; at least {MIN_PAIRED_CELLS} are needed to train.")
    if batch_size is not None and (batch_size < 2 or 2 * batch_size > n_train):
        raise ScmambaError(
            f"batch_size={batch_size} does not fit {n_train:,} training cells: choose 2 to {n_train // 2:,}, or None."
        )
    batch_size = batch_size or min(512, n_train // 4)
    steps = n_train // batch_size
    return Training(
        batch_size=batch_size,
        max_epochs=max_epochs if max_epochs is not None else min(100, max(3, math.ceil(STEPS / steps))),
        patience=config.patience or max(3, math.ceil(PATIENCE_STEPS / steps)),
        asked=max_epochs is not None,
    )
