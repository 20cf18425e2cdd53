"""What tells one training from another, so that it is resumed only as itself: model, options, cells and counts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from scvi import settings

from ..._keys import BATCH_KEY
from ...config import TrainConfig
from ...ops.csr import is_csr
from .._base import ModelBase
from ..inputs.matrices import ModalityMatrix, iterate_blocks
from .sizes import TrainingSizes
from .splitter import PairedSplitter

#: Further options of `train` that the losses depend on; those beside them say where it runs and what it shows.
COMPARED: Final = (
    "early_stopping", "phases", "precision", "limit_train_batches", "accumulate_grad_batches", "check_val_every_n_epoch",
    "gradient_clip_val", "early_stopping_monitor",
)  # fmt: skip


def training_identity(
    model: ModelBase, splitter: PairedSplitter, config: TrainConfig, sizes: TrainingSizes, options: Mapping[str, Any]
) -> dict[str, str]:
    """What must be equal for the same losses to follow, each under the name that an error uses for it.

    Values are text, or a digest where they are long. All counts are read once.

    Parameters
    ----------
    options
        Further arguments of `train`; those in `COMPARED` count.
    """
    identity = {
        "the model's configuration": _digest_of_text([json.dumps(model.config.to_dict(), sort_keys=True, default=str)]),
        "training options": _digest_of_text([json.dumps(dataclasses.asdict(config), sort_keys=True)]),
        **{f"train({name})": str(value) for name, value in options.items() if name in COMPARED},
        "batch_size": str(sizes.batch_size),
        "contrastive_batch_size": str(sizes.cells_per_step),
        "max_epochs": str(sizes.max_epochs),
        "scvi.settings.seed": str(settings.seed),
        "the cells": _digest_of_text(model.adata.obs_names),
        "the cells held out": _digest_of_text(map(str, splitter.val_idx)),
        "the cells trained on": _digest_of_text(map(str, splitter.train_idx)),
    }
    cells = np.sort(np.concatenate([splitter.train_idx, splitter.val_idx]))
    for kind, key in model.kinds.items():
        identity[f"the features of mdata[{key!r}]"] = _digest_of_text(model.feature_names(kind))
        identity[f"the counts of mdata[{key!r}]"] = _digest_of_counts(model.adata_manager.matrix(kind), cells)
    if BATCH_KEY in model.adata_manager.data_registry:
        identity["the batches"] = _digest_of_text(map(str, model.adata_manager.get_from_registry(BATCH_KEY).ravel()))
    return identity


def _digest_of_text(parts: Iterable[object]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(str(part).encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()


def _digest_of_counts(matrix: ModalityMatrix, cells: np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=8)
    digest.update(np.packbits(matrix.present(cells)).tobytes())
    for block in iterate_blocks(matrix, cells):
        stored = block if is_csr(block) else block.to_sparse_csr()
        for part in (stored.crow_indices().long(), stored.col_indices().long(), stored.values()):
            digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()
