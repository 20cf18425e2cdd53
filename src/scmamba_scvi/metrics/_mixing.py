"""Are the modalities, or the batches, mixed around a cell?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..errors import ScmambaError
from ._labels import Labels, label_codes
from .distances import Matrix, as_matrix, nearest, prepare, query_rows, resolve_k


def omics_entropy_mixing(
    x: Matrix,
    omics: Labels,
    *,
    n_neighbors: int = 100,
    n_samples: int | None = 100,
    n_pools: int = 100,
    normalize: bool = True,
    random_state: int = 0,
    device: str | torch.device | None = None,
) -> float:
    """Omics entropy mixing score: evenness of the modalities around a cell (equations 15 and 16).

    0 to 1, higher is better; 1 means that all modalities surround a cell as often as they occur overall.

    Parameters
    ----------
    x
        ``(n, z)`` embedding, cells of all modalities stacked.
    omics
        ``(n,)`` modality of each row, or its batch.
    n_neighbors
        Neighbours of a cell, itself not counted.
    n_samples
        Cells drawn for each pool; ``None`` takes every cell once, which gives the value that pools estimate.
    n_pools
        Draws to average over.
    normalize
        Divide the entropy by that of an even mix, ``log(n_modalities)``; otherwise it is in nats.
    random_state
        Seed of the draws and of the order of ties.
    device
        As in :func:`knn_accuracy`.

    Raises
    ------
    ScmambaError
        If ``x`` is not finite, if modalities are missing, of another number or all the same, if there are not more
        cells than neighbours, or for a number of draws below 1.

    Notes
    -----
    Equation 16 lacks the minus sign, a base and a scale; the sum over regions in its text is a mean. Here the entropy
    is divided by its largest value, so that the base cancels and scores of two and of three modalities can be compared.

    Examples
    --------
    >>> metrics.omics_entropy_mixing(np.eye(2).repeat(20, axis=0), ["rna"] * 20 + ["atac"] * 20, n_neighbors=10)
    0.0
    """
    x = as_matrix(x, "x", device)
    codes = label_codes(omics, len(x), "omics")
    k = resolve_k(n_neighbors, None, len(x))
    if (n_samples is not None and n_samples < 1) or n_pools < 1:
        raise ScmambaError(f"n_samples and n_pools must be at least 1; got {n_samples} and {n_pools}.")
    rows, weight = np.arange(len(x)), np.ones(len(x))
    if n_samples is not None:
        rng = np.random.default_rng(random_state)
        drawn = [rng.choice(len(x), min(n_samples, len(x)), replace=False) for _ in range(n_pools)]
        rows, weight = np.unique(np.concatenate(drawn), return_counts=True)
    overall = torch.as_tensor(np.bincount(codes) / len(codes), device=x.device)  # (modalities,)
    around = torch.cat([counts for _, counts in _counts(x, codes, k, rows, random_state)]) / overall  # (m, modalities)
    entropy = torch.special.entr(around / around.sum(dim=1, keepdim=True)).sum(dim=1).cpu().numpy()
    return float(np.average(entropy, weights=weight) / (math.log(len(overall)) if normalize else 1.0))


def seurat_alignment(
    x: Matrix,
    omics: Labels,
    neighbor_frac: float = 0.01,
    n_repeats: int = 4,
    *,
    max_queries: int | None = None,
    random_state: int = 0,
    device: str | torch.device | None = None,
) -> float:
    """Seurat alignment score: how few neighbours of a cell are of its own modality (equation 17; [Butler18]_).

    0 to 1, higher is better; 1 means that a cell has no more neighbours of its own modality than of each other one.

    Parameters
    ----------
    x
        ``(n, z)`` embedding, cells of all modalities stacked.
    omics
        ``(n,)`` modality of each row, or its batch.
    neighbor_frac
        Neighbours of a cell as a fraction of the cells kept, at least one; the paper's 1 %.
    n_repeats
        How often cells are drawn, as many of every modality as the smallest has. Modalities of equal size need no draw and
        are scored once.
    max_queries, random_state, device
        As in :func:`knn_accuracy`.

    Raises
    ------
    ScmambaError
        If ``x`` is not finite, if modalities are missing, of another number or all the same, if one has one cell, or if
        there are not more cells than neighbours.

    Notes
    -----
    The mean in equation 17 is that of the neighbours from the cell's own modality. The score exceeds 1, and is clipped,
    where cells have fewer of these than of others, as with two copies of one cloud.

    References
    ----------
    .. [Butler18] Butler et al., Integrating single-cell transcriptomic data across different conditions, technologies,
       and species, Nature Biotechnology 2018.

    Examples
    --------
    >>> metrics.seurat_alignment(np.eye(2).repeat(20, axis=0), ["rna"] * 20 + ["atac"] * 20)  # apart
    0.0
    """
    x = as_matrix(x, "x", device)
    codes = label_codes(omics, len(x), "omics")
    sizes = np.bincount(codes)
    if n_repeats < 1:
        raise ScmambaError(f"n_repeats must be at least 1; got {n_repeats}.")
    if sizes.min() < 2:
        raise ScmambaError(
            "A modality of omics has one cell: with one cell of each modality, none has neighbours of its own."
        )
    rng = np.random.default_rng(random_state)
    scores = []
    for _ in range(1 if sizes.min() == sizes.max() else n_repeats):
        drawn = [rng.choice(np.flatnonzero(codes == code), sizes.min(), replace=False) for code in range(len(sizes))]
        kept = np.sort(np.concatenate(drawn))
        k = resolve_k(None, neighbor_frac, len(kept))
        queries = query_rows(len(kept), max_queries, random_state)
        inside, own_codes = x[torch.as_tensor(kept, device=x.device)], torch.as_tensor(codes[kept], device=x.device)
        counts = [
            found.gather(1, own_codes[torch.as_tensor(block, device=x.device), None])
            for block, found in _counts(inside, codes[kept], k, queries, random_state)
        ]
        own = float(torch.cat(counts).mean())
        even = k / len(sizes)
        scores.append(min(1.0, 1 - (own - even) / (k - even)))
    return float(np.mean(scores))


def _counts(
    x: Tensor, codes: np.ndarray, k: int, rows: np.ndarray, random_state: int
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Neighbours of each code around some of the cells: positions ``(b,)``, counts ``(b, codes)`` float64."""
    (points,) = prepare(x)
    one_hot = torch.nn.functional.one_hot(torch.as_tensor(codes, device=x.device)).double()
    for block, found in nearest(points, k, rows, random_state):
        yield block, torch.stack([own[found].sum(dim=1) for own in one_hot.T], dim=1)
