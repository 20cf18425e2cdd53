"""How the modalities are brought together after training, decided on cells that were not trained on."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...metrics import true_match_ranks
from ...nn.alignment import N_MEMORY
from .._module import SCMAMBAModule
from ..inputs.matrices import ModalityMatrix
from ..inputs.sampling import is_paired, sample
from .held_out import MIN_PAIRS, HeldOut, embed_all, true_matches

#: Remembered cells that are most like a cell.
N_NEAREST = 10


@torch.inference_mode()
def fit_alignment(
    module: SCMAMBAModule, matrices: Mapping[str, ModalityMatrix], cells: np.ndarray, held_out: HeldOut, seed: int
) -> None:
    """Fit `SCMAMBAModule.alignment` to trained encoders; some of the training ``cells`` are remembered.

    The anchor is the modality in which held-out cells lie nearest to remembered ones. The memory is forgotten if held-out cells
    find their true matches worse with it, by more than chance.
    """
    module.eval()
    assert module.alignment is not None, "only called for a model that has one"
    module.alignment.reset_moments()
    module.alignment.forget()
    before = _fractions(held_out)
    if not len(before):
        return
    alignment = copy.deepcopy(module.alignment).cpu()  # where the embeddings are
    remembered = embed_all(module, matrices, sample(cells[is_paired(matrices, cells)], N_MEMORY, seed))
    memory = F.normalize(torch.stack(list(remembered.z.values())).sum(0), dim=1)
    z, present = held_out
    looseness = {kind: _looseness(z[kind][has], memory) for kind, has in present.items() if has.any()}
    alignment.set_memory(memory, anchor=min(looseness, key=looseness.__getitem__))
    change = _fractions(HeldOut({kind: alignment.recall(x, kind) for kind, x in z.items()}, present)) - before
    # a few held-out cells cannot tell so small a gain: with 20 to 160 of them, those that no model saw were matched better with
    # it in 13 of 14 trials, the held-out ones in 8
    if change.mean() > 2 * change.std() / len(change) ** 0.5:
        alignment.forget()
    alignment.fit_moments(z, present, MIN_PAIRS)
    module.alignment.load_state_dict(alignment.state_dict())


def _fractions(cells: HeldOut) -> np.ndarray:
    """FOSCTTM of each cell in both directions, for each pair of modalities that it has."""
    return np.concatenate(
        [np.zeros(0), *(np.mean(true_match_ranks(a, b).fractions, axis=0) for a, b in true_matches(cells))]
    )


def _looseness(z: Tensor, memory: Tensor) -> float:
    """How far the cells ``(n, z)`` are from the remembered cells that are most like them, relative to their spread."""
    nearest = (z @ memory.T).topk(min(N_NEAREST, len(memory))).values
    return float((1 - nearest.mean()) / (1 - z.mean(0).square().sum()).clamp_min(torch.finfo(z.dtype).tiny))
