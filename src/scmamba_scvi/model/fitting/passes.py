"""Several passes over the values of the training cells, which a GPU keeps where it has the memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ...ops.csr import select_rows
from .._module import SCMAMBAModule
from ..inputs.matrices import FRACTION_OF_GPU, ModalityMatrix, iterate_blocks

#: Cells of a block on a GPU: enough rows to keep all of it busy.
GPU_BLOCK = 4096


class Values:
    """Transformed values of those of ``cells`` that have a modality; a call begins a pass over their row blocks.

    On the CPU, and where a GPU lacks the memory, each pass reads and transforms the counts again.
    """

    def __init__(self, module: SCMAMBAModule, matrix: ModalityMatrix, kind: str, cells: np.ndarray) -> None:
        self._module, self._matrix, self._kind, self._cells = module, matrix, kind, cells
        self._kept: list[Tensor] | None = None
        if module.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(module.device)
            # sorting a block for a product needs several times the block
            if matrix.bytes_per_cell * len(cells) <= FRACTION_OF_GPU * free:
                self._kept = list(self._read(cells, GPU_BLOCK))

    def __call__(self, chosen: Tensor | None = None) -> Iterator[Tensor]:
        """Row blocks ``(cells of the block, f)``; with a mask ``chosen`` ``(cells,)`` on the CPU, of these cells alone."""
        if self._kept is None:
            yield from self._read(self._cells if chosen is None else self._cells[chosen.numpy()], 1024)
            return
        if chosen is None:
            yield from self._kept
            return
        keep = chosen[torch.from_numpy(self._matrix.present(self._cells))].to(self._module.device)
        for block, rows in zip(self._kept, keep.split(GPU_BLOCK), strict=True):
            yield select_rows(block, rows)

    def _read(self, cells: np.ndarray, block_size: int) -> Iterator[Tensor]:
        for block in iterate_blocks(self._matrix, cells, block_size):
            yield self._module.transform(block, self._kind)
