from __future__ import annotations

import numpy as np
import pytest

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import METRICS, _embedded, leiden_ari_nmi, true_match_ranks
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


def test_modalities_are_stacked_without_cells_that_lack_them():
    e = embedded()
    points = e.stacked
    assert points.x.shape == (93, 3) and np.isfinite(points.x).all()
    assert points.cell.tolist() == [*range(4, 50), *range(47)]
    assert points.modality.tolist() == ["rna"] * 46 + ["atac"] * 47


def test_cell_types_are_scored_on_the_joint_embedding_or_on_the_modalities():
    assert embedded().cells.modality.tolist() == ["joint"] * 50
    assert len(embedded(joint=None).cells.x) == 93


def test_points_with_labels_carry_those_of_their_cells():
    e = embedded()
    points, labels = e.labelled(e.stacked)
    assert 10 not in points.cell and len(labels) == 91
    np.testing.assert_array_equal(labels, e.labels[points.cell])


def test_pairs_are_the_cells_that_two_modalities_have_in_common():
    e = embedded()
    (pair,) = e.pairs
    assert pair.modalities == ("rna", "atac") and pair.cell.tolist() == list(range(4, 47))
    np.testing.assert_array_equal(pair.x, e.modalities["rna"][4:47])
    np.testing.assert_array_equal(pair.y, e.modalities["atac"][4:47])
    np.testing.assert_array_equal(e.ranks[0].closer, true_match_ranks(pair.x, pair.y).closer)


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


@pytest.mark.parametrize(
    ("change", "what", "message"),
    [
        pytest.param({"modalities": {}}, "stacked", "no embeddings of two modalities", id="no_modalities"),
        pytest.param({"modalities": {}}, "pairs", "no embeddings of two modalities", id="nothing_to_pair"),
        pytest.param({}, "in_batches", "no batch_key", id="no_batches"),
        pytest.param(
            {"modalities": {"rna": np.r_[[[1.0]], [[np.nan]]], "atac": np.r_[[[np.nan]], [[1.0]]]}}, "pairs",
            "no two modalities have common cells", id="no_common_cell",
        ),
    ],
)  # fmt: skip
def test_what_the_data_lack_is_said_where_it_is_asked_for(change, what, message):
    with pytest.raises(ScmambaError, match=message):
        getattr(embedded(**change), what)
