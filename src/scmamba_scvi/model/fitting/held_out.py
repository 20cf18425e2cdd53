"""Embeddings of held-out cells, and how well they find their true matches, over the cells of all ranks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...metrics import modality_gap, true_match_ranks
from ...nn.distributed import gather_rows
from .._module import SCMAMBAModule
from ..inputs.matrices import ModalityMatrix

#: Fewer held-out pairs determine neither the moments of two modalities nor a temperature.
MIN_PAIRS: Final = 10
#: Nearest cells of the other modality among which a true match is looked for.
K: Final = 10


class HeldOut(NamedTuple):
    """Per kind of modality, embeddings of cells before alignment ``(n, z)``, and which of them have it ``(n,)``; on the CPU."""

    z: dict[str, Tensor]
    present: dict[str, Tensor]


def embed_all(module: SCMAMBAModule, matrices: Mapping[str, ModalityMatrix], cells: np.ndarray) -> HeldOut:
    """Embeddings of ``cells``, zero where a cell lacks the modality."""
    z, present = apply_to_cells(module.encode, module, matrices, cells)
    return HeldOut({kind: x.cpu() for kind, x in z.items()}, {kind: has.cpu() for kind, has in present.items()})


def apply_to_cells(
    function: Callable[[Tensor, str, Tensor], Tensor],
    module: SCMAMBAModule,
    matrices: Mapping[str, ModalityMatrix],
    cells: np.ndarray,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Per kind, ``function(counts, kind, present)`` of the module in evaluation ``(n, m)``, and who has it ``(n,)``."""
    module.eval()
    found, present = {}, {}
    for kind, matrix in matrices.items():
        present[kind] = torch.from_numpy(matrix.present(cells)).to(module.device)
        # one part, of no cells, if there are none
        parts = zip(np.split(cells, range(512, len(cells), 512)), present[kind].split(512), strict=True)
        rows = [function(matrix.read(part).to(module.device), kind, has).float() for part, has in parts]
        found[kind] = torch.cat(rows)
    return found, present


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
    for a, b in itertools.combinations(cells.z, 2):
        both = cells.present[a] & cells.present[b]
        if int(both.sum()) > 1:
            yield cells.z[a][both].numpy(), cells.z[b][both].numpy()


def on_cpu(outputs: Mapping[str, dict]) -> HeldOut:
    """Embeddings and masks that the module returned, to be kept until the epoch ends."""
    z = {kind: x.detach().float().cpu() for kind, x in outputs["z"].items()}
    masks = outputs["present"].items()
    return HeldOut(z, {k: torch.ones(len(z[k]), dtype=torch.bool) if has is None else has.cpu() for k, has in masks})


def joined(batches: Sequence[HeldOut]) -> HeldOut:
    """The cells of all minibatches, one after the other."""
    kinds = batches[0].z if batches else ()
    z = {kind: torch.cat([batch.z[kind] for batch in batches]) for kind in kinds}
    return HeldOut(z, {kind: torch.cat([batch.present[kind] for batch in batches]) for kind in kinds})


def gather_held_out(cells: HeldOut, device: torch.device) -> HeldOut:
    """What all ranks have embedded, equal on each; every rank must call this."""
    whole = HeldOut({}, {})
    for kind, z in cells.z.items():
        rows = gather_rows(torch.cat([z, cells.present[kind][:, None].to(z)], 1).to(device)).cpu()
        whole.z[kind], whole.present[kind] = rows[:, :-1], rows[:, -1].bool()
    return whole
