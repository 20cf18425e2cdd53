"""Modality-specific embeddings of cells whose counts are at hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .._module import SCMAMBAModule
from ..inputs.matrices import ModalityMatrix, iterate_blocks


def embed(
    module: SCMAMBAModule, matrix: ModalityMatrix, kind: str, cells: np.ndarray, *, aligned: bool = True
) -> Tensor:
    """Unit vectors ``(n, z)`` on the CPU of ``cells``, which all have the modality."""
    encode = module.embed_modality if aligned else module.encode
    parts = [torch.zeros(0, module.config.n_latent)]
    for block in iterate_blocks(matrix, cells, 512):
        parts.append(encode(block.to(module.device), kind).float().cpu())
    return torch.cat(parts)
