"""What the model learns from the training cells before the first step: value transforms and the spectral start."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ..nn.spectral import linear_start, truncated_svd
from ._data import ModalityMatrix, iterate_blocks
from ._module import SCMAMBAModule

#: More cells do not move the leading directions, but cost a pass over the data each.
MAX_CELLS = 50_000


def fit_values(module: SCMAMBAModule, matrices: Mapping[str, ModalityMatrix], cells: np.ndarray) -> None:
    """Learn what the value transforms need (document frequencies) from the training cells."""
    for kind, matrix in matrices.items():
        module.values[kind].fit(iterate_blocks(matrix, cells))


def start_spectrally(
    module: SCMAMBAModule, matrices: Mapping[str, ModalityMatrix], cells: np.ndarray, seed: int = 0
) -> None:
    """Set every encoder's linear part to the correlation-weighted CCA of the training cells.

    Parameters
    ----------
    module
        With fitted value transforms.
    matrices
        Counts per kind of modality.
    cells
        Training cells; of more than 50,000 a random sample is used.
    seed
        Of the sample and of the decomposition.
    """
    if len(cells) > MAX_CELLS:
        cells = np.sort(np.random.default_rng(seed).choice(cells, MAX_CELLS, replace=False))
    present = {kind: torch.from_numpy(matrix.present(cells)) for kind, matrix in matrices.items()}
    n_components = spectral_components(module, {k: int(p.sum()) for k, p in present.items()})
    device = next(module.parameters()).device
    svds = {
        kind: truncated_svd(
            lambda kind=kind, matrix=matrix: (module.values[kind](b) for b in iterate_blocks(matrix, cells)),
            matrix.n_features, min(n_components, matrix.n_features), seed=seed,
        )
        for kind, matrix in matrices.items()
    }  # fmt: skip
    starts = linear_start(svds, present, module.config.n_latent)
    for kind, start in starts.items():
        module.encoders[kind].start_from(start.to(device))


def spectral_components(module: SCMAMBAModule, n_cells: Mapping[str, int]) -> int:
    """Directions of each modality that enter the CCA: as many as latent dimensions, fewer on few cells.

    With a tenth as many directions as cells, correlations that are there by chance stay well below those that are not.
    """
    asked = module.config.spectral_components or module.config.n_latent
    return max(2, min(asked, min(n_cells.values()) // 10))
