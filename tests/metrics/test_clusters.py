from __future__ import annotations

from math import comb, log

import numpy as np
import pytest
import torch

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import leiden_ari_nmi
from scmamba_scvi.metrics.graph import neighbor_graph


def rand_index_by_pairs(a, b):
    """Adjusted Rand index from the contingency table."""
    table = np.array([[np.sum((a == u) & (b == v)) for v in set(b)] for u in set(a)])
    together = sum(comb(int(c), 2) for c in table.ravel())
    rows, columns = (sum(comb(int(c), 2) for c in table.sum(axis=axis)) for axis in (1, 0))
    chance = rows * columns / comb(len(a), 2)
    return (together - chance) / ((rows + columns) / 2 - chance)


def information_by_sums(a, b):
    """Mutual information over the mean of the entropies."""
    p = np.array([[np.mean((a == u) & (b == v)) for v in set(b)] for u in set(a)])
    pa, pb = p.sum(axis=1), p.sum(axis=0)
    mutual = sum(p[i, j] * log(p[i, j] / pa[i] / pb[j]) for i in range(len(pa)) for j in range(len(pb)) if p[i, j] > 0)
    return mutual / ((-sum(pa * np.log(pa)) - sum(pb * np.log(pb))) / 2)


def blobs(n=240, distance=4.0):
    types = np.arange(n) % 4
    return np.random.default_rng(0).normal(size=(n, 5)) + distance * np.eye(4, 5)[types], types


def test_scores_are_the_definitions_at_each_resolution():
    import scanpy as sc

    x, types = blobs(distance=2.0)
    cells, found = neighbor_graph(torch.as_tensor(x), 15, 0), []
    for resolution in (0.2, 0.6, 1.4):
        sc.tl.leiden(cells, resolution=resolution, flavor="igraph", n_iterations=2, directed=False, random_state=0)
        clusters = cells.obs["leiden"].to_numpy()
        ours = leiden_ari_nmi(x, types, [resolution], n_seeds=1)
        found.append((rand_index_by_pairs(types, clusters), information_by_sums(types, clusters)))
        assert (ours.ari, ours.nmi) == pytest.approx(found[-1], abs=1e-9)
    # of several resolutions each score takes its own best
    ours = leiden_ari_nmi(x, types, [0.2, 0.6, 1.4], n_seeds=1)
    assert (ours.ari, ours.nmi) == pytest.approx(np.max(found, axis=0), abs=1e-9)


def test_scores_are_means_over_seeds_at_the_best_resolution():
    x, types = blobs(distance=1.5)
    # the ties that the first seed orders are none here
    seeds, resolutions = range(3), [0.5, 2.0]
    values = np.array(
        [[leiden_ari_nmi(x, types, [r], n_seeds=1, random_state=s).ari for r in resolutions] for s in seeds]
    )
    found = leiden_ari_nmi(x, types, resolutions, n_seeds=3)
    best = values.mean(axis=0).argmax()
    assert found.ari == pytest.approx(values[:, best].mean())
    assert found.ari_std == pytest.approx(values[:, best].std())


def test_types_that_lie_apart_are_recovered_and_the_seed_decides():
    x, types = blobs(distance=20.0)
    names = np.array(["d", "a", "c", "b"])[types]
    found = leiden_ari_nmi(x, names)
    assert (found.ari, found.nmi) == pytest.approx((1, 1))
    assert found == leiden_ari_nmi(x, names) == leiden_ari_nmi(x, names, np.arange(0.1, 2.01, 0.1))


X, TYPES = blobs(24)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: leiden_ari_nmi(X * np.nan, TYPES), "24 of 24 rows", id="nan"),
        pytest.param(lambda: leiden_ari_nmi(X, TYPES[:5]), r"shape \(5,\)", id="length"),
        pytest.param(lambda: leiden_ari_nmi(X, TYPES, n_neighbors=24), "1 to 23 neighbours", id="few_cells"),
        pytest.param(lambda: leiden_ari_nmi(X, TYPES, [0.0, 1.0]), "above 0", id="resolution_0"),
        pytest.param(lambda: leiden_ari_nmi(X, TYPES, []), "at least one", id="no_resolution"),
        pytest.param(lambda: leiden_ari_nmi(X, TYPES, n_seeds=0), "n_seeds", id="no_seed"),
        pytest.param(lambda: leiden_ari_nmi(X, TYPES, n_seeds=2.5), "n_seeds must be a whole number", id="half_a_seed"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(call, message):
    with pytest.raises(ScmambaError, match=message):
        call()
