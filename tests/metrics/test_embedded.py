from __future__ import annotations

import numpy as np
import pytest

from scmamba_scvi.metrics import METRICS, _embedded, leiden_ari_nmi
from scmamba_scvi.metrics._embedded import Embedded


def embedded(**change) -> Embedded:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50, 3))
    x[:4], y[-3:] = np.nan, np.nan  # cells that lack a modality
    labels = np.array(["a", "b"] * 25, dtype=object)
    labels[10] = None
    given = {
        "joint": rng.normal(size=(50, 3)), "modalities": {"rna": x, "atac": y}, "labels": labels,
        "batches": np.full(50, None, dtype=object), "random_state": 0, "device": None,
    }  # fmt: skip
    return Embedded(**(given | change))


def test_a_pair_of_few_cells_does_not_take_the_scores_of_the_others():
    modalities = embedded().modalities
    few = np.full((50, 3), np.nan)
    few[-5:] = 1.0  # two of them have ATAC as well
    few[:1] = 1.0
    with pytest.warns(UserWarning, match=r"rna and protein \(5\)"):
        pairs = embedded(modalities={**modalities, "protein": few}).pairs
    assert [pair.modalities for pair in pairs] == [("rna", "atac")]
    only = {kind: x.copy() for kind, x in modalities.items()}
    only["atac"][10:] = np.nan
    assert len(embedded(modalities=only).pairs[0].cell) == 6


def test_clusters_are_computed_once_on_the_labelled_cells():
    e = embedded()
    known = e.labels != None  # noqa: E711  of objects
    resolutions = np.arange(1, 21) / 10
    expected = leiden_ari_nmi(e.joint[known], e.labels[known], resolutions, n_neighbors=15, n_seeds=5)
    assert e.leiden == expected and e.leiden is e.leiden
    assert (METRICS["ARI"].function(e), METRICS["NMI"].function(e)) == (expected.ari, expected.nmi)


def test_above_the_limit_neighbours_of_a_sample_are_searched(monkeypatch):
    assert embedded().cells.max_queries is None
    monkeypatch.setattr(_embedded, "ALL_QUERIES_UP_TO", 49)
    assert embedded().cells.max_queries == _embedded.N_QUERIES
