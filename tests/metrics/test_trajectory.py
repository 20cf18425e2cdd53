from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import diffusion_pseudotime, pseudotime_consistency, trajectory_conservation
from scmamba_scvi.metrics.graph import neighbor_graph


def spearman_by_ranks(a, b):
    """Pearson's correlation of mean ranks."""
    ranks = [[np.sum(v < u) + (np.sum(v == u) + 1) / 2 for u in v] for v in (a, b)]
    return np.corrcoef(ranks)[0, 1]


def pseudotime_by_eigenvectors(x, root, n_neighbors, n_dcs):
    """Diffusion pseudotime in float64 from all eigenvectors of the whole matrix."""
    w = neighbor_graph(torch.as_tensor(x), n_neighbors, 0).obsp["connectivities"].toarray().astype(float)
    density = w.sum(axis=0)
    k = w / np.outer(density, density)
    z = np.sqrt(k.sum(axis=0))
    values, vectors = np.linalg.eigh(k / np.outer(z, z))
    values, vectors = values[::-1][1:n_dcs], vectors[:, ::-1][:, 1:n_dcs]  # the first one is the stationary state
    steps = values / (1 - values) * vectors
    return steps, np.linalg.norm(steps - steps[root], axis=1)


@pytest.fixture(scope="module")
def curve():
    """Cells along an arc, and where on it."""
    rng = np.random.default_rng(0)
    place = np.sort(rng.random(150))
    return np.c_[np.cos(3 * place), np.sin(3 * place)] + 0.02 * rng.normal(size=(150, 2)), place


def test_pseudotime_finds_the_order_of_an_arc(curve):
    x, place = curve
    time = diffusion_pseudotime(x, 0, n_neighbors=12)
    assert time.dtype == np.float64 and time[0] == 0 and time.max() == 1
    assert trajectory_conservation(place, time) > 0.99
    assert trajectory_conservation(place, diffusion_pseudotime(x, 149, n_neighbors=12)) < 0.01  # from the other end
    assert pseudotime_consistency(place, time) > 0.9


def test_pseudotime_is_the_definition(curve):
    x, _ = curve
    _, expected = pseudotime_by_eigenvectors(x, 3, 12, 10)
    np.testing.assert_allclose(diffusion_pseudotime(x, 3, n_neighbors=12), expected / expected.max(), atol=2e-3)


def test_cells_without_a_path_to_the_root_have_no_pseudotime(curve):
    x, place = curve
    time = diffusion_pseudotime(np.concatenate([x, x + 50]), 0, n_neighbors=12)
    assert np.isnan(time[150:]).all() and np.isfinite(time[:150]).all()
    with pytest.warns(UserWarning, match="150 of 300 cells lack a pseudotime"):
        assert trajectory_conservation(np.tile(place, 2), time) == trajectory_conservation(place, time[:150])
    with pytest.warns(UserWarning, match="left out"):
        pseudotime_consistency(np.where(np.isnan(time), np.inf, time), np.tile(place, 2))


def test_correlations_are_the_definitions():
    rng = np.random.default_rng(2)
    a = rng.integers(0, 20, 80)  # with ties
    b = a + rng.normal(size=80) * 6
    assert trajectory_conservation(a, b) == pytest.approx((spearman_by_ranks(a, b) + 1) / 2, abs=1e-12)
    assert pseudotime_consistency(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12)
    order = rng.permutation(80)
    assert trajectory_conservation(a[order], b[order]) == pytest.approx(trajectory_conservation(a, b))


def test_columns_that_name_their_cells_are_aligned_by_name():
    time = pd.Series([0.0, 0.2, 0.7, 1.0], index=["c1", "c2", "c3", "c4"])
    assert trajectory_conservation(time, time[::-1]) == pseudotime_consistency(time[::-1], time) == pytest.approx(1)
    with pytest.raises(ScmambaError, match="b names other cells: it lacks 1 of 4, such as 'c1'"):
        pseudotime_consistency(time, time.set_axis(["c2", "c3", "c4", "c5"]))


X = np.random.default_rng(4).normal(size=(40, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: diffusion_pseudotime(X * np.nan, 0), "40 of 40 rows", id="nan"),
        pytest.param(lambda: diffusion_pseudotime(X, 40), "0 to 39", id="root_beyond"),
        pytest.param(lambda: diffusion_pseudotime(X, -1), "0 to 39", id="root_from_the_end"),
        pytest.param(lambda: diffusion_pseudotime(X, "HSC"), "position of a cell", id="root_by_name"),
        pytest.param(lambda: diffusion_pseudotime(X, True), "position of a cell", id="root_by_mask"),
        pytest.param(lambda: diffusion_pseudotime(X[:20], 0), "1 to 19 neighbours", id="few_cells"),
        pytest.param(lambda: diffusion_pseudotime(np.full((40, 3), 0.1), 0), "at one point", id="all_at_one_point"),
        pytest.param(lambda: trajectory_conservation([1, 2, 3], [1, 2]), r"\(3,\) and \(2,\)", id="lengths"),
        pytest.param(lambda: trajectory_conservation([1, 2, np.nan], [1, 2, 3]), "2 of 3 cells", id="two_left"),
        pytest.param(lambda: trajectory_conservation([1, 1, 1], [1, 2, 3]), "before is 1 for all", id="constant"),
        pytest.param(lambda: pseudotime_consistency([1, 2, 3], [2, 2, 2]), "b is 2 for all", id="constant_b"),
        pytest.param(lambda: pseudotime_consistency(X, X), "one pseudotime per cell", id="matrices"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(call, message):
    with pytest.raises(ScmambaError, match=message):
        call()
