"""How the modalities are brought together after training, decided on cells that were not trained on."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...metrics import foscttm
from ...nn.alignment import N_MEMORY
from .._module import SCMAMBAModule
from ..inputs.matrices import ModalityMatrix
from ..inputs.sampling import is_paired, sample
from .embedded import embed

#: Fewer pairs do not determine the moments of two modalities.
MIN_PAIRS = 30


@torch.inference_mode()
def fit_alignment(
    module: SCMAMBAModule,
    matrices: Mapping[str, ModalityMatrix],
    cells: np.ndarray,
    held_out: np.ndarray,
    seed: int,
) -> None:
    """Fit `SCMAMBAModule.alignment` to trained encoders.

    The memory is kept if held-out cells find their true matches better with it: on few training cells they do not.

    Parameters
    ----------
    cells
        Training cells, of which some are remembered.
    held_out
        Cells that the encoders were not trained on.
    """
    module.eval()
    assert module.alignment is not None, "only called for a model that has one"
    module.alignment.reset_moments()
    module.alignment.set_memory(module.alignment.memory[:0])
    if len(held_out) < MIN_PAIRS:
        return
    alignment = copy.deepcopy(module.alignment).cpu()  # where the embeddings are
    z, present = _embed_all(module, matrices, held_out)
    plain = _foscttm(z, present)
    remembered = sample(cells[is_paired(matrices, cells)], N_MEMORY, seed)
    of_memory, _ = _embed_all(module, matrices, remembered)
    alignment.set_memory(F.normalize(torch.stack(list(of_memory.values())).sum(0), dim=1))
    if _foscttm({kind: alignment.recall(x) for kind, x in z.items()}, present) > plain:
        alignment.set_memory(alignment.memory[:0])
    alignment.fit_moments(z, present, MIN_PAIRS)
    module.alignment.load_state_dict(alignment.state_dict())


def _embed_all(
    module: SCMAMBAModule, matrices: Mapping[str, ModalityMatrix], cells: np.ndarray
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Embeddings before alignment ``(n, z)`` and who has each modality ``(n,)``; rows of cells without it are zero."""
    z, present = {}, {}
    for kind, matrix in matrices.items():
        has = torch.from_numpy(matrix.present(cells))
        z[kind] = torch.zeros(len(cells), module.config.n_latent)
        z[kind][has] = embed(module, matrix, kind, cells[has.numpy()], aligned=False)
        present[kind] = has
    return z, present


def _foscttm(z: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> float:
    """Mean over the pairs of modalities that two cells or more have, 0 if there is none."""
    scores = []
    for a, b in itertools.combinations(z, 2):
        both = present[a] & present[b]
        if int(both.sum()) > 1:
            scores.append(float(np.mean(foscttm(z[a][both].numpy(), z[b][both].numpy()))))
    return float(np.mean(scores)) if scores else 0.0
