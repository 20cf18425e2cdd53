"""Scores of nearest neighbours: cell types (all but votes) and mixing; all of them on broken embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import (
    distances,
    graph_connectivity,
    mean_average_precision,
    omics_entropy_mixing,
    other_modality,
    seurat_alignment,
)

# --- second implementations, from whole distance matrices ---


def order_of_neighbours(x):
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1)[:, :-1]


def map_by_loops(x, labels, k):
    scores = []
    for i, neighbours in enumerate(order_of_neighbours(x)[:, :k]):
        hits = [labels[j] == labels[i] for j in neighbours]
        precisions = [sum(hits[: p + 1]) / (p + 1) for p in range(k) if hits[p]]
        scores.append(np.mean(precisions) if precisions else 0.0)
    return np.mean(scores)


def test_other_modality_is_counted_cell_by_cell():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    y = x + 0.5 * rng.normal(size=(40, 3)) + 0.4
    near = order_of_neighbours(np.concatenate([x, y]))[:, :15]
    of_x, of_y = (near[:40] >= 40).mean(1), (near[40:] < 40).mean(1)
    np.testing.assert_allclose(other_modality(x, y), (of_x + of_y) / 2)
    assert other_modality(x, x).mean() == pytest.approx(0.5, abs=0.05)
    assert other_modality(x, x + 100).max() == 0
    with pytest.raises(ScmambaError, match="matrices of one shape"):
        other_modality(x, y[:30])


def entropies_by_loops(x, omics, k):
    modalities = sorted(set(omics))
    overall = np.array([np.mean(np.array(omics) == modality) for modality in modalities])
    out = []
    for neighbours in order_of_neighbours(x)[:, :k]:
        p = np.array([np.mean([omics[j] == modality for j in neighbours]) for modality in modalities]) / overall
        p = p / p.sum()
        out.append(-sum(v * np.log(v) for v in p if v > 0))
    return np.array(out)


def alignment_by_loops(x, omics, k, n_modalities):
    own = np.mean([np.sum(omics[row] == omics[i]) for i, row in enumerate(order_of_neighbours(x)[:, :k])])
    return min(1.0, 1 - (own - k / n_modalities) / (k - k / n_modalities))


def connectivity_by_walking(x, labels, k):
    n, neighbours = len(x), order_of_neighbours(x)[:, :k]
    joined = np.zeros((n, n), dtype=bool)
    joined[np.arange(n)[:, None], neighbours] = True
    joined |= joined.T
    scores = []
    for label in set(labels):
        left, largest = set(np.flatnonzero(labels == label).tolist()), 0
        size = len(left)
        while left:
            part, front = 0, [left.pop()]
            while front:
                part, i = part + 1, front.pop()
                reached = {j for j in left if joined[i, j]}
                left -= reached
                front += reached
            largest = max(largest, part)
        scores += [largest / size] if size > 1 else []
    return np.mean(scores)


@pytest.fixture
def stacked():
    """Two unequal modalities of three types that overlap."""
    rng = np.random.default_rng(0)
    types = rng.integers(0, 3, 150)
    omics = np.array(["rna"] * 90 + ["atac"] * 60)
    x = rng.normal(size=(150, 4)) + 1.5 * np.eye(3, 4)[types] + 0.7 * (omics == "atac")[:, None]
    return x, types, omics


# --- against the definitions ---


@pytest.mark.parametrize("k", [1, 7, 149])
def test_map_is_the_definition(stacked, k):
    x, types, _ = stacked
    assert mean_average_precision(x, types, n_neighbors=k) == pytest.approx(map_by_loops(x, types, k), abs=1e-12)


@pytest.mark.parametrize(("n", "fewest_10", "fewest_15"), [(150, 10, 15), (1_200, 12, 15), (2_000, 20, 20)])
def test_neighbours_are_one_in_a_hundred_cells_but_not_few(n, fewest_10, fewest_15):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(n, 3)), np.arange(n) % 2
    assert mean_average_precision(x, labels) == mean_average_precision(x, labels, n_neighbors=fewest_10)
    for score in (omics_entropy_mixing, seurat_alignment):
        assert score(x, labels) == score(x, labels, n_neighbors=fewest_15)


def test_entropy_mixing_is_the_definition(stacked):
    x, types, omics = stacked
    for modalities in (omics, types):  # two and three modalities
        expected = entropies_by_loops(x, modalities, 20).mean() / np.log(len(set(modalities)))
        ours = omics_entropy_mixing(x, modalities, n_neighbors=20)
        assert ours == pytest.approx(expected, abs=1e-12)


def test_entropy_of_modalities_apart_is_zero_on_few_cells_or_refused():
    apart, omics = np.repeat([[0.0], [9.0]], 60, axis=0), np.repeat(["rna", "atac"], 60)
    assert omics_entropy_mixing(apart, omics) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ScmambaError, match="100 neighbours need 400 rows"):  # it would be 0.968 for any embedding
        omics_entropy_mixing(apart, omics, n_neighbors=100)


def test_alignment_is_the_definition(stacked):
    x, _, omics = stacked
    kept = np.r_[:60, 90:150]
    for k in (24, 60):
        expected = alignment_by_loops(x[kept], omics[kept], k, 2)
        assert seurat_alignment(x[kept], omics[kept], k) == pytest.approx(expected, abs=1e-12)


def test_fewer_rows_than_the_fewest_neighbours_are_all_of_them():
    x, types = np.random.default_rng(0).normal(size=(6, 3)), list("TTTBBB")
    assert mean_average_precision(x, types) == mean_average_precision(x, types, n_neighbors=5)
    assert seurat_alignment(x, types) == pytest.approx(1)  # 2 of its own and 3 of the other: clipped


def test_alignment_draws_modalities_down_to_the_smallest():
    # 20 cells of one modality in a crowd of 980: without drawing, nearly all neighbours are of the crowd
    x = np.random.default_rng(2).normal(size=(1000, 3))
    omics = np.repeat(["few", "many"], [20, 980])
    assert np.mean([seurat_alignment(x, omics, random_state=seed) for seed in range(8)]) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("k", [1, 3, 15])
def test_connectivity_is_the_definition(stacked, k):
    x, types, _ = stacked
    assert graph_connectivity(x, types, n_neighbors=k) == pytest.approx(connectivity_by_walking(x, types, k), abs=1e-12)


def test_scores_agree_with_scglue(stacked):
    metrics = pytest.importorskip("scglue.metrics")
    x, types, omics = stacked
    kept = np.r_[:60, 90:150]
    x, types, omics = x[kept], types[kept], omics[kept]
    ours = mean_average_precision(x, types, n_neighbors=12)
    assert ours == pytest.approx(metrics.mean_average_precision(x, types, neighbor_frac=0.1), abs=1e-6)
    theirs = metrics.seurat_alignment_score(x, omics, neighbor_frac=0.2, n_repeats=1)
    assert seurat_alignment(x, omics, n_neighbors=24) == pytest.approx(theirs, abs=1e-6)
    # scanpy's 15 neighbours count the cell
    theirs = metrics.graph_connectivity(x, types)
    assert graph_connectivity(x, types, n_neighbors=14) == pytest.approx(theirs, abs=1e-6)


# --- properties ---

SCORES = [
    pytest.param(lambda x, t, o: mean_average_precision(x, t, n_neighbors=9), id="map"),
    pytest.param(lambda x, t, o: omics_entropy_mixing(x, o, n_neighbors=9), id="entropy"),
    pytest.param(lambda x, t, o: seurat_alignment(x, t, n_neighbors=9), id="alignment"),
    pytest.param(lambda x, t, o: graph_connectivity(x, t, n_neighbors=3), id="connectivity"),
]


@pytest.mark.parametrize("score", SCORES)
def test_names_shifts_and_blocks_do_not_matter(stacked, score, monkeypatch):
    x, types, omics = stacked
    types = np.arange(150) % 3  # of equal size, or the alignment would draw cells
    expected = score(x, types, omics)
    assert 0 < expected <= 1
    assert score(x + 50, np.array(["c", "a", "b"])[types], omics) == pytest.approx(expected, abs=1e-9)
    monkeypatch.setattr(distances, "BLOCK_ENTRIES", 150 * 7)
    assert score(x, types, omics) == pytest.approx(expected, abs=1e-12)


def test_a_sample_of_queries_estimates_the_score_of_all():
    rng = np.random.default_rng(5)
    types, omics = rng.integers(0, 4, 900), np.arange(900) % 2
    x = rng.normal(size=(900, 4)) + np.eye(4)[types]
    for score, labels in ((mean_average_precision, types), (seurat_alignment, omics), (omics_entropy_mixing, omics)):
        exact = score(x, labels)
        assert score(x, labels, max_queries=400) == pytest.approx(exact, abs=0.06)
        assert score(x, labels, max_queries=900) == exact


def test_copies_of_a_cell_are_its_neighbours_but_it_is_not():
    rng = np.random.default_rng(6)
    x = np.repeat(rng.normal(size=(30, 4)), 2, axis=0)
    labels = np.repeat(np.arange(30), 2)
    assert mean_average_precision(x, labels, n_neighbors=1) == 1  # the copy, never the cell
    assert mean_average_precision(x, np.arange(60) % 2, n_neighbors=1) == 0
    # both modalities are at the same places: no neighbour is of the own modality, and the score is clipped
    assert seurat_alignment(x, np.arange(60) % 2) == 1


# --- broken embeddings ---


def test_all_cells_at_one_point_score_as_chance_and_as_mixed():
    rng = np.random.default_rng(7)
    types, omics = np.repeat([0, 1, 2, 3], 250), np.arange(1000) % 2
    order = rng.permutation(1000)
    for x in (np.zeros((1000, 3)), np.full((1000, 3), 0.1)):
        # rows are sorted by type: if ties kept the order of the rows, neighbours would be of the own type
        assert mean_average_precision(x, types, n_neighbors=100) == pytest.approx(0.25, abs=0.05)
        assert mean_average_precision(x[order], types[order], n_neighbors=100) == pytest.approx(0.25, abs=0.05)
        # one point is perfectly mixed; only scores of types can tell what is wrong with it
        assert omics_entropy_mixing(x, omics, n_neighbors=100) > 0.98
        assert omics_entropy_mixing(x, omics) == pytest.approx(0.95, abs=0.01)  # of 15 neighbours
        assert seurat_alignment(x, omics, n_neighbors=100) == pytest.approx(1, abs=0.02)
        assert graph_connectivity(x, types) > 0.95


# --- faults ---

X = np.random.default_rng(11).normal(size=(6, 2))
NAN = np.where(np.arange(6)[:, None] == 2, np.nan, X)
AB = ["a", "b"] * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: mean_average_precision(NAN, AB), "1 of 6 rows of x are not finite", id="nan"),
        pytest.param(lambda: mean_average_precision(X, AB[:5]), r"cell_type .* 6 rows of x; got shape \(5,\)", id="length"),
        pytest.param(lambda: mean_average_precision(X, AB, n_neighbors=6), "1 to 5 neighbours", id="k_is_n"),
        pytest.param(lambda: omics_entropy_mixing(X, AB), "5 neighbours need 20 rows; got 6", id="entropy_few_cells"),
        pytest.param(lambda: omics_entropy_mixing(X, ["a"] * 6, n_neighbors=2), "at least 2", id="one_modality"),
        pytest.param(lambda: seurat_alignment(X, ["a"] * 5 + ["b"]), "has one cell", id="alignment_modality_of_one"),
        pytest.param(lambda: seurat_alignment(X, AB, n_neighbors=6), "1 to 5 neighbours", id="alignment_k_is_n"),
        pytest.param(lambda: graph_connectivity(X, AB), "15 were asked", id="connectivity_few_cells"),
        pytest.param(lambda: graph_connectivity(X, range(6), n_neighbors=2), "no type has two", id="all_labels_once"),
        pytest.param(lambda: graph_connectivity(NAN, AB, n_neighbors=2), "not finite", id="connectivity_nan"),
    ],
)  # fmt: skip
def test_input_that_cannot_be_scored_is_refused(call, message):
    with pytest.raises(ScmambaError, match=message):
        call()


def test_a_label_that_occurs_once_has_a_defined_score():
    labels = ["a", "a", "a", "a", "a", "b"]
    assert mean_average_precision(X, labels, n_neighbors=5) == pytest.approx(map_by_loops(X, labels, 5))
    assert graph_connectivity(X, labels, n_neighbors=5) == 1  # of type a alone
    assert graph_connectivity(X, ["a"] * 6, n_neighbors=5) == 1


@pytest.mark.parametrize(("k", "chance"), [(10, 0.4), (100, 0.28)])
def test_the_chance_of_map_falls_with_the_neighbours(k, chance):
    rng = np.random.default_rng(0)
    x, types = rng.normal(size=(2000, 8)), rng.integers(4, size=2000)
    assert mean_average_precision(x, types, k) == pytest.approx(chance, abs=0.02)
