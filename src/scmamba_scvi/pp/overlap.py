"""Matching of intervals: which interval of a reference each interval of a query overlaps most."""

import numpy as np

from .coordinates import Coordinates, chromosome_key


def best_overlaps(query: Coordinates, reference: Coordinates) -> np.ndarray:
    """Position in ``reference`` of the interval that shares most bases with each query interval, int64 ``(f,)``.

    Of equal overlaps the shortest interval is taken, so that an interval finds itself inside of a longer one, then the first
    in genome order; -1 stands for none. Intervals are half-open, of one genome build;
    those of the reference may overlap each other. Chromosomes are the same with and without ``chr``.
    """
    out = np.full(len(query.chrom), -1, dtype=np.int64)
    keys = {chromosome_key(name): i for i, name in enumerate(reference.chroms)}
    # chromosome of each query interval, numbered as in the reference
    q_chrom = np.array([keys.get(chromosome_key(name), -1) for name in query.chroms] + [-1])[query.chrom]
    asked, known = np.flatnonzero(q_chrom >= 0), np.flatnonzero(reference.placed)
    if not len(asked) or not len(known):
        return out
    # chromosomes laid end to end, so that one search serves all of them
    stride = 1 + max(int(query.end[asked].max()), int(reference.end[known].max()))
    offset = reference.chrom[known] * stride
    start, end = offset + reference.start[known], offset + reference.end[known]
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    q_offset = q_chrom[asked] * stride
    q_start, q_end = q_offset + query.start[asked], q_offset + query.end[asked]
    # what can overlap is a run of neighbours: it begins where the largest end so far passes the start of the query, and
    # ends before the first interval that starts at the end of the query or beyond
    first = np.searchsorted(np.maximum.accumulate(end), q_start, side="right")
    n_near = np.maximum(np.searchsorted(start, q_end, side="left") - first, 0)
    row = np.repeat(np.arange(len(asked)), n_near)
    near = np.arange(len(row)) - np.repeat(np.cumsum(n_near) - n_near, n_near) + first[row]
    shared = np.minimum(end[near], q_end[row]) - np.maximum(start[near], q_start[row])
    row, near, shared = row[shared > 0], near[shared > 0], shared[shared > 0]
    by_row = np.lexsort((near, end[near] - start[near], -shared, row))  # within a row the largest overlap first
    best = by_row[np.r_[True, row[by_row][1:] != row[by_row][:-1]]] if len(row) else by_row
    out[asked[row[best]]] = known[order[near[best]]]
    return out
