from __future__ import annotations

import numpy as np
import pytest
import torch

from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.metrics import (
    distances,
    foscttm,
    modality_gap,
    true_match_ranks,
)


def closer_by_loops(x, y):
    """Definition, cell by cell in plain Python."""
    n = len(x)
    distance = [[float(np.sqrt(((x[i] - y[j]) ** 2).sum())) for j in range(n)] for i in range(n)]
    return np.array([sum(distance[i][j] < distance[i][i] for j in range(n)) for i in range(n)])


def median_rank(x, y):
    return true_match_ranks(x, y).median


def recall_at_k(x, y, k=10, **kwargs):
    return true_match_ranks(x, y, **kwargs).recall(k)[0]


def neighborhood_overlap(x, y, k=None, **kwargs):
    """Of the cells of both modalities, for each ``k``; `None`: all there are."""
    k = np.arange(1, 2 * len(x)) if k is None else k
    return true_match_ranks(x, y, among="both", **kwargs).recall(k)


def overlap_by_sorting(x, y, k):
    """Definition from the sorted neighbours of all 2 n cells."""
    n, z = len(x), np.concatenate([x, y])
    distance = np.linalg.norm(z[:, None] - z[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    neighbours = np.argsort(distance, axis=1)[:, :k]
    return np.mean([(i + n) % (2 * n) in neighbours[i] for i in range(2 * n)])


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5))
    return x, x + rng.normal(size=x.shape)


# --- against the definitions ---


def test_foscttm_is_the_definition_in_both_directions(pairs):
    x, y = pairs
    ours_x, ours_y = foscttm(x, y)
    np.testing.assert_array_equal(ours_x, closer_by_loops(x, y) / 60)
    np.testing.assert_array_equal(ours_y, closer_by_loops(y, x) / 60)
    assert not np.array_equal(ours_x, ours_y)  # the two directions are different numbers


def test_foscttm_agrees_with_scglue(pairs):
    theirs = pytest.importorskip("scglue.metrics").foscttm(*pairs)
    np.testing.assert_allclose(foscttm(*pairs), theirs, atol=1e-12)


@pytest.mark.parametrize("k", [1, 10, 60])
def test_recall_is_the_definition(pairs, k):
    x, y = pairs
    expected = ((closer_by_loops(x, y) < k).mean() + (closer_by_loops(y, x) < k).mean()) / 2
    assert recall_at_k(x, y, k) == pytest.approx(expected, abs=1e-12)


def test_median_rank_is_the_definition(pairs):
    x, y = pairs
    expected = np.median(np.concatenate([closer_by_loops(x, y), closer_by_loops(y, x)]) + 1)
    assert median_rank(x, y) == expected


def test_the_overlap_curve_is_the_definition_at_every_k(pairs):
    curve = neighborhood_overlap(*pairs)
    np.testing.assert_allclose(curve, [overlap_by_sorting(*pairs, k) for k in range(1, 120)], atol=1e-12)
    np.testing.assert_array_equal(neighborhood_overlap(*pairs, [5, 1]), curve[[4, 0]])
    assert neighborhood_overlap(*pairs, 119)[0] == 1


def test_the_gap_is_the_distance_of_centres_on_the_sphere(pairs):
    x, y = pairs
    cx, cy = ((a / np.linalg.norm(a, axis=1, keepdims=True)).mean(axis=0) for a in (x, y))
    assert modality_gap(x, y) == pytest.approx(np.linalg.norm(cx - cy), abs=1e-12)
    assert modality_gap(x * 7, y[:30] * 0.1) == pytest.approx(modality_gap(x, y[:30]), abs=1e-12)
    assert modality_gap(np.eye(2)[:1], -np.eye(2)[:1]) == pytest.approx(2)
    assert modality_gap(np.zeros((3, 2)), np.zeros((3, 2))) == 0


def test_known_values_on_a_line():
    # distances of true matches are 2, 0 and 2; from x=0: y=1 is closer; from x=1: none; from x=4: none (|4-1|=3 > 2, 6 is it,
    # but y=2 is as far as 6: half a cell)
    x, y = np.array([[0.0], [1.0], [4.0]]), np.array([[2.0], [1.0], [6.0]])
    np.testing.assert_allclose(foscttm(x, y)[0], [1 / 3, 0, 0.5 / 3])
    # from y=2: x=1 is closer than x=0, x=4 as far; from y=1: none; from y=6: none
    np.testing.assert_allclose(foscttm(x, y)[1], [1.5 / 3, 0, 0])
    # first places: half of x=4's, x=1's, and those of y=1 and y=6
    assert recall_at_k(x, y, k=1) == pytest.approx((1.5 + 2) / 6)


# --- properties ---


def test_copies_of_a_cell_share_their_ranks():
    rng = np.random.default_rng(3)
    x = np.repeat(rng.normal(size=(50, 16)), 4, axis=0)
    # the true match and three copies of it stand on ranks 1 to 4
    np.testing.assert_allclose(foscttm(x, x), 1.5 / 200)
    assert recall_at_k(x, x, 1) == pytest.approx(1 / 4)
    assert recall_at_k(x, x, 4) == 1
    assert median_rank(x, x) == 2.5
    # among both modalities three own copies come in as well
    np.testing.assert_allclose(neighborhood_overlap(x, x, [1, 3, 7]), [1 / 7, 3 / 7, 1])


def test_blocks_change_nothing(pairs, monkeypatch):
    x, y = pairs

    def scores():
        return [*foscttm(x + 1e3, y + 1e3), recall_at_k(x, y), *neighborhood_overlap(x, y, [1, 9])]

    expected = np.hstack(scores())
    monkeypatch.setattr(distances, "BLOCK_ENTRIES", 60 * 7)  # ragged last block
    np.testing.assert_allclose(np.hstack(scores()), expected, atol=1e-12)


def test_neighbours_of_clouds_far_apart_are_told_apart(pairs):
    x, y = pairs
    far = x.copy()
    far[:, 0] += 1e5  # the centre lies between the clouds, 5e4 from each cell
    np.testing.assert_array_equal(neighborhood_overlap(far, y, [1, 59]), [0, 0])


def test_autocast_of_the_caller_changes_nothing(pairs):
    expected = foscttm(*pairs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(foscttm(*pairs), expected)


def test_float32_tensors_and_arrays_agree(pairs):
    x, y = (a.astype(np.float32) for a in pairs)
    np.testing.assert_array_equal(foscttm(x, y), foscttm(torch.from_numpy(x), torch.from_numpy(y)))
    np.testing.assert_array_equal(foscttm(x, y, device="cpu"), foscttm(x, y, device="auto"))


def test_a_sample_of_queries_estimates_the_score_of_all():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(900, 6))
    y = x + rng.normal(size=x.shape)
    for score in (lambda **kw: recall_at_k(x, y, 30, **kw), lambda **kw: neighborhood_overlap(x, y, 60, **kw)[0]):
        assert score(max_queries=300) == pytest.approx(score(), abs=0.06)
        assert score(max_queries=300) == score(max_queries=300) != score(max_queries=300, random_state=1)
        assert score(max_queries=5000) == score()
    assert true_match_ranks(x, y, max_queries=300).closer.shape == (2, 300)


# --- broken embeddings ---


def test_all_cells_at_one_point_score_as_chance():
    x, y = np.zeros((41, 3)), np.zeros((41, 3))
    np.testing.assert_allclose(foscttm(x, y), 40 / 82)
    assert recall_at_k(x, y, 10) == pytest.approx(10 / 41)
    assert median_rank(x, y) == 21
    np.testing.assert_allclose(neighborhood_overlap(x, y), np.arange(1, 82) / 81)
    # each modality at its own point: the other one never comes first
    np.testing.assert_allclose(foscttm(x, y + 1), 40 / 82)
    np.testing.assert_allclose(neighborhood_overlap(x, y + 1, [40, 81]), [0, 1])
    assert modality_gap(x + 1, y + 1) == 0


# --- faults ---

NAN = np.array([[0.0, 1.0], [np.nan, 0.0]])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        pytest.param(np.zeros((3, 2)), np.zeros((4, 2)), r"\(3, 2\) and \(4, 2\)", id="different_numbers_of_cells"),
        pytest.param(np.zeros((3, 2)), np.zeros((3, 1)), r"\(3, 2\) and \(3, 1\)", id="different_dimensions"),
        pytest.param(np.zeros((1, 2)), np.zeros((1, 2)), "one cell", id="one_cell"),
        pytest.param(NAN, np.zeros((2, 2)), "1 of 2 rows of x", id="nan_in_x"),
        pytest.param(np.zeros((2, 2)), NAN, "1 of 2 rows of y", id="nan_in_y"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(x, y, message):
    with pytest.raises(ScmambaError, match=message):
        foscttm(x, y)


@pytest.mark.parametrize(
    ("among", "k", "most"),
    [
        pytest.param("other", 0, 60, id="none"),
        pytest.param("other", 61, 60, id="more_than_cells"),
        pytest.param("both", [1, 120], 119, id="more_than_others"),
        pytest.param("both", [], 119, id="empty"),
        pytest.param("other", 1.7, 60, id="fraction"),
    ],
)
def test_a_k_out_of_range_is_refused(pairs, among, k, most):
    with pytest.raises(ScmambaError, match=f"between 1 and the {most} cells compared"):
        true_match_ranks(*pairs, among=among).recall(k)


def test_other_arguments_that_cannot_be_used_are_refused(pairs):
    with pytest.raises(ScmambaError, match="max_queries must be at least 1"):
        recall_at_k(*pairs, max_queries=0)
    with pytest.raises(UnknownNameError, match="'other', 'both'"):
        true_match_ranks(*pairs, among="all")
    with pytest.raises(ScmambaError, match="dimensions"):
        modality_gap(np.ones((3, 2)), np.ones((3, 3)))
