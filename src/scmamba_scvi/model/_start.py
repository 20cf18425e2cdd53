"""What the model learns from the training cells before the first step: value transforms and the spectral start."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import torch

from ..nn.spectral import TruncatedSVD, held_out_correlations, linear_start, truncated_svd
from ._matrix import ModalityMatrix, iterate_blocks
from ._module import SCMAMBAModule

#: More cells do not move the leading directions, but cost a pass over the data each.
MAX_CELLS = 50_000
#: Correlations need fewer cells than directions do, and are taken in four parts.
MAX_CELLS_OF_WEIGHTS = 10_000


def fit_values(module: SCMAMBAModule, matrices: Mapping[str, ModalityMatrix], cells: np.ndarray) -> None:
    """Learn what the value transforms need (document frequencies) from the training cells."""
    for kind, matrix in matrices.items():
        module.values[kind].fit(iterate_blocks(matrix, cells))


def decompose(
    module: SCMAMBAModule, matrices: Mapping[str, ModalityMatrix], cells: np.ndarray, seed: int = 0
) -> dict[str, TruncatedSVD]:
    """Leading components of every modality's values on those of ``cells`` that have it."""
    n_components = spectral_components(module, {k: int(m.present(cells).sum()) for k, m in matrices.items()})
    return {
        kind: truncated_svd(
            lambda kind=kind, matrix=matrix: (module.values[kind](b) for b in iterate_blocks(matrix, cells)),
            matrix.n_features, min(n_components, matrix.n_features), seed=seed,
        )
        for kind, matrix in matrices.items()
    }  # fmt: skip


def start_spectrally(
    module: SCMAMBAModule,
    matrices: Mapping[str, ModalityMatrix],
    cells: np.ndarray,
    svds: Mapping[str, TruncatedSVD],
    seed: int = 0,
) -> None:
    """Set every encoder's linear part to the correlation-weighted CCA of the training cells.

    Parameters
    ----------
    module
        With fitted value transforms.
    matrices
        Counts per kind of modality.
    cells, svds
        Training cells and their components, of `decompose`.
    seed
        Of the decomposition that weights from held-out cells need.
    """
    present = {kind: torch.from_numpy(matrix.present(cells)) for kind, matrix in matrices.items()}
    device = next(module.parameters()).device
    weights = None
    if module.config.spectral_weights == "held-out":
        n_components = max(svd.components.shape[1] for svd in svds.values())
        weights = direction_weights(module, matrices, cells, n_components, seed)
        if not bool((weights > 0).any()):
            # weights of zero would make every view the same vector, which training cannot leave
            warnings.warn(
                f"On cells held out, nothing in {' and '.join(matrices)} goes together: training starts from what goes together "
                f"on its own cells, which may be chance. Check that the cells of the modalities are the same ones.",
                UserWarning, stacklevel=2,
            )  # fmt: skip
            weights = None
    starts = linear_start(svds, present, module.config.n_latent, weights)
    for kind, start in starts.items():
        module.encoders[kind].start_from(start.to(device))


def direction_weights(
    module: SCMAMBAModule, matrices: Mapping[str, ModalityMatrix], cells: np.ndarray, n_components: int, seed: int
) -> torch.Tensor:
    """Held-out correlations of the shared directions, in falling order; of at most `MAX_CELLS_OF_WEIGHTS` cells.

    A direction of low rank is found again in another part of the cells as one of another rank, so that single
    correlations scatter; the falling curve nearest to them (isotonic regression) does not.
    """
    from sklearn.isotonic import IsotonicRegression

    cells = sample(cells, MAX_CELLS_OF_WEIGHTS, seed)
    found = held_out_correlations(
        {
            kind: lambda mask, kind=kind, matrix=matrix: (
                module.values[kind](b) for b in iterate_blocks(matrix, cells[mask.numpy()])
            )
            for kind, matrix in matrices.items()
        },
        {kind: torch.from_numpy(matrix.present(cells)) for kind, matrix in matrices.items()},
        {kind: min(n_components, matrix.n_features) for kind, matrix in matrices.items()},
        {kind: matrix.n_features for kind, matrix in matrices.items()},
        module.config.n_latent,
        seed=seed,
    )
    falling = IsotonicRegression(increasing=False).fit_transform(np.arange(len(found)), found.numpy())
    return torch.from_numpy(np.clip(falling, 0, 1)).float()


def sample(cells: np.ndarray, at_most: int, seed: int) -> np.ndarray:
    """All ``cells``, or of more than ``at_most`` a random choice in rising order."""
    if len(cells) <= at_most:
        return cells
    return np.sort(np.random.default_rng(seed).choice(cells, at_most, replace=False))


def spectral_components(module: SCMAMBAModule, n_cells: Mapping[str, int]) -> int:
    """Directions of each modality that enter the CCA: as many as latent dimensions, fewer on few cells.

    With a tenth as many directions as cells, correlations that are there by chance stay well below those that are not;
    held-out correlations need no such limit, as chance weighs nothing in them.
    """
    asked = module.config.spectral_components or module.config.n_latent
    per_direction = 2 if module.config.spectral_weights == "held-out" else 10
    return max(2, min(asked, min(n_cells.values()) // per_direction))
