"""Are the layers, or the batches, mixed around a cell?"""

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
    """Omics entropy mixing score: evenness of the layers around a cell (equations 15 and 16).

    0 to 1, higher is better; 1 means that all layers surround a cell in the shares they have overall.

    Parameters
    ----------
    x
        ``(n, z)`` embedding, cells of all layers stacked.
    omics
        ``(n,)`` layer of each row.
    n_neighbors
        Neighbours of a cell, itself not counted.
    n_samples
        Cells drawn for each pool; ``None`` takes every cell once, which gives the value that pools estimate.
    n_pools
        Draws to average over.
    normalize
        Divide the entropy by that of even shares, ``log(n_layers)``; otherwise it is in nats, 0 to ``log(n_layers)``.
    random_state
        Seed of the draws and of the order of ties.
    device
        As in :func:`mean_average_precision`.

    Raises
    ------
    ScmambaError
        If ``x`` is not finite, if layers are missing, of another number or all the same, if there are not more cells
        than neighbours, or for a number of draws below 1.

    Notes
    -----
    Equation 16 lacks the minus sign, a base and a scale; the sum over regions in its text is a mean. Here the entropy
    is divided by its largest value, so that the base cancels and scores of two and of three layers can be compared.

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
    rows, weight = _draw_pools(len(x), n_samples, n_pools, random_state)
    overall = torch.as_tensor(np.bincount(codes) / len(codes), device=x.device)  # (layers,)
    share = torch.cat([counts / k for _, counts in _layer_counts(x, codes, k, rows, random_state)])  # (m, layers)
    share = share / overall
    share = share / share.sum(dim=1, keepdim=True)
    entropy = torch.special.entr(share).sum(dim=1).cpu().numpy()
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
    """Seurat alignment score: how few neighbours of a cell are of its own omics layer (equation 17; [Butler18]_).

    0 to 1, higher is better; 1 means that a cell has no more neighbours of its own layer than of each other one.

    Parameters
    ----------
    x
        ``(n, z)`` embedding, cells of all layers stacked.
    omics
        ``(n,)`` layer of each row.
    neighbor_frac
        Neighbours of a cell as a share of the cells kept, at least one; the paper's 1 %.
    n_repeats
        How often cells are drawn, as many of every layer as the smallest has. Layers of equal size need no draw and
        are scored once.
    max_queries, random_state, device
        As in :func:`mean_average_precision`.

    Raises
    ------
    ScmambaError
        If ``x`` is not finite, if layers are missing, of another number or all the same, if a layer has one cell, or if
        there are not more cells than neighbours.

    Notes
    -----
    The mean in equation 17 is that of the neighbours from the cell's own layer. The score exceeds 1, and is clipped,
    where cells have fewer of these than of others, as with two copies of one cloud.

    References
    ----------
    .. [Butler18] Butler et al., Integrating single-cell transcriptomic data across different conditions, technologies,
       and species, Nature Biotechnology 2018.

    Examples
    --------
    >>> metrics.seurat_alignment(np.eye(2).repeat(20, axis=0), ["rna"] * 20 + ["atac"] * 20)  # layers lie apart
    0.0
    """
    x = as_matrix(x, "x", device)
    codes = label_codes(omics, len(x), "omics")
    sizes = np.bincount(codes)
    if n_repeats < 1:
        raise ScmambaError(f"n_repeats must be at least 1; got {n_repeats}.")
    if sizes.min() < 2:
        raise ScmambaError(
            "A layer of omics has one cell: with one cell of each layer, none has neighbours of its own layer."
        )
    rng = np.random.default_rng(random_state)
    scores = []
    for _ in range(1 if sizes.min() == sizes.max() else n_repeats):
        drawn = [rng.choice(np.flatnonzero(codes == code), sizes.min(), replace=False) for code in range(len(sizes))]
        kept = np.sort(np.concatenate(drawn))
        k = resolve_k(None, neighbor_frac, len(kept))
        queries = query_rows(len(kept), max_queries, random_state)
        own = _mean_own_neighbors(x[torch.as_tensor(kept, device=x.device)], codes[kept], k, queries, random_state)
        even = k / len(sizes)
        scores.append(min(1.0, 1 - (own - even) / (k - even)))
    return float(np.mean(scores))


def _draw_pools(n: int, n_samples: int | None, n_pools: int, random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the cells in any of the pools, each once, and how often each was drawn."""
    if n_samples is None:
        return np.arange(n), np.ones(n)
    rng = np.random.default_rng(random_state)
    drawn = [rng.choice(n, min(n_samples, n), replace=False) for _ in range(n_pools)]
    return np.unique(np.concatenate(drawn), return_counts=True)


def _mean_own_neighbors(x: Tensor, codes: np.ndarray, k: int, rows: np.ndarray, random_state: int) -> float:
    """Mean number of neighbours from a cell's own layer."""
    own = [
        counts[torch.arange(len(block)), torch.as_tensor(codes[block])]
        for block, counts in _layer_counts(x, codes, k, rows, random_state)
    ]
    return float(torch.cat(own).mean())


def _layer_counts(
    x: Tensor, codes: np.ndarray, k: int, rows: np.ndarray, random_state: int
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Neighbours from each layer around some of the cells: positions ``(b,)``, counts ``(b, layers)`` float64."""
    (points,) = prepare(x)
    one_hot = torch.nn.functional.one_hot(torch.as_tensor(codes, device=x.device)).double()
    for block, found in nearest(points, k, rows, random_state):
        yield block, torch.stack([layer[found].sum(dim=1) for layer in one_hot.T], dim=1)
