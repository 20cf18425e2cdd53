"""Several passes over the values of the training cells, which are kept where that takes no more memory than training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ...nn.memory import free_bytes
from ...nn.spectral import Blocks
from ...ops.csr import select_rows
from .._module import SCMAMBAModule
from ..inputs.matrices import FRACTION_OF_MEMORY, ModalityMatrix, iterate_blocks

#: Cells of a block, and on a GPU: enough rows to keep all of it busy.
BLOCK, GPU_BLOCK = 1024, 4096
#: Of the size of the feature embeddings: they, their gradient and the two moments of the optimizer.
ARRAYS_OF_TRAINING = 4


class Values:
    """Transformed values of those of ``cells`` that have a modality; a call begins a pass over their row blocks.

    Values of few cells beside the features are kept: they take no more memory than training does after them. Of more cells, or
    where memory lacks, each pass reads and transforms the counts again, which takes a tenth longer.
    """

    def __init__(self, module: SCMAMBAModule, matrix: ModalityMatrix, kind: str, cells: np.ndarray) -> None:
        self._module, self._matrix, self._kind = module, matrix, kind
        self._cells = cells[matrix.present(cells)]
        self._has = torch.from_numpy(matrix.present(cells))
        # of float32, whatever the counts are stored in
        n_bytes = matrix.bytes_of_copy / max(1, matrix.n_cells) * len(cells)
        self._kept = list(self._read(self._cells)) if n_bytes <= _room(module, matrix.n_features) else None

    def __call__(self) -> Iterable[Tensor]:
        """Row blocks ``(cells of the block, f)``."""
        return self._read(self._cells) if self._kept is None else self._kept

    def of_cells(self, chosen: Tensor) -> Blocks:
        """The same of those in the mask ``chosen`` ``(cells,)``, on the CPU, alone."""
        chosen = chosen[self._has]
        if self._kept is None:
            return partial(self._read, self._cells[chosen.numpy()])
        rows = chosen.to(self._module.device).split([block.shape[0] for block in self._kept])
        kept = [select_rows(block, of_block) for block, of_block in zip(self._kept, rows, strict=True)]
        return lambda: kept

    def _read(self, cells: np.ndarray) -> Iterator[Tensor]:
        size = GPU_BLOCK if self._module.device.type == "cuda" else BLOCK
        # blocks of about the same size: what is as long as the features costs the same for a block of few cells
        size = math.ceil(len(cells) / max(1, round(len(cells) / size)))
        for block in iterate_blocks(self._matrix, cells, max(1, size)):
            yield self._module.transform(block, self._kind)


def _room(module: SCMAMBAModule, n_features: int) -> float:
    """Bytes that kept values of a modality may take."""
    # on a GPU, sorting a block for a product needs several times the block
    free = FRACTION_OF_MEMORY * free_bytes(module.device)
    if module.device.type == "cuda":  # whose memory is for nothing else
        return free
    return min(free, ARRAYS_OF_TRAINING * 4 * n_features * module.config.n_latent)
