"""Which peaks lie on which gene: the prior knowledge that some methods need."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

#: Base pairs before a gene's start that count as its promoter.
PROMOTER = 2_000


def genes_by_peaks(genes: pd.DataFrame, peaks: pd.DataFrame) -> sparse.csr_matrix:
    """1 where a peak overlaps the gene's body or its promoter, ``(genes, peaks)``; from the coordinates in ``var``."""
    from scmamba_scvi.pp.coordinates import chromosome_key, parse_coordinates

    g, p = parse_coordinates(genes), parse_coordinates(peaks)
    forward = genes["strand"].astype(str).ne("-").to_numpy() if "strand" in genes else np.ones(len(genes), bool)
    start = np.where(forward, g.start - PROMOTER, g.start)
    end = np.where(forward, g.end, g.end + PROMOTER)
    of_gene = np.array([chromosome_key(c) if c else "" for c in g.names()], dtype=object)
    of_peak = np.array([chromosome_key(c) if c else "" for c in p.names()], dtype=object)
    rows, columns = [], []
    for chromosome in sorted(set(of_gene) - {""}):
        on = np.flatnonzero(of_peak == chromosome)
        on = on[np.argsort(p.start[on], kind="stable")]
        widest = (p.end[on] - p.start[on]).max(initial=0)
        for i in np.flatnonzero(of_gene == chromosome):
            # peaks that start within the widest peak's reach are candidates; their ends decide
            first, last = np.searchsorted(p.start[on], [start[i] - widest, end[i]])
            hits = on[first:last][p.end[on[first:last]] > start[i]]
            rows.append(np.full(len(hits), i))
            columns.append(hits)
    row, column = (np.concatenate(parts) if parts else np.zeros(0, int) for parts in (rows, columns))
    return sparse.csr_matrix((np.ones(len(row)), (row, column)), shape=(len(genes), len(peaks)))
