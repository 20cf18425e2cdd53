"""Mixing of modalities in each type, and the types in which they lie apart."""

from __future__ import annotations

import warnings

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest

from scmamba_scvi import metrics
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import by_type, evaluate_integration, mixing_by_type, other_modality

N = 120


@pytest.fixture
def mdata():
    """Types a, b, c of 60, 40 and 10 cells far from each other, and 10 cells without a type."""
    rng = np.random.default_rng(0)
    types = np.repeat(np.array(["a", "b", "c", None], dtype=object), [60, 40, 10, 10])
    x = rng.normal(size=(N, 3)) + 20 * np.repeat(np.eye(4, 3), [60, 40, 10, 10], axis=0)
    names = [f"cell_{i}" for i in range(N)]
    mdata = mudata.MuData({
        kind: ad.AnnData(np.zeros((N, 1)), obs=pd.DataFrame(index=names), obsm={"near": x + 0.1 * rng.normal(size=x.shape)})
        for kind in ("rna", "atac", "protein")
    })  # fmt: skip
    mdata.obs["type"] = types
    for kind, shift in (("rna", 0.0), ("atac", 50.0), ("protein", 0.0)):  # accessibility of type b is elsewhere
        mdata[kind].obsm["b_apart"] = mdata[kind].obsm["near"] + shift * (types == "b")[:, None]
    return mdata


def two(mdata, key, kinds=("rna", "atac")):
    return {kind: mdata[kind].obsm[key] for kind in kinds}


def test_each_type_has_the_mean_of_its_cells_among_all_cells(mdata):
    table = mixing_by_type(mdata, {"near": two(mdata, "near")}, labels_key="type")
    of_cells = other_modality(*two(mdata, "near").values())  # the second implementation: a loop over its values
    assert table.index.names == ["method", "modalities", "type"]
    assert table.index.tolist() == [("near", "rna, atac", name) for name in "abc"]
    assert table["cells"].tolist() == [60, 40, 10]
    for (_, _, name), row in table.iterrows():
        expected = [of_cells[i] for i in range(N) if mdata.obs["type"].iloc[i] == name]
        assert row["other modality"] == pytest.approx(sum(expected) / len(expected))


def test_where_modalities_lie_apart_is_said_once_for_all_methods(mdata):
    embeddings = {"near": two(mdata, "near"), "apart": two(mdata, "b_apart")}
    with pytest.warns(UserWarning, match="lie apart") as caught:
        evaluate_integration(mdata, embeddings, labels_key="type", metrics="other modality", progress=False)
    (message,) = [str(w.message) for w in caught if "lie apart" in str(w.message)]
    assert message.startswith("apart: rna and atac lie apart (") and "in type b (0%). In percent: how many" in message
    assert "near:" not in message


def test_modalities_that_lie_together_are_not_warned_of(mdata):
    mdata.obs["type"] = mdata.obs["type"].fillna("d")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        evaluate_integration(
            mdata, {"near": two(mdata, "near")}, labels_key="type", metrics="other modality", progress=False
        )
        evaluate_integration(
            mdata, {"apart": two(mdata, "b_apart")}, labels_key="type", metrics="FOSCTTM", progress=False
        )


def test_without_types_the_mean_over_all_cells_is_judged(mdata):
    apart = {"rna": mdata["rna"].obsm["near"], "atac": mdata["atac"].obsm["near"] + 100}
    with pytest.warns(UserWarning, match=r"shifted: rna and atac lie apart \(0% over all cells\)\. In percent"):
        evaluate_integration(mdata, {"shifted": apart}, metrics="other modality", progress=False)


def test_few_cells_are_shown_but_not_judged():
    mixed = np.repeat([0.5, 0.0], [40, by_type.CELLS_OF_GROUP - 1])
    groups = np.repeat(["many", "few"], [40, by_type.CELLS_OF_GROUP - 1])
    assert by_type.lie_apart(("rna", "atac"), mixed, {"type": groups}) is None
    one_more = (np.append(mixed, 0.0), {"type": np.append(groups, "few")})
    assert (
        by_type.lie_apart(("rna", "atac"), *one_more) == "rna and atac lie apart (33% over all cells) in type few (0%)"
    )
    assert by_type.lie_apart(("rna", "atac"), np.zeros(by_type.CELLS_OF_GROUP - 1), {}) is None
    assert by_type.lie_apart(("rna", "atac"), np.full(40, 0.1), {}) == "rna and atac lie apart (10% over all cells)"


def test_each_two_of_three_modalities_have_rows_of_their_own(mdata):
    kinds = ("rna", "atac", "protein")
    means = mixing_by_type(mdata, {"x": two(mdata, "b_apart", kinds)}, labels_key="type")["other modality"]
    of_b = means.xs("b", level="type").droplevel("method")
    assert of_b.index.tolist() == ["rna, atac", "rna, protein", "atac, protein"]
    assert of_b["rna, atac"] == of_b["atac, protein"] == 0 and of_b["rna, protein"] > 0.4


def test_only_the_chosen_cells_are_neighbours(mdata):
    cells = np.r_[:30, 60:90]
    table = mixing_by_type(mdata, {"x": two(mdata, "near")}, labels_key="type", cells=cells)
    assert table["cells"].tolist() == [30, 30]
    of_cells = other_modality(*(x[cells] for x in two(mdata, "near").values()))
    assert table["other modality"].iloc[0] == pytest.approx(of_cells[:30].mean())


def test_a_method_without_two_modalities_has_no_rows(mdata):
    embeddings = {"joint": mdata["rna"].obsm["near"], "x": two(mdata, "near")}
    table = mixing_by_type(mdata, embeddings, labels_key="type")
    assert set(table.index.get_level_values("method")) == {"x"}


@pytest.mark.parametrize(
    ("parts", "labels", "message"),
    [
        pytest.param(("rna",), "type", "Nothing could be scored: no embeddings of two modalities", id="one_modality"),
        pytest.param(("rna", "atac"), None, "None of these cells has a type: name the column in labels_key", id="no_labels"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(mdata, parts, labels, message):
    with pytest.raises(ScmambaError, match=message):
        mixing_by_type(mdata, {"x": two(mdata, "near", parts)}, labels_key=labels)


def test_of_many_cells_a_sample_is_asked_for_its_neighbours_among_all(mdata, monkeypatch):
    x, y = two(mdata, "b_apart").values()
    of_all, of_some = other_modality(x, y), other_modality(x, y, max_queries=30)
    asked = np.isfinite(of_some)
    assert asked.sum() == 30
    np.testing.assert_array_equal(of_some[asked], of_all[asked])
    monkeypatch.setattr(metrics._embedded, "ALL_QUERIES_UP_TO", N)
    monkeypatch.setattr(metrics._embedded, "N_QUERIES", 30)  # among which type b has fewer cells than it is judged by
    table = mixing_by_type(mdata, {"x": {"rna": x, "atac": y}}, labels_key="type")
    assert table["cells"].tolist() == [60, 40, 10]
    every = mixing_by_type(mdata, {"x": {"rna": x, "atac": y}}, labels_key="type", random_state=1)
    pd.testing.assert_frame_equal(table, every)  # a hundred of each type are asked, which is all
    with pytest.warns(UserWarning, match=r"x: rna and atac lie apart \(\d\d% over all cells\) in type b \(0%\)\."):
        scores = evaluate_integration(
            mdata, {"x": {"rna": x, "atac": y}}, labels_key="type", metrics="other modality", progress=False
        )
    assert scores.iloc[0, 0] == pytest.approx(np.nanmean(other_modality(x, y, max_queries=30)))
