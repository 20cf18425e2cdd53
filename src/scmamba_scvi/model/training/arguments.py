"""Checks of the arguments of `train`, before anything is computed or written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ScmambaError
from ..inputs.arguments import check_count, check_fraction
from .sizes import TRAIN_SIZE


def check_training(
    *,
    max_epochs: int | None,
    batch_size: int | None,
    contrastive_batch_size: int | None,
    train_size: float | None,
    validation_size: float | None,
    plan_kwargs: Mapping[str, Any] | None,
    datasplitter_kwargs: Mapping[str, Any] | None,
    checkpoint_dir: str | os.PathLike[str] | None,
    n_cells: int,
) -> None:
    """Those arguments of `train` that can be checked without the data."""
    counts = {"max_epochs": max_epochs, "batch_size": batch_size, "contrastive_batch_size": contrastive_batch_size}
    for name, count in counts.items():
        if count is not None:
            check_count(name, count)
    if train_size is not None:
        check_fraction("train_size", train_size, zero=False)
    if validation_size is not None:
        check_fraction("validation_size", validation_size, zero=True)
        default = "" if train_size is not None else " (the default)"
        share = TRAIN_SIZE if train_size is None else train_size
        if share + validation_size > 1 + 1e-9:
            raise ScmambaError(
                f"train_size={share}{default} and validation_size={validation_size} add up to more than all cells: lower "
                f"one of them."
            )
    for name, options in (("plan_kwargs", plan_kwargs), ("datasplitter_kwargs", datasplitter_kwargs)):
        if options is not None and not isinstance(options, Mapping):
            raise ScmambaError(f"{name} must be a dict, got {options!r}.")
    if checkpoint_dir is not None and not isinstance(checkpoint_dir, str | os.PathLike):
        raise ScmambaError(f"checkpoint_dir must be the path of a folder, got {checkpoint_dir!r}.")
    parts = (datasplitter_kwargs or {}).get("external_indexing")
    if parts is not None:
        check_external_indexing(parts, n_cells)


def check_external_indexing(parts: Sequence[Sequence[int]], n_cells: int) -> None:
    """Positions of the cells to train on, held out and left over: each is a cell of the data, and none occurs twice."""
    try:
        arrays = [np.asarray(part, dtype=np.float64) for part in parts]
        whole = np.concatenate(arrays)
    except (TypeError, ValueError) as error:
        raise ScmambaError(f"external_indexing must be three lists of positions of cells: {error}.") from error
    if len(arrays) != 3 or whole.ndim != 1 or not len(arrays[0]):
        raise ScmambaError(
            "external_indexing must be three lists of positions of cells, the first of which is not empty."
        )
    if (whole != np.rint(whole)).any() or whole.min() < 0 or whole.max() >= n_cells:
        raise ScmambaError(f"external_indexing must hold positions among {n_cells:,} cells, 0 to {n_cells - 1:,}.")
    if len(np.unique(whole)) < len(whole):
        raise ScmambaError("external_indexing names some cells more than once.")
