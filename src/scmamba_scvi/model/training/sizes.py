"""Sizes that follow from the number of cells: minibatch, epochs, patience."""

import dataclasses
import math
from collections.abc import Mapping

from ...errors import ScmambaError, written

#: Steps after which held-out retrieval no longer improved on any data set tried.
STEPS = 300
#: Steps without improvement before a stage ends. Beside a trained linear branch a network gains in its first steps, or not at
#: all, and its steps are the dear ones.
PATIENCE_STEPS, PATIENCE_STEPS_OF_NETWORK = 100, 25
#: Fewer pairs cannot show how modalities relate.
MIN_PAIRED_CELLS = 20
#: Fewer training cells that are paired, or that have a modality, may all be in the part of them that directions are found
#: without (`nn.spectral.held_out_correlations`).
MIN_TRAINING_CELLS = 10
#: Paired cells of a step on average, of which two are compared at least: of fewer, most steps have less than two.
LEAST_PAIRED_IN_STEP = 1.7
#: What to do where few cells are paired.
SAME_NAMES = "If the modalities hold the same cells under other names, give them the same obs_names in every modality."
#: Fraction of the cells to train on where none is given, as in scvi-tools.
TRAIN_SIZE = 0.9


@dataclasses.dataclass(frozen=True)
class TrainingSizes:
    """Sizes of a training, given by the user or chosen."""

    batch_size: int  # cells whose activations are in memory together on one device
    cells_per_step: int  # that the loss compares with each other, on all devices together
    world_size: int  # devices, each with a process of its own
    max_epochs: int
    patience: int  # epochs without a better score before the first stage ends
    patience_of_network: int  # and before that of the network does, where the linear branch was trained before
    epochs_given: bool  # by the user, for all stages together

    @property
    def micro_batch_size(self) -> int | None:
        """``batch_size`` if a device reads its cells of a step in parts, else `None`."""
        return self.batch_size if self.cells_per_step > self.batch_size * self.world_size else None

    def stages(self, *, linear_first: bool, has_network: bool = True) -> dict[str, int]:
        """Epochs at most of each stage: the linear branch alone, then the full network."""
        if not has_network:
            return {"linear": self.max_epochs}
        linear = self.max_epochs // 2 if self.epochs_given else self.max_epochs
        if not linear_first or not linear:
            return {"full": self.max_epochs}
        return {"linear": linear, "full": self.max_epochs - linear if self.epochs_given else self.max_epochs}

    def describe(self) -> str:
        """Cells of a minibatch, in words."""
        if self.cells_per_step == self.batch_size:
            return f"minibatches of {self.cells_per_step}"
        each = " on each device" if self.world_size > 1 else ""
        return f"minibatches of {self.cells_per_step} ({self.batch_size} at a time{each})"


def choose_sizes(
    n_paired: int,
    n_train: int,
    batch_size: int | None,
    contrastive_batch_size: int | None,
    max_epochs: int | None,
    early_stopping_patience: int | None = None,
    world_size: int = 1,
) -> TrainingSizes:
    """Minibatch, epochs and patience for ``n_train`` training cells, on ``world_size`` devices.

    A ``batch_size`` of more than half of them is refused: batch statistics and negatives would come from the same cells in
    every step. A ``contrastive_batch_size`` may be as large as all of them.
    """
    if n_paired < MIN_PAIRED_CELLS:
        raise ScmambaError(
            f"{n_paired} cells have two modalities; at least {MIN_PAIRED_CELLS} are needed to train. {SAME_NAMES}"
        )
    if batch_size is not None and batch_size < 2:
        raise ScmambaError(
            f"{written('batch_size', batch_size)} is too few cells to compare: choose 2 to {n_train // 2:,}, or leave it out."
        )
    if contrastive_batch_size is None:
        most = n_train // 2 // world_size
        if batch_size is not None and batch_size > most:
            devices = "" if world_size == 1 else f" on each of {world_size} devices"
            raise ScmambaError(
                f"{written('batch_size', batch_size)}{devices} does not fit {n_train:,} training cells: choose 2 to "
                f"{most:,}, or leave it out."
            )
        batch_size = batch_size or max(2, min(512, n_train // 4 // world_size))
        cells_per_step = batch_size * world_size
    else:
        check_contrastive_batch_size(contrastive_batch_size, batch_size, world_size, n_train)
        cells_per_step = contrastive_batch_size
        batch_size = batch_size or max(2, min(512, n_train // 4, cells_per_step // world_size))
    steps = max(1, n_train // cells_per_step)
    return TrainingSizes(
        batch_size=batch_size,
        cells_per_step=cells_per_step,
        world_size=world_size,
        max_epochs=max_epochs if max_epochs is not None else min(100, max(3, math.ceil(STEPS / steps))),
        patience=early_stopping_patience or max(3, math.ceil(PATIENCE_STEPS / steps)),
        patience_of_network=early_stopping_patience or max(2, math.ceil(PATIENCE_STEPS_OF_NETWORK / steps)),
        epochs_given=max_epochs is not None,
    )


def check_training_cells(n_train: int, n_paired: int, n_of_modalities: Mapping[str, int]) -> None:
    """``n_paired`` of ``n_train`` training cells show how modalities relate, and each modality, by its name, has some."""
    advice = "Hold out fewer cells (validation_size), or name others in the first list of external_indexing."
    if n_paired < MIN_TRAINING_CELLS:
        raise ScmambaError(
            f"{n_paired} of {n_train:,} training cells have two modalities; at least {MIN_TRAINING_CELLS} are needed to train. "
            f"{advice}"
        )
    for key, n in n_of_modalities.items():
        if n < MIN_TRAINING_CELLS:
            raise ScmambaError(
                f"{n} of {n_train:,} training cells have the modality {key!r}; at least {MIN_TRAINING_CELLS} are needed to "
                f"train. {advice} A model without {key!r} needs no cells of it."
            )


def check_contrastive_batch_size(size: int, batch_size: int | None, world_size: int, n_train: int) -> None:
    """A multiple of the cells that all devices read together, at most the training cells; an error names the nearest sizes."""
    part = (batch_size or 2) * world_size
    of = f"batch_size={batch_size}" if batch_size else "two cells"
    each = of if world_size == 1 else f"{of} on each of {world_size} devices"
    if size > n_train:
        raise ScmambaError(
            f"contrastive_batch_size={size} is more than the {n_train:,} training cells: choose at most "
            f"{n_train // part * part:,}."
        )
    if size < part:
        raise ScmambaError(f"contrastive_batch_size={size} is smaller than {each}: choose at least {part:,}.")
    if batch_size is not None and size % part:
        below = size // part * part
        near = f"{below:,}" if below + part > n_train else f"{below:,} or {below + part:,}"
        raise ScmambaError(f"contrastive_batch_size={size} is not a multiple of {each}: choose {near}.")
