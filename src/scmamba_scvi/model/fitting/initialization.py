"""What is fitted to the training cells before the first step: value transforms and the linear branch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..._compat import warn
from ...errors import ScmambaError
from ...nn.spectral import TruncatedSVD, held_out_correlations, linear_initialization, truncated_svd
from ...ops.csr import stored
from .._module import SCMAMBAModule
from ..inputs.matrices import ModalityMatrix, iterate_blocks
from ..inputs.sampling import is_paired, modalities_of, sample, sample_with_rare
from .passes import Values

#: More cells do not change the leading directions, but make each of several passes over the data longer.
MAX_CELLS = 50_000
#: For weights: correlations need fewer cells than directions do, and each of four parts is decomposed again.
MAX_CELLS_OF_WEIGHTS = 10_000
#: Held-out correlations give directions that agree by chance a weight near zero, so that there may be many. Half without
#: accessibility.
CELLS_PER_DIRECTION = 8
#: Both modalities are weighted, so that a direction counts in cosines by the square of its weight. 1 starts larger sets, and
#: 0.5 smaller ones, about as well.
WEIGHT_POWER = 0.75
#: Values that negative counts have not.
OF_LOGARITHMS = ("log1p", "pareto", "tfidf", "clr")


def fit_values(
    module: SCMAMBAModule, matrices: Mapping[str, ModalityMatrix], cells: np.ndarray, known_counts: bool
) -> None:
    """Fit the value transforms (document frequencies, spreads) to the training cells.

    ``known_counts``: all values were checked to be counts at setup. Else negative ones are refused here, where it is known
    what becomes of them.
    """
    for kind, matrix in matrices.items():
        if not known_counts:
            way_out = f"read them as they are, make the model with SCMAMBA(mdata, values={{{kind!r}: 'raw'}})"
            check_logarithms(matrix, cells, kind, module.config.of_kind("values", kind), way_out)
        module.values[kind].fit(block.to(module.device) for block in iterate_blocks(matrix, cells))


def check_logarithms(matrix: ModalityMatrix, cells: np.ndarray, kind: str, name: str, way_out: str) -> None:
    """Raise if ``values=name`` takes logarithms and these cells have a negative value, which has none."""
    if name not in OF_LOGARITHMS:
        return
    for block in iterate_blocks(matrix, cells):
        if (values := stored(block)).numel() and (least := float(values.min())) < 0:
            raise ScmambaError(
                f"{kind} has negative values, such as {least:.3g}, whose logarithm values={name!r} would take. To {way_out}."
            )


def decompose(
    module: SCMAMBAModule, matrices: Mapping[str, ModalityMatrix], cells: np.ndarray, seed: int = 0
) -> dict[str, TruncatedSVD]:
    """Leading components of every modality's values on those of ``cells`` that have it."""
    n_components = n_spectral_components(module, int(is_paired(matrices, cells).sum()))
    return {
        kind: truncated_svd(
            Values(module, matrix, kind, cells), matrix.n_features, n_components, seed=seed, device=module.device
        )
        for kind, matrix in matrices.items()
    }


def initialize_linear_branch(
    module: SCMAMBAModule,
    matrices: Mapping[str, ModalityMatrix],
    cells: np.ndarray,
    svds: Mapping[str, TruncatedSVD],
    seed: int = 0,
) -> None:
    """Set every encoder's linear branch to the correlation-weighted CCA of the training ``cells``, from their ``svds``."""
    present = {kind: torch.from_numpy(matrix.present(cells)) for kind, matrix in matrices.items()}
    weights = None
    if module.config.spectral_weights == "held-out":
        n_components = max(svd.components.shape[1] for svd in svds.values())
        weights = direction_weights(module, matrices, cells, n_components, seed)
        if not bool((weights > 0).any()):
            # with weights of zero all embeddings would be the same vector, and training could not change that
            warn(
                f"No direction of {' and '.join(matrices)} is correlated on held-out cells: training starts from correlations "
                f"on the training cells, which may be chance. Check that the modalities were measured in the same cells."
            )
            weights = None
    found = linear_initialization(svds, present, module.config.n_latent, weights)
    for kind, directions in found.items():
        module.encoders[kind].initialize_from(directions, svds[kind].mean)


def direction_weights(
    module: SCMAMBAModule, matrices: Mapping[str, ModalityMatrix], cells: np.ndarray, n_components: int, seed: int
) -> Tensor:
    """Held-out correlations of the shared directions, in falling order, from at most `MAX_CELLS_OF_WEIGHTS` cells.

    Another part of the cells may give a direction another rank, so single correlations scatter; the falling curve
    nearest to them (isotonic regression) is smoother.
    """
    from sklearn.isotonic import IsotonicRegression

    cells = sample_with_rare(cells, modalities_of(matrices, cells), MAX_CELLS_OF_WEIGHTS, partial(sample, seed=seed))
    found = held_out_correlations(
        {kind: Values(module, matrix, kind, cells).of_cells for kind, matrix in matrices.items()},
        {kind: torch.from_numpy(matrix.present(cells)) for kind, matrix in matrices.items()},
        {kind: matrix.n_features for kind, matrix in matrices.items()},
        n_components,
        module.config.n_latent,
        seed=seed,
        device=module.device,
    )
    falling = IsotonicRegression(increasing=False).fit_transform(np.arange(len(found)), found.numpy())
    return torch.from_numpy(np.clip(falling, 0, 1)).float() ** WEIGHT_POWER


def n_spectral_components(module: SCMAMBAModule, n_pairs: int) -> int:
    """Number of directions of each modality that enter the CCA, given the number of cells with several modalities.

    Twice as many without accessibility, since what RNA and proteins share is not all in the leading ones. With accessibility
    that gains less than seeds differ by, at twice the time and memory. On few pairs more directions correlate by chance.
    """
    n_latent, factor = module.config.n_latent, 1 if "atac" in module.kinds else 2
    per_direction = CELLS_PER_DIRECTION // factor if module.config.spectral_weights == "held-out" else 10
    return max(2, min(module.config.spectral_components or factor * n_latent, n_pairs // per_direction))
