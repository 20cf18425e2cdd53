"""Embeddings of held-out cells, and how well they find their true matches, over the cells of all ranks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ...metrics import modality_gap, true_match_ranks
from ...nn.distributed import gather_rows
from .._module import SCMAMBAModule
from ..inputs.matrices import ModalityMatrix

#: Per modality: embeddings ``(n, z)`` and mask ``(n,)`` of the cells that have it.
HeldOut = dict[str, tuple[Tensor, Tensor]]
#: Fewer held-out pairs determine neither the moments of two modalities nor a temperature.
MIN_PAIRS: Final = 10
#: Nearest cells of the other modality among which a true match is looked for.
K: Final = 10


def embed_all(module: SCMAMBAModule, matrices: Mapping[str, ModalityMatrix], cells: np.ndarray) -> HeldOut:
    """Per kind, embeddings before alignment ``(n, z)``, zero for cells that lack it, and who has it ``(n,)``; on the CPU."""
    found = apply_to_cells(module.encode, module, matrices, cells)
    return {kind: (z.cpu(), present.cpu()) for kind, (z, present) in found.items()}


def apply_to_cells(
    function: Callable[[Tensor, str, Tensor], Tensor],
    module: SCMAMBAModule,
    matrices: Mapping[str, ModalityMatrix],
    cells: np.ndarray,
) -> HeldOut:
    """Per kind, ``function(counts, kind, present)`` of the module in evaluation ``(n, m)``, and who has it ``(n,)``."""
    module.eval()
    found = {}
    for kind, matrix in matrices.items():
        parts = []
        for part in np.split(cells, range(512, len(cells), 512)):  # one, of no cells, if there are none
            has = torch.from_numpy(matrix.present(part)).to(module.device)
            parts.append((function(matrix.read(part).to(module.device), kind, has).float(), has))
        z, present = zip(*parts, strict=True)
        found[kind] = torch.cat(z), torch.cat(present)
    return found


def retrieval_scores(cells: HeldOut) -> dict[str, float]:
    """FOSCTTM, recall@10 and the distance between modalities' means, averaged over the pairs of modalities.

    Two modalities that fewer than `MIN_PAIRS` cells have tell nothing beside two that more have.
    """
    scores: dict[str, list[float]] = {"foscttm": [], "recall_at_10": [], "modality_gap": []}
    matches = list(true_matches(cells))
    for a, b in [pair for pair in matches if len(pair[0]) >= MIN_PAIRS] or matches:
        ranks = true_match_ranks(a, b)
        scores["foscttm"].append(float(np.mean(ranks.fractions)))
        scores["recall_at_10"].append(float(ranks.recall(min(K, len(a)))[0]))
        scores["modality_gap"].append(modality_gap(a, b))
    return {name: float(np.mean(values)) for name, values in scores.items() if values}


def true_matches(cells: HeldOut) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Embeddings ``(n, z)`` of the cells that have both, for each two modalities that two cells or more have."""
    for (a, has_a), (b, has_b) in itertools.combinations(cells.values(), 2):
        both = has_a & has_b
        if int(both.sum()) > 1:
            yield a[both].numpy(), b[both].numpy()


def on_cpu(outputs: Mapping[str, dict]) -> HeldOut:
    """Embeddings and masks that the module returned, to be kept until the epoch ends."""
    found = {}
    for kind, z in outputs["z"].items():
        has = outputs["present"][kind]
        has = torch.ones(len(z), dtype=torch.bool) if has is None else has.cpu()
        found[kind] = z.detach().float().cpu(), has
    return found


def joined(batches: Sequence[HeldOut]) -> HeldOut:
    """The cells of all minibatches, one after the other."""
    whole: HeldOut = {}
    for kind in batches[0] if batches else ():
        z, present = zip(*(batch[kind] for batch in batches), strict=True)
        whole[kind] = torch.cat(z), torch.cat(present)
    return whole


def gather_held_out(cells: HeldOut, device: torch.device) -> HeldOut:
    """What all ranks have embedded, equal on each; every rank must call this."""
    whole: HeldOut = {}
    for kind, (z, present) in cells.items():
        rows = gather_rows(torch.cat([z, present[:, None].to(z)], 1).to(device)).cpu()
        whole[kind] = rows[:, :-1], rows[:, -1].bool()
    return whole
