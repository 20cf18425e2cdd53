"""How the modalities are brought together after training, decided on cells that were not trained on."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from ...metrics import other_modality, true_match_ranks
from ...nn.alignment import N_MEMORY
from .._module import SCMAMBAModule
from ..inputs.matrices import ModalityMatrix
from ..inputs.sampling import is_paired, sample
from .held_out import HeldOut, embed_all, true_matches

#: Fewer pairs say nothing of the moments of two modalities.
MIN_PAIRS = 10
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
    before = _fractions(held_out)
    if not len(before):
        return
    alignment = copy.deepcopy(module.alignment).cpu()  # where the embeddings are
    remembered = embed_all(module, matrices, sample(cells[is_paired(matrices, cells)], N_MEMORY, seed))
    memory = F.normalize(torch.stack([x for x, _ in remembered.values()]).sum(0), dim=1)
    mixing = {}
    for kind in z:
        alignment.set_memory(memory, anchor=kind)
        alignment.fit_moments(z, present, MIN_PAIRS)
        mixing[kind] = _mixing({other: (alignment(x, other), has) for other, (x, has) in held_out.items()}, seed)
    alignment.set_memory(memory, anchor=max(mixing, key=mixing.__getitem__))
    change = _fractions({kind: (alignment.recall(x, kind), has) for kind, (x, has) in held_out.items()}) - before
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


def _mixing(cells: HeldOut, seed: int) -> float:
    """Fraction of the nearest cells that are of the other modality, averaged over the pairs of modalities."""
    fractions = []
    for a, b in true_matches(cells):
        if 2 * len(a) > N_NEIGHBORS:
            some = sample(np.arange(len(a)), N_MEMORY, seed)
            fractions.append(other_modality(a[some], b[some], n_neighbors=N_NEIGHBORS).mean())
    return float(np.mean(fractions)) if fractions else 0.0
