"""One-to-one matching: one reference for each query, none of them twice."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment


def assign(queries: np.ndarray, references: np.ndarray, block_size: int) -> np.ndarray:
    """Position of the reference given to each query, ``(n,)`` int64, -1 where none is left.

    Up to ``block_size ** 2`` pairs get the assignment with the largest sum of cosines. More pairs are cut into blocks of
    that size, each assigned by itself: both sides are halved along the direction in which they vary most, queries at
    their median and references at the same quantile. Where there are at least as many references as queries, this holds
    in every block, so that every query gets one. Memory is ``block_size ** 2`` entries.

    Parameters
    ----------
    queries, references
        ``(n, z)`` and ``(m, z)`` unit vectors.
    """
    out = np.full(len(queries), -1, dtype=np.int64)
    stack = [(np.arange(len(queries)), np.arange(len(references)))]
    while stack:
        q, r = stack.pop()
        if not len(q) or not len(r):
            continue
        if len(q) == 1 or len(q) * len(r) <= block_size**2:
            of_query, of_reference = linear_sum_assignment(queries[q] @ references[r].T, maximize=True)
            out[q[of_query]] = r[of_reference]
        else:
            stack += _halves(queries, references, q, r)
    return out


def _halves(
    queries: np.ndarray, references: np.ndarray, q: np.ndarray, r: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions ``q`` and ``r`` of both sides, as two blocks along their common main direction."""
    centred = np.concatenate([x - x.mean(0) for x in (queries[q].astype(np.float64), references[r].astype(np.float64))])
    direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    n_q = len(q) // 2
    n_r = round(len(r) * n_q / len(q))
    q = q[np.argsort(queries[q] @ direction, kind="stable")]
    r = r[np.argsort(references[r] @ direction, kind="stable")]
    return [(q[:n_q], r[:n_r]), (q[n_q:], r[n_r:])]
