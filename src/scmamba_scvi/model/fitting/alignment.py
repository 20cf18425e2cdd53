"""How the modalities are brought together after training, decided on cells that were not trained on."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...metrics import other_modality, true_match_ranks
from ...nn.alignment import N_MEMORY
from .._module import SCMAMBAModule
from ..inputs.matrices import ModalityMatrix
from ..inputs.sampling import is_paired, sample
from .held_out import HeldOut, embed_all

#: Fewer pairs do not determine the moments of two modalities.
MIN_PAIRS = 30
#: Nearest cells among which those of the other modality are counted.
N_NEIGHBORS = 15


@torch.inference_mode()
def fit_alignment(
    module: SCMAMBAModule,
    matrices: Mapping[str, ModalityMatrix],
    cells: np.ndarray,
    held_out: HeldOut,
    seed: int,
) -> None:
    """Fit `SCMAMBAModule.alignment` to trained encoders; some of the training ``cells`` are remembered.

    The modality with which as the anchor held-out cells mix best is the anchor. The memory is forgotten if held-out cells find
    their true matches worse with it, by more than chance.
    """
    module.eval()
    assert module.alignment is not None, "only called for a model that has one"
    module.alignment.reset_moments()
    module.alignment.forget()
    z, present = ({kind: of_kind[i] for kind, of_kind in held_out.items()} for i in range(2))
    before = _fractions(z, present)
    if not len(before):
        return
    alignment = copy.deepcopy(module.alignment).cpu()  # where the embeddings are
    remembered = embed_all(module, matrices, sample(cells[is_paired(matrices, cells)], N_MEMORY, seed))
    memory = F.normalize(torch.stack([x for x, _ in remembered.values()]).sum(0), dim=1)
    mixing = {}
    for kind in z:
        alignment.set_memory(memory, anchor=kind)
        alignment.fit_moments(z, present, MIN_PAIRS)
        mixing[kind] = _mixing({other: alignment(x, other) for other, x in z.items()}, present, seed)
    alignment.set_memory(memory, anchor=max(mixing, key=mixing.__getitem__))
    change = _fractions({kind: alignment.recall(x, kind) for kind, x in z.items()}, present) - before
    # a few held-out cells cannot tell so small a gain: with 20 to 160 of them, those that no model saw were matched better with
    # it in 13 of 14 trials, the held-out ones in 8
    if change.mean() > 2 * change.std() / len(change) ** 0.5:
        alignment.forget()
    alignment.fit_moments(z, present, MIN_PAIRS)
    module.alignment.load_state_dict(alignment.state_dict())


def _fractions(z: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> np.ndarray:
    """FOSCTTM of each cell in both directions, for each pair of modalities that it has."""
    found = [np.zeros(0)]
    for a, b in itertools.combinations(z, 2):
        both = present[a] & present[b]
        if int(both.sum()) > 1:
            ranks = true_match_ranks(z[a][both].numpy(), z[b][both].numpy())
            found.append(np.mean(ranks.fractions, axis=0))
    return np.concatenate(found)


def _mixing(z: Mapping[str, Tensor], present: Mapping[str, Tensor], seed: int) -> float:
    """Fraction of the nearest cells that are of the other modality, averaged over the pairs of modalities."""
    fractions = []
    for a, b in itertools.combinations(z, 2):
        both = np.flatnonzero(present[a] & present[b])
        if 2 * len(both) > N_NEIGHBORS:
            both = sample(both, N_MEMORY, seed)
            fractions.append(other_modality(z[a][both], z[b][both], n_neighbors=N_NEIGHBORS).mean())
    return float(np.mean(fractions)) if fractions else 0.0
