"""Are the modalities, or the batches, mixed around a cell?"""

from typing import Final

import numpy as np
import torch
from scipy.special import entr

from ..errors import ScmambaError
from ._labels import Labels, label_codes
from ._matching import check_pairs
from .distances import Matrix, as_matrix, query_rows, resolve_k
from .graph import nearest

#: Of fewer neighbours scores of mixing are coarse.
FEWEST_NEIGHBORS: Final = 15
#: Neighbours have to be near: among more of the rows than this even modalities that lie apart look mixed.
LARGEST_FRACTION: Final = 0.25
#: How often `seurat_alignment` draws cells.
N_DRAWS: Final = 4


def omics_entropy_mixing(
    x: Matrix,
    omics: Labels,
    n_neighbors: int | None = None,
    *,
    max_queries: int | None = None,
    random_state: int = 0,
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
        Neighbours of a cell, itself not counted. ``None``: the paper's 1 % of the rows, so that scores of few and of many
        cells compare, but at least 15.
    max_queries, random_state
        As in :func:`knn_accuracy`. The paper averages over 100 draws of 100 cells, which estimates the mean of all.

    Returns
    -------
    The score, a float.

    Raises
    ------
    ScmambaError
        There is one modality only, or there are more neighbours than a quarter of the rows: among so many every
        embedding looks mixed.

    Notes
    -----
    Equation 16 lacks the minus sign, a base and a scale; the sum over regions in its text is a mean. Here the entropy
    is divided by its largest value, so that the base cancels and scores of two and of three modalities can be compared.
    Few neighbours are never quite even: a perfect mix of two modalities has 0.95 among 15 and 0.99 among 100.

    Examples
    --------
    >>> apart = np.eye(2).repeat(20, axis=0)
    >>> omics = ["rna"] * 20 + ["atac"] * 20
    >>> metrics.omics_entropy_mixing(apart, omics, n_neighbors=10)
    0.0
    """
    x = as_matrix(x)
    codes = label_codes(omics, len(x), "omics")
    k = resolve_k(n_neighbors, len(x), FEWEST_NEIGHBORS)
    if k > LARGEST_FRACTION * len(x):
        raise ScmambaError(
            f"{k:,} neighbours need {int(k / LARGEST_FRACTION):,} rows; got {len(x):,}: among most of the rows every "
            f"embedding looks mixed."
        )
    overall = np.bincount(codes) / len(codes)  # (modalities,)
    around = _counts(x, codes, k, max_queries, random_state)[1] / overall  # (m, modalities)
    entropy = entr(around / around.sum(axis=1, keepdims=True)).sum(axis=1).mean()
    return float(entropy / np.log(len(overall)))


def other_modality(
    x: Matrix, y: Matrix, *, n_neighbors: int = 15, max_queries: int | None = None, random_state: int = 0
) -> np.ndarray:
    """Fraction of the nearest cells that are of the other modality, for each cell: do the modalities lie together here?

    Parameters
    ----------
    x, y
        ``(n, z)`` embeddings of the same cells, one per modality, in one space.
    n_neighbors
        Neighbours among the ``2 n`` points, the point itself not counted; 15 as in most neighbour graphs.
    max_queries
        Ask this many cells, drawn at random, for their neighbours among all. ``None``: all of them.
    random_state
        Seed of the draw and of the order of ties.

    Returns
    -------
    Float64 ``(n,)``, the mean over the two points of a cell: 0.5 is a perfect mix, 0 two modalities that lie apart. NaN for
    a cell that was not asked.

    Raises
    ------
    ScmambaError
        ``x`` and ``y`` are not of the same cells (see :func:`true_match_ranks`), or are fewer points than ``n_neighbors``
        asks for.

    Examples
    --------
    >>> float(metrics.other_modality(np.eye(20), np.eye(20) + 5).mean())
    0.0
    """
    return of_other_modality(x, y, query_rows(len(x), max_queries, random_state), n_neighbors, random_state)


def of_other_modality(x: Matrix, y: Matrix, asked: np.ndarray, n_neighbors: int, random_state: int) -> np.ndarray:
    """`other_modality` of the cells at the positions ``asked``, NaN of the others."""
    x, y = check_pairs(x, y)
    n = len(x)
    stacked, modality = torch.cat([x, y]), np.repeat([0, 1], n)
    k = resolve_k(n_neighbors, len(stacked))
    blocks = nearest(stacked, k, np.concatenate([asked, n + asked]), random_state)
    fractions = np.concatenate([(modality[found] != modality[rows, None]).mean(axis=1) for rows, found in blocks])
    of_cells = np.full(n, np.nan)
    of_cells[asked] = fractions.reshape(2, len(asked)).mean(axis=0)
    return of_cells


def seurat_alignment(
    x: Matrix,
    omics: Labels,
    n_neighbors: int | None = None,
    *,
    max_queries: int | None = None,
    random_state: int = 0,
) -> float:
    """Seurat alignment score: how few neighbours of a cell are of its own modality (equation 17; [Butler18]_).

    0 to 1, higher is better; 1 means that a cell has no more neighbours of its own modality than of each other one.

    Parameters
    ----------
    n_neighbors
        Neighbours of a cell, itself not counted. ``None``: the paper's 1 % of the cells kept, but at least 15, or all there
        are.
    x, omics, max_queries, random_state
        As in :func:`omics_entropy_mixing`.

    Returns
    -------
    The score, a float.

    Raises
    ------
    ScmambaError
        There is one modality only, or one of them has a single cell.

    Notes
    -----
    The mean in equation 17 is that of the neighbours from the cell's own modality. The score exceeds 1, and is clipped,
    where cells have fewer of these than of others, as with two copies of one cloud. As many cells of every modality are
    drawn as the smallest has, four times, unless all are of one size.

    References
    ----------
    .. [Butler18] Butler et al., Integrating single-cell transcriptomic data across different conditions, technologies,
       and species, Nature Biotechnology 2018.

    Examples
    --------
    >>> apart = np.eye(2).repeat(20, axis=0)
    >>> metrics.seurat_alignment(apart, ["rna"] * 20 + ["atac"] * 20)
    0.0
    """
    x = as_matrix(x)
    codes = label_codes(omics, len(x), "omics")
    sizes = np.bincount(codes)
    if sizes.min() < 2:
        raise ScmambaError(
            "A modality of omics has one cell: with one cell of each modality, none has neighbours of its own."
        )
    rng = np.random.default_rng(random_state)
    scores = []
    for _ in range(1 if sizes.min() == sizes.max() else N_DRAWS):
        drawn = [rng.choice(np.flatnonzero(codes == code), sizes.min(), replace=False) for code in range(len(sizes))]
        kept = np.sort(np.concatenate(drawn))
        k = resolve_k(n_neighbors, len(kept), FEWEST_NEIGHBORS)
        rows, counts = _counts(x[kept], codes[kept], k, max_queries, random_state)
        own = counts[np.arange(len(rows)), codes[kept][rows]].mean()
        even = k / len(sizes)
        scores.append(min(1.0, 1 - (own - even) / (k - even)))
    return float(np.mean(scores))


def _counts(
    x: Matrix, codes: np.ndarray, k: int, max_queries: int | None, random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows asked about ``(m,)``, and how many of the ``k`` neighbours of each have each code ``(m, codes)``."""
    rows, n_codes = query_rows(len(x), max_queries, random_state), codes.max() + 1
    blocks = (codes[found] for _, found in nearest(x, k, rows, random_state))
    return rows, np.concatenate([np.stack([(of == c).sum(axis=1) for c in range(n_codes)], axis=1) for of in blocks])
