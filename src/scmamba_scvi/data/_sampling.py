"""Sparse counts of cells that mix programs, sampled without a dense matrix of rates."""

from typing import Final

import numpy as np
from scipy import sparse

#: Entries of a program's table per feature: weights below a sixteenth of the mean weight are rounded.
TABLE_ENTRIES_PER_FEATURE: Final = 16
#: Cells drawn at a time; their draws are sorted together, a few tens of MB.
BLOCK: Final = 512


def sample_mixture(
    rng: np.random.Generator, mixture: np.ndarray, programs: np.ndarray, n_counts: np.ndarray
) -> sparse.csr_matrix:
    """Multinomial counts of cells that mix programs, float32 ``(n, f)`` with sorted indices.

    Each count first draws its program from the cell's ``mixture`` ``(n, k)``, then its feature from ``programs`` ``(k, f)``,
    rows of both summing to one: time and memory follow the number of counts ``n_counts`` ``(n,)``, not cells times features.
    """
    if not len(mixture):  # a batch may have no cell with the modality
        return sparse.csr_matrix((0, programs.shape[1]), dtype=np.float32)
    tables = [_quantile_table(program) for program in programs]
    parts = [
        _sample_block(rng, mixture[i : i + BLOCK], tables, n_counts[i : i + BLOCK], programs.shape[1])
        for i in range(0, len(mixture), BLOCK)
    ]
    return sparse.vstack(parts, format="csr")


def _quantile_table(program: np.ndarray) -> np.ndarray:
    """Features at evenly spaced quantiles of a distribution: a random entry is one draw from it, in constant time."""
    n = TABLE_ENTRIES_PER_FEATURE * np.count_nonzero(program)
    cumulative = np.cumsum(program)
    at = (np.arange(n) + 0.5) / n * cumulative[-1]
    return np.searchsorted(cumulative, at, side="right").astype(np.int32)


def _sample_block(
    rng: np.random.Generator, mixture: np.ndarray, tables: list[np.ndarray], n_counts: np.ndarray, n_features: int
) -> sparse.csr_matrix:
    n_cells = len(mixture)
    split = rng.multinomial(n_counts, mixture)  # (n, k) counts of each program
    entry = np.empty(split.sum(), dtype=np.int64)  # cell * f + feature of each count
    end = 0
    for table, of_cell in zip(tables, split.T, strict=True):
        begin, end = end, end + int(of_cell.sum())
        entry[begin:end] = np.repeat(np.arange(n_cells) * n_features, of_cell)
        entry[begin:end] += table[rng.integers(len(table), size=end - begin, dtype=np.uint32)]
    entry, counts = np.unique(entry, return_counts=True)
    at = np.divmod(entry, n_features)
    return sparse.csr_matrix((counts.astype(np.float32), at), shape=(n_cells, n_features))
