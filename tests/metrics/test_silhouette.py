from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples, silhouette_score

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import cell_type_asw, omics_asw


def silhouettes_by_loops(x, labels):
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    labels, out = np.asarray(labels), []
    for i, label in enumerate(labels):
        own = (labels == label) & (np.arange(len(x)) != i)
        if not own.any():
            out.append(0.0)
            continue
        a = distance[i, own].mean()
        b = min(distance[i, labels == other].mean() for other in set(labels) - {label})
        out.append((b - a) / max(a, b))
    return np.array(out)


@pytest.fixture
def stacked():
    rng = np.random.default_rng(0)
    types = rng.integers(0, 4, 160)
    omics = np.array(["rna"] * 90 + ["atac"] * 70)
    return rng.normal(size=(160, 5)) + 2 * np.eye(4, 5)[types] + 0.5 * (omics == "atac")[:, None], types, omics


def test_cell_type_asw_is_the_definition(stacked):
    x, types, _ = stacked
    assert cell_type_asw(x, types) == pytest.approx((silhouettes_by_loops(x, types).mean() + 1) / 2, abs=1e-12)
    assert cell_type_asw(x, types) == pytest.approx((silhouette_score(x, types) + 1) / 2, abs=1e-12)


def test_omics_asw_is_the_definition(stacked):
    x, types, omics = stacked
    inside = [1 - np.abs(silhouette_samples(x[types == t], omics[types == t])).mean() for t in range(4)]
    assert omics_asw(x, omics, types) == pytest.approx(np.mean(inside), abs=1e-12)


def test_scores_agree_with_scglue(stacked):
    metrics = pytest.importorskip("scglue.metrics")
    x, types, omics = stacked
    assert cell_type_asw(x, types) == pytest.approx(metrics.avg_silhouette_width(x, types), abs=1e-6)
    assert omics_asw(x, omics, types) == pytest.approx(metrics.avg_silhouette_width_batch(x, omics, types), abs=1e-6)


def test_a_type_of_one_modality_is_left_out(stacked):
    x, types, omics = stacked
    kept = (types != 3) | (omics == "rna")  # type 3 has no atac
    kept[np.flatnonzero(types == 2)] = False
    kept[[np.flatnonzero((types == 2) & (omics == o))[0] for o in ("rna", "atac")]] = True  # type 2: one cell of each
    mixed = omics_asw(x[types < 2], omics[types < 2], types[types < 2])
    assert omics_asw(x[kept], omics[kept], types[kept]) == pytest.approx(mixed)


def test_labels_that_occur_once_have_silhouette_zero(stacked):
    x, types, omics = stacked
    types = types.copy()
    types[0] = 9
    assert cell_type_asw(x, types) == pytest.approx((silhouette_score(x, types) + 1) / 2, abs=1e-12)
    one_atac = np.r_[:90, 95]
    value = omics_asw(x[one_atac], omics[one_atac], np.zeros(91))
    assert value == pytest.approx(1 - np.abs(silhouettes_by_loops(x[one_atac], omics[one_atac])).mean(), abs=1e-12)


# --- broken embeddings ---


@pytest.mark.parametrize("point", [0.0, 0.1, 1e6])
def test_all_cells_at_one_point_are_neither_apart_nor_unmixed(point):
    x, types, omics = np.full((60, 3), point), np.arange(60) % 3, np.arange(60) % 2
    assert cell_type_asw(x, types) == 0.5
    assert omics_asw(x, omics, types) == 1


# --- faults ---

X = np.random.default_rng(3).normal(size=(6, 2))
AB = ["a", "b"] * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: cell_type_asw(X * np.nan, AB), "6 of 6 rows of x", id="nan"),
        pytest.param(lambda: cell_type_asw(X, AB * 2), r"cell_type .*\(12,\)", id="length"),
        pytest.param(lambda: cell_type_asw(X, range(6)), "no cell has another", id="all_labels_once"),
        pytest.param(lambda: omics_asw(X, ["rna"] * 6, AB), "omics needs at least 2", id="one_modality"),
        pytest.param(lambda: omics_asw(X, AB, AB), "several cells of two modalities", id="no_type_in_two_modalities"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(call, message):
    with pytest.raises(ScmambaError, match=message):
        call()
