from __future__ import annotations

import re
import sys
import warnings

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scmamba_scvi import metrics
from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.metrics import METRICS, _embedded, evaluate_integration

N, TYPES, Z = 320, 4, 8


def integrated(seed=0, noise=0.15, apart=6.0):
    """Two modalities of types that lie ``apart`` and whose cells differ from one another, and the mean of both."""
    rng = np.random.default_rng(seed)
    labels = np.arange(N) % TYPES
    cell = apart * rng.normal(size=(TYPES, Z))[labels] + rng.normal(size=(N, Z))
    rna, atac = (cell + noise * rng.normal(size=(N, Z)) for _ in range(2))
    names = np.array([f"type {label}" for label in labels], dtype=object)
    batches = rng.choice(["x", "y"], N)
    return {"rna": rna, "atac": atac, "joint": (rna + atac) / 2}, names, batches


def cells(parts):
    """An AnnData of the cells, whose names are numbers, or those that tables of embeddings have."""
    tables = [x for x in parts.values() if isinstance(x, pd.DataFrame)]
    names = (
        pd.Index([name for x in tables for name in x.index]).unique()
        if tables
        else range(len(next(iter(parts.values()))))
    )
    return ad.AnnData(obs=pd.DataFrame(index=[str(name) for name in names]))


def scored(parts, labels=None, batches=None, **kwargs):
    """Scores of one method by name; ``kwargs`` can choose the ``metrics``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        table = evaluate_integration(
            cells(parts), {"m": parts}, labels_key=labels, batch_key=batches, progress=False, **kwargs
        )
    return {name: value for (group, name), value in table.loc["m"].items() if group != "overall"}


QUICK = [name for name in METRICS if name not in ("ARI", "NMI")]


# -- each score says what it should -------------------------------


def test_a_good_integration_scores_well_everywhere():
    parts, labels, batches = integrated()
    table = evaluate_integration(cells(parts), {"m": parts}, labels_key=labels, batch_key=batches, progress=False)
    assert list(table["overall"]) == ["bio", "omics", "overall"]
    assert [name for _, name in table.columns][:-3] == list(METRICS)
    for (group, name), value in table.loc["m"].items():
        if group != "overall" and not METRICS[name].higher_is_better:
            assert value < 0.05, name
        elif name == "other modality":  # 0.5 is a perfect mix
            assert value > 0.45
        else:
            assert value > 0.8, name


def test_each_value_is_that_of_the_single_function():
    """With the documented numbers of neighbours, on types that overlap: another embedding of the method has other values."""
    parts, labels, batches = integrated(noise=1.0, apart=0.7)
    found = scored(parts, labels, batches, metrics=QUICK)
    rna, atac, joint = parts["rna"], parts["atac"], parts["joint"]
    stacked, omics, both = np.concatenate([rna, atac]), np.repeat(["rna", "atac"], N), np.tile(labels, 2)
    expected = {
        "MAP": metrics.mean_average_precision(joint, labels, 10),
        "cell-type ASW": metrics.cell_type_asw(joint, labels),
        "kNN accuracy": metrics.knn_accuracy(joint, labels, 15),
        "omics mixing": metrics.omics_entropy_mixing(stacked, omics, 15),
        "Seurat alignment": metrics.seurat_alignment(stacked, omics, 15),
        "other modality": metrics.other_modality(rna, atac, n_neighbors=15).mean(),
        "graph connectivity": metrics.graph_connectivity(stacked, both, 15),
        "omics ASW": metrics.omics_asw(stacked, omics, both),
        "FOSCTTM": np.mean(metrics.foscttm(rna, atac)),
        "recall@1": metrics.true_match_ranks(rna, atac).recall(1)[0],
        "recall@10": metrics.true_match_ranks(rna, atac).recall(10)[0],
        "median rank": (metrics.true_match_ranks(rna, atac).median - 1) / (N - 1),
        "matching score": metrics.matching_score(rna, atac, 1),
        "modality gap": metrics.modality_gap(rna, atac),
        "batch mixing": metrics.omics_entropy_mixing(joint, batches, 15),
        "batch ASW": metrics.omics_asw(joint, batches, labels),
    }
    assert found == pytest.approx(expected)


def test_cells_that_are_all_alike_score_as_chance():
    _, labels, batches = integrated()
    one = np.ones((N, Z))
    found = scored({"rna": one, "atac": one, "joint": one}, labels, batches)
    assert found["FOSCTTM"] == pytest.approx((N - 1) / (2 * N))
    assert found["median rank"] == pytest.approx(0.5)
    assert found["recall@1"] == pytest.approx(1 / N) and found["recall@10"] == pytest.approx(10 / N)
    assert found["matching score"] < 0.05
    assert found["cell-type ASW"] == 0.5
    assert found["ARI"] < 0.05 and found["NMI"] < 0.3
    assert found["MAP"] == pytest.approx(0.4, abs=0.1)  # three neighbours, a quarter of them right
    assert found["kNN accuracy"] == pytest.approx(1 / TYPES, abs=0.1)
    assert found["modality gap"] == 0.0
    for name in ("omics mixing", "Seurat alignment", "omics ASW", "batch mixing", "batch ASW"):
        assert found[name] > 0.9, name  # nothing tells modalities apart where nothing tells cells apart


def test_modalities_apart_fail_to_align_though_each_is_right():
    parts, labels, _ = integrated()
    # along an axis of its own, so that the order of distances across modalities stays
    parts = {name: np.c_[x, np.full(N, {"rna": 0, "atac": 200, "joint": 100}[name])] for name, x in parts.items()}
    found = scored(parts, labels)
    for name in ("omics mixing", "Seurat alignment", "omics ASW"):
        assert found[name] < 0.05, name
    assert found["graph connectivity"] == pytest.approx(0.5)
    assert found["modality gap"] > 0.5
    assert found["FOSCTTM"] < 0.01 and found["recall@10"] > 0.99
    assert found["ARI"] > 0.95 and found["kNN accuracy"] > 0.95
    # without a joint embedding, the stacked modalities show it in the scores of cell types, too
    del parts["joint"]
    on_modalities = scored(parts, labels, metrics=["ARI", "cell-type ASW", "kNN accuracy"])
    assert on_modalities["ARI"] < 0.8 and on_modalities["cell-type ASW"] < 0.6 and on_modalities["kNN accuracy"] > 0.95


# -- ways to give data -------------------------------


def mdata_of(parts, labels, batches, seed=0):
    """The same in a MuData: the cells of atac in another order and 20 fewer, labels in one modality's obs."""
    rng = np.random.default_rng(seed)
    names = np.array([f"cell{i}" for i in range(N)])
    rows = {"rna": rng.permutation(N), "atac": rng.permutation(N)[: N - 20]}
    mods = {}
    for key, own in rows.items():
        mods[key] = ad.AnnData(np.ones((len(own), 1), np.float32), obs=pd.DataFrame(index=names[own]))
        mods[key].obsm["X_scmamba"] = parts[key][own]
    mods["rna"].obs["cell_type"] = pd.Categorical(labels[rows["rna"]])
    mdata = mudata.MuData(mods)
    position = np.array([int(name.removeprefix("cell")) for name in mdata.obs_names])
    mdata.obsm["X_scmamba"] = parts["joint"][position]
    mdata.obs["batch"] = batches[position]
    return mdata, rows["atac"]


FEW = ["kNN accuracy", "cell-type ASW", "omics mixing", "omics ASW", "FOSCTTM", "recall@10", "batch ASW"]


def test_cells_are_aligned_by_name():
    parts, labels, batches = integrated(noise=1.0)
    mdata, rows = mdata_of(parts, labels, batches)
    table = evaluate_integration(mdata, labels_key="cell_type", batch_key="batch", metrics=FEW, progress=False)
    atac = np.full((N, Z), np.nan)
    atac[rows] = parts["atac"][rows]
    by_hand = scored({**parts, "atac": atac}, labels, batches, metrics=FEW)
    assert table.index.tolist() == ["scmamba-scvi"]
    assert dict(zip(table.columns.get_level_values(1), table.loc["scmamba-scvi"], strict=True)) == pytest.approx(
        by_hand
    )


def test_every_way_to_give_embeddings_and_labels_gives_the_same_table():
    parts, labels, batches = integrated(noise=1.0)
    mdata, rows = mdata_of(parts, labels, batches)
    common = {"labels_key": "cell_type", "batch_key": "batch", "metrics": FEW, "progress": False}
    reference = evaluate_integration(mdata, **common)
    names = np.array([f"cell{i}" for i in range(N)])
    atac = pd.DataFrame(parts["atac"][rows], index=names[rows])
    tables = {"rna": pd.DataFrame(parts["rna"], index=names), "atac": atac,
              "joint": pd.DataFrame(parts["joint"], index=names)[::-1]}  # fmt: skip
    in_order = mdata["rna"].obs_names.get_indexer(mdata.obs_names)
    ways = {
        "key": evaluate_integration(mdata, "X_scmamba", **common),
        "keys of parts": evaluate_integration(
            mdata, {"m": dict.fromkeys(("joint", "rna", "atac"), "X_scmamba")}, **common
        ),
        "matrices in the order of the data": evaluate_integration(
            mdata,
            {"m": {"joint": mdata.obsm["X_scmamba"], "rna": tables["rna"].loc[mdata.obs_names].to_numpy(),
                   "atac": atac.reindex(mdata.obs_names).to_numpy()}},
            **common,
        ),
        "tables": evaluate_integration(mdata, {"m": tables}, **common),
        "series of labels": evaluate_integration(mdata, **{**common, "labels_key": pd.Series(labels, index=names)}),
        "labels in the order of the data": evaluate_integration(
            mdata, **{**common, "labels_key": mdata["rna"].obs["cell_type"].to_numpy()[in_order]}
        ),
        "modality's column": evaluate_integration(mdata, **{**common, "labels_key": "rna:cell_type"}),
        "tables of named cells": evaluate_integration(
            cells(tables), {"m": tables}, **{**common, "labels_key": pd.Series(labels, index=names),
                                             "batch_key": pd.Series(batches, index=names)}
        ),
    }  # fmt: skip
    for way, table in ways.items():
        np.testing.assert_allclose(table.to_numpy(), reference.to_numpy(), atol=1e-9, err_msg=way)
        assert table.columns.equals(reference.columns), way


def test_an_anndata_can_hold_all_embeddings_in_its_obsm():
    parts, labels, _ = integrated()
    adata = ad.AnnData(np.ones((N, 1), np.float32), obs=pd.DataFrame({"cell_type": labels}, index=map(str, range(N))))
    for part, x in parts.items():
        adata.obsm[f"X_{part}"] = x
    keys = {part: f"X_{part}" for part in parts}
    table = evaluate_integration(adata, {"m": keys}, labels_key="cell_type", metrics=QUICK[:13], progress=False)
    expected = scored(parts, labels, metrics=QUICK[:13])
    assert {name: table.loc["m", (METRICS[name].group, name)] for name in expected} == pytest.approx(expected)


def test_what_a_model_gives_scores_as_its_written_embeddings_do():
    from scmamba_scvi import SCMAMBA
    from scmamba_scvi.data import simulate_multiome

    mdata = simulate_multiome(n_cells=150, n_genes=80, n_peaks=200, n_cell_types=3, seed=0)
    mdata = mudata.MuData({"rna": mdata["rna"], "atac": mdata["atac"][::-1][:140].copy()})
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, preset="small", n_latent=8)
    model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    given = {"joint": model.get_latent_representation()}
    given |= {kind: model.get_latent_representation(modality=kind) for kind in model.kinds}
    mdata.obsm["X_scmamba"] = given["joint"]
    for key in mdata.mod:
        mdata[key].obsm["X_scmamba"] = given[key][mdata.obs_names.get_indexer(mdata[key].obs_names)]
    common = {"labels_key": "cell_type", "metrics": FEW[:-1], "progress": False}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(Not scored|finite|lack)")  # what a modality lacks is no fault
        found = evaluate_integration(mdata, {"given": given, "written": "X_scmamba"}, **common)
    np.testing.assert_allclose(found.loc["given"], found.loc["written"], atol=1e-9)
    held_out = model.validation_indices
    some = evaluate_integration(mdata, metrics="FOSCTTM", cells=held_out, progress=False)
    x, y = (given[kind][held_out] for kind in ("rna", "atac"))
    known = np.isfinite(y).all(axis=1)
    assert some.iloc[0, 0] == pytest.approx(np.mean(metrics.foscttm(x[known], y[known])), abs=1e-6)


def test_a_model_is_answered_with_what_to_give():
    class Model:
        def get_latent_representation(self): ...

    with pytest.raises(ScmambaError, match="got Model.*get_latent_representation"):
        evaluate_integration(Model())


def test_cells_can_be_chosen_by_mask_position_and_name():
    parts, labels, batches = integrated()
    mdata, _ = mdata_of(parts, labels, batches)
    mask = np.arange(N) % 3 > 0
    by = [mask, np.flatnonzero(mask), mdata.obs_names[mask], pd.Series(mask, index=mdata.obs_names)[::-1]]
    tables = [evaluate_integration(mdata, metrics=["FOSCTTM", "omics mixing"], cells=c, progress=False) for c in by]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])
    whole = evaluate_integration(mdata, metrics=["FOSCTTM", "omics mixing"], progress=False)
    assert not np.allclose(whole, tables[0])


def test_max_cells_draws_the_same_cells_for_every_method():
    parts, labels, _ = integrated(noise=1.0)
    common = {"metrics": ["FOSCTTM"], "max_cells": 100, "progress": False}
    table = evaluate_integration(cells(parts), {"a": parts, "b": parts}, **common)
    assert table.iloc[0, 0] == table.iloc[1, 0]
    other = evaluate_integration(cells(parts), {"a": parts}, random_state=1, **common)
    assert other.iloc[0, 0] != table.iloc[0, 0]


def test_above_the_limit_a_sample_of_queries_estimates_the_same(monkeypatch):
    parts, labels, batches = integrated(noise=1.0)
    exact = scored(parts, labels, batches, metrics=QUICK)
    monkeypatch.setattr(_embedded, "ALL_QUERIES_UP_TO", 300)
    monkeypatch.setattr(_embedded, "N_QUERIES", 200)
    estimated = scored(parts, labels, batches, metrics=QUICK)
    assert estimated == pytest.approx(exact, abs=0.06) and estimated != exact


def test_tables_of_different_cells_are_scored_without_pairs():
    parts, labels, batches = integrated()
    names = {"rna": [f"r{i}" for i in range(N)], "atac": [f"a{i}" for i in range(200)]}
    own = {key: pd.DataFrame(parts[key][: len(index)], index=index) for key, index in names.items()}
    of_all = [pd.Series(np.r_[x, x[:200]], index=sum(names.values(), [])) for x in (labels, batches)]
    found = scored(own, *of_all)
    assert "FOSCTTM" not in found and found["omics ASW"] > 0.9 and found["omics mixing"] > 0.8
    stacked = np.concatenate(list(own.values()))
    assert found["cell-type ASW"] == pytest.approx(metrics.cell_type_asw(stacked, of_all[0]))
    mixing = metrics.omics_entropy_mixing(stacked, of_all[1])
    assert found["batch mixing"] == pytest.approx(mixing)


def test_three_modalities_are_averaged_over_their_pairs():
    parts, labels, _ = integrated(noise=1.5)
    rng = np.random.default_rng(2)
    parts["protein"] = parts["rna"] + rng.normal(size=(N, Z))
    parts["protein"][:30] = np.nan
    found = scored(parts, labels, metrics=["FOSCTTM", "recall@10", "modality gap", "omics mixing"])
    known = np.arange(N) >= 30
    pairs = [(parts["rna"], parts["atac"])] + [(parts[k][known], parts["protein"][known]) for k in ("rna", "atac")]
    assert found["FOSCTTM"] == pytest.approx(np.mean([np.mean(metrics.foscttm(x, y)) for x, y in pairs]))
    assert found["recall@10"] == pytest.approx(
        np.mean([metrics.true_match_ranks(x, y).recall(10)[0] for x, y in pairs])
    )
    stacked = np.concatenate([parts["rna"], parts["atac"], parts["protein"][known]])
    omics = np.repeat(["a", "b", "c"], [N, N, N - 30])
    mixing = metrics.omics_entropy_mixing(stacked, omics)
    assert found["omics mixing"] == pytest.approx(mixing)


# -- what cannot be scored -------------------------------


@pytest.mark.parametrize(
    ("change", "said", "groups"),
    [
        pytest.param({"labels_key": None}, "MAP, cell-type ASW.*no labels_key", {"omics", "single-cell", "batch"}, id="no_labels"),
        pytest.param({"batch_key": None}, r"batch mixing, batch ASW \(no batch_key", {"bio", "omics", "single-cell"},
                     id="no_batches"),
        pytest.param({"parts": ["joint"]}, "omics mixing.*modality gap.*no embeddings of two modalities", {"bio", "batch"},
                     id="joint_only"),
        pytest.param({"parts": ["rna"]}, "no embeddings of two modalities", {"bio", "batch"}, id="one_modality"),
        pytest.param({"parts": ["rna", "atac"]}, None, {"bio", "omics", "single-cell", "batch"}, id="modalities_only"),
    ],
)  # fmt: skip
def test_what_the_data_lack_is_left_out_and_said_once(change, said, groups):
    parts, labels, batches = integrated()
    keep = change.pop("parts", list(parts))
    arguments = {"labels_key": labels, "batch_key": batches, **change}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        table = evaluate_integration(cells(parts), {"m": {k: parts[k] for k in keep}}, metrics=QUICK, progress=False, **arguments)  # fmt: skip
    ours = [str(w.message) for w in caught if w.category is UserWarning and "scored" in str(w.message)]
    assert len(ours) == (said is not None)
    if said:
        assert re.search(said, ours[0])
    assert set(table.columns.get_level_values(0)) - {"overall"} == groups
    assert table.notna().all().all()


def test_a_method_without_modalities_has_no_summary_of_them():
    parts, labels, _ = integrated()
    methods = {"whole": parts, "joint only": parts["joint"]}
    with pytest.warns(UserWarning, match=r"omics mixing.*of 'joint only' \(no embeddings of two modalities\)"):
        table = evaluate_integration(cells(parts), methods, labels_key=labels, progress=False)
    assert table.loc["joint only", "single-cell"].isna().all()
    overall = table["overall"]
    assert overall.loc["joint only", ["omics", "overall"]].isna().all()
    # embeddings of one quality, scored on as many cells
    assert overall.loc["joint only", "bio"] == pytest.approx(overall.loc["whole", "bio"])
    expected = metrics.overall_scores(
        table.drop(columns=[("bio", "kNN accuracy"), ("omics", "other modality"), ("overall", "bio")])
    )
    assert overall.loc["whole"].to_dict() == pytest.approx(expected.loc["whole"].to_dict())


def test_a_summary_needs_all_of_its_scores():
    parts, labels, _ = integrated()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        table = evaluate_integration(
            cells(parts), {"m": parts}, labels_key=labels, metrics=["MAP", "ARI", "omics mixing"], progress=False
        )
    assert table.columns.tolist() == [("bio", "ARI"), ("bio", "MAP"), ("omics", "omics mixing")]


def test_rows_that_are_not_finite_are_left_out_and_counted():
    parts, labels, _ = integrated()
    parts["rna"] = parts["rna"].copy()
    parts["rna"][:7, 1] = np.nan
    labels = labels.copy()
    labels[:5] = None
    with pytest.warns(UserWarning, match=r"7 rows of 'm' \(rna\).* 5 of 320 cells have no label") as caught:
        table = evaluate_integration(
            cells(parts), {"m": parts}, labels_key=labels, metrics=["FOSCTTM", "kNN accuracy"], progress=False
        )
    assert len([w for w in caught if "finite" in str(w.message)]) == 1
    assert table["single-cell", "FOSCTTM"].item() == pytest.approx(
        np.mean(metrics.foscttm(parts["rna"][7:], parts["atac"][7:]))
    )
    assert table["bio", "kNN accuracy"].item() == pytest.approx(metrics.knn_accuracy(parts["joint"][5:], labels[5:]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of the cells asked for, all are finite
        evaluate_integration(cells(parts), {"m": parts}, metrics="FOSCTTM", cells=range(7, 60), progress=False)


@pytest.mark.parametrize(
    ("n", "labels", "absent", "said"),
    [
        pytest.param(300, ["a"] * 300, {"MAP", "cell-type ASW", "kNN accuracy"}, "all 300 cells are 'a'", id="one_label"),
        pytest.param(9, list("aaabbbccc"), {"recall@10", "kNN accuracy"}, "of 9 cells each is among the 10 nearest", id="nine_cells"),
        pytest.param(300, [str(i) for i in range(300)], {"cell-type ASW"}, "no cell has another", id="labels_seen_once"),
    ],
)  # fmt: skip
def test_a_score_that_is_not_defined_is_left_out_with_its_reason(n, labels, absent, said):
    parts, _, _ = integrated()
    parts = {name: x[:n] for name, x in parts.items()}
    with pytest.warns(UserWarning, match=said):
        table = evaluate_integration(cells(parts), {"m": parts}, labels_key=labels, metrics=QUICK, progress=False)
    assert absent.isdisjoint(table.columns.get_level_values(1))
    assert np.isfinite(table["single-cell", "FOSCTTM"].item())


def test_nan_in_a_list_of_names_is_missing():
    parts, labels, _ = integrated()
    found = scored(parts, [np.nan, None, *labels[2:]], metrics=["kNN accuracy"])
    assert found["kNN accuracy"] == pytest.approx(metrics.knn_accuracy(parts["joint"][2:], labels[2:]))


def test_a_label_that_occurs_once_counts_as_a_miss():
    parts, labels, _ = integrated()
    labels = labels.copy()
    labels[0] = "alone"
    found = scored(parts, labels, metrics=["MAP", "kNN accuracy", "cell-type ASW", "omics ASW", "graph connectivity"])
    assert all(np.isfinite(list(found.values())))
    assert found["kNN accuracy"] <= (N - 1) / N


def test_columns_are_in_order_and_the_index_names_methods():
    parts, *_ = integrated()
    wanted = ["recall@10", "FOSCTTM", "omics mixing"]
    table = evaluate_integration(cells(parts), {"b": parts, "a": parts}, metrics=wanted, progress=False)
    assert table.index.tolist() == ["b", "a"] and table.index.name == "method"
    assert table.columns.names == ["group", "metric"]
    assert table.columns.get_level_values(1).tolist() == ["omics mixing", "FOSCTTM", "recall@10"]


def test_data_and_the_global_generator_are_not_changed():
    parts, labels, batches = integrated()
    mdata, _ = mdata_of(parts, labels, batches)
    keys = {name: set(x.obsm) for name, x in {"": mdata, **mdata.mod}.items()}
    before, state = mdata.obs.copy(), np.random.get_state()[1].copy()
    evaluate_integration(mdata, labels_key="cell_type", batch_key="batch", progress=False)
    pd.testing.assert_frame_equal(mdata.obs, before)
    assert {name: set(x.obsm) for name, x in {"": mdata, **mdata.mod}.items()} == keys
    assert (np.random.get_state()[1] == state).all()


def test_the_progress_bar_does_not_write_to_standard_output(capsys):
    parts, *_ = integrated()
    evaluate_integration(cells(parts), {"m": parts}, metrics="FOSCTTM")
    assert capsys.readouterr().out == ""


# -- faults -------------------------------

X = np.arange(40.0).reshape(20, 2)


def twenty():
    return cells({"": X})


def of_mudata():
    mdata, _ = mdata_of(*integrated())
    return mdata


@pytest.mark.parametrize(
    ("data", "arguments", "error", "message"),
    [
        pytest.param(None, {"embeddings": {"m": X}}, ScmambaError, "must be a MuData", id="no_data"),
        pytest.param([1, 2], {}, ScmambaError, "must be a MuData", id="data_of_another_kind"),
        pytest.param(twenty, {"embeddings": {"m": {"rna": X, "atac": X[:, :1]}}}, ScmambaError, "not in one",
                     id="different_dimensions"),
        pytest.param(twenty, {"embeddings": {"m": X}, "labels_key": ["a"] * 19}, ScmambaError, r"got \(19,\)",
                     id="labels_of_another_length"),
        pytest.param(twenty, {"embeddings": {"m": X}, "labels_key": [None] * 20}, ScmambaError, "missing for every cell",
                     id="labels_all_missing"),
        pytest.param(twenty, {"embeddings": {"m": X * np.nan}}, ScmambaError, "No row .* is finite", id="all_nan"),
        pytest.param(twenty, {"embeddings": {"m": X[:, 0]}}, ScmambaError, r"dense matrix of numbers, got \(20,\)", id="a_vector"),
        pytest.param(twenty, {"embeddings": {"m": np.full((5, 2), "a")}}, ScmambaError, "matrix of numbers", id="text"),
        pytest.param(twenty, {"embeddings": {"m": 3}}, ScmambaError, "dense matrix of numbers, got int", id="a_number"),
        pytest.param(twenty, {"embeddings": {"m": sparse.csr_matrix(X)}}, ScmambaError, "got csr_matrix", id="sparse"),
        pytest.param(of_mudata, {"embeddings": {"m": sparse.csr_matrix(X)}}, ScmambaError, "got csr_matrix",
                     id="sparse_beside_data"),
        pytest.param(twenty, {"embeddings": {"m": {}}}, ScmambaError, "without embeddings", id="method_without_parts"),
        pytest.param(twenty, {"embeddings": {"m": pd.DataFrame(X, index=["0"] * 20)}}, ScmambaError, "not unique",
                     id="names_twice"),
        pytest.param(twenty, {"embeddings": {"m": X}, "metrics": ["ARI", "FOSCTM"]}, UnknownNameError,
                     "Did you mean 'FOSCTTM'.*'ARI', 'NMI'", id="unknown_metric"),
        pytest.param(twenty, {"embeddings": {"m": X}, "metrics": []}, ScmambaError, "metrics is empty", id="no_metric"),
        pytest.param(twenty, {"embeddings": {"m": X}, "metrics": ["FOSCTTM"]}, ScmambaError, "Nothing could be scored.*FOSCTTM",
                     id="nothing_left"),
        pytest.param(lambda: cells({"": X[:1]}), {"embeddings": {"m": {"rna": X[:1], "atac": X[:1]}}, "metrics": "FOSCTTM"}, ScmambaError, "Nothing could be scored",
                     id="one_cell"),
        pytest.param(twenty, {"embeddings": {"m": X}, "max_cells": 1}, ScmambaError, "at least 2", id="max_cells_of_one"),
        pytest.param(twenty, {"embeddings": {"m": X}, "max_cells": 10.5}, ScmambaError, "whole number", id="max_cells_between"),
        pytest.param(twenty, {"embeddings": {"m": X}, "cells": [20]}, ScmambaError, "0 to 19", id="cell_out_of_range"),
        pytest.param(twenty, {"embeddings": {"m": X}, "cells": np.ones(3, bool)}, ScmambaError, "one entry per cell",
                     id="mask_of_another_length"),
        pytest.param(of_mudata, {"embeddings": {"m": "X_pca"}}, UnknownNameError, "'X_scmamba'", id="missing_key"),
        pytest.param(of_mudata, {"embeddings": {"m": {"rna": "X_pca"}}}, UnknownNameError, "for 'm' .rna.",
                     id="missing_key_of_a_modality"),
        pytest.param(of_mudata, {"labels_key": "celltype"}, UnknownNameError, "Did you mean 'cell_type'", id="missing_column"),
        pytest.param(of_mudata, {"embeddings": {"m": X}}, ScmambaError, "20 rows for 320", id="rows_of_other_data"),
        pytest.param(of_mudata, {"embeddings": {"m": pd.DataFrame(X)}}, ScmambaError, "not in the data", id="unknown_cells"),
        pytest.param(of_mudata, {"cells": ["cell0", "nobody"]}, ScmambaError, "nobody", id="unknown_cell_asked_for"),
        pytest.param(of_mudata, {"embeddings": {"m": {"atac": np.ones((300, 2))}}}, ScmambaError, "300 rows for 320",
                     id="rows_of_a_modality"),
        pytest.param(of_mudata, {"embeddings": ["X_scmamba"]}, ScmambaError, "a dict from method", id="a_list"),
    ],
)  # fmt: skip
def test_input_that_cannot_be_scored_is_refused(data, arguments, error, message):
    with pytest.raises(error, match=message):
        evaluate_integration(data() if callable(data) else data, progress=False, **arguments)


# -- the scores of scib-metrics ---------------------------------------


@pytest.mark.slow  # jax compiles every score
def test_the_panel_of_scib_is_what_its_benchmarker_gives():
    bench = pytest.importorskip("scib_metrics.benchmark")
    good, labels, batches = integrated()
    bad = np.random.default_rng(1).normal(size=(N, Z))
    found = evaluate_integration(
        cells(good), {"good": good, "bad": bad}, labels_key=labels, batch_key=batches, panel="scib", progress=False
    )
    assert list(found.index) == ["good", "bad"]
    assert (
        found.loc["good", ("Aggregate score", "Bio conservation")]
        > 0.8
        > 0.6
        > found.loc["bad", ("Aggregate score", "Bio conservation")]
    )
    them = ad.AnnData(
        obs=pd.DataFrame({"t": labels, "b": batches}, dtype="category"), obsm={"z": good["joint"].astype("f4")}
    )
    theirs = bench.Benchmarker(
        them, "b", "t", ["z"], batch_correction_metrics=None, pre_integrated_embedding_obsm_key="z", progress_bar=False
    )  # fmt: skip
    theirs.benchmark()
    expected = theirs.get_results(min_max_scale=False).loc["z"]
    for name, value in found.loc["good", "Bio conservation"].items():
        assert value == pytest.approx(expected[name], abs=1e-3), name


def test_the_panel_of_scib_names_what_it_cannot_use(monkeypatch):
    parts, labels, _ = integrated()
    with pytest.raises(UnknownNameError, match="panel"):
        evaluate_integration(cells(parts), {"m": parts}, labels_key=labels, panel="scbi")
    with pytest.raises(ScmambaError, match="takes no metrics, device"):
        evaluate_integration(cells(parts), {"m": parts}, labels_key=labels, panel="scib", metrics="ARI", device="cpu")
    monkeypatch.setitem(sys.modules, "scib_metrics.benchmark", None)  # as if it were not installed
    with pytest.raises(ScmambaError, match="pip install scib-metrics"):
        evaluate_integration(cells(parts), {"m": parts}, labels_key=labels, panel="scib")


def test_the_panel_of_scib_needs_joint_embeddings_and_labels():
    pytest.importorskip("scib_metrics")
    parts, labels, _ = integrated()
    with pytest.raises(ScmambaError, match="joint embeddings, which 'm' lacks"):
        evaluate_integration(cells(parts), {"m": {"rna": parts["rna"]}}, labels_key=labels, panel="scib")
    with pytest.raises(ScmambaError, match="0 of 320 have them"):
        evaluate_integration(cells(parts), {"m": parts}, panel="scib")


def test_every_method_has_a_row_in_the_order_given():
    parts, _, batches = integrated()
    pairs = {kind: parts[kind] for kind in ("rna", "atac")}
    methods = {"J": {"joint": parts["joint"]}, "A": pairs, "K": {"joint": parts["joint"]}}
    for batch_key, wanted in ((None, ["FOSCTTM"]), (batches, ["other modality", "batch mixing"])):
        with pytest.warns(UserWarning, match="Not scored: .* 'J'"):
            table = evaluate_integration(cells(parts), methods, batch_key=batch_key, metrics=wanted, progress=False)
        assert table.index.tolist() == ["J", "A", "K"]
        assert table.loc["J"].isna().any() and table.loc["A"].notna().all()


def test_cells_that_lack_a_modality_may_be_nan_in_every_form_of_its_embedding():
    parts, _, _ = integrated()
    x, y = parts["rna"].copy(), parts["atac"].copy()
    x[:10], y[-10:] = np.nan, np.nan
    data = cells(parts)
    mdata = mudata.MuData({"rna": data[10:].copy(), "atac": data[:-10].copy()})
    names = data.obs_names
    order = mdata.obs_names
    tables = {"rna": pd.DataFrame(x, names), "atac": pd.DataFrame(y, names)}
    mdata.obsm["x"], mdata.obsm["y"] = (table.loc[order].to_numpy() for table in tables.values())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        scores = [
            evaluate_integration(mdata, {"m": given}, metrics="FOSCTTM", progress=False).iloc[0, 0]
            for given in (tables, {"rna": "x", "atac": "y"}, {"rna": mdata.obsm["x"], "atac": mdata.obsm["y"]})
        ]
    assert scores == pytest.approx([scores[0]] * 3)


def test_one_batch_is_called_so():
    parts, labels, _ = integrated()
    with pytest.warns(UserWarning, match=r"batch mixing.* \(all cells are of the batch 'one'"):
        evaluate_integration(
            cells(parts), {"m": parts}, labels_key=labels, batch_key=np.full(N, "one"), metrics=["MAP", "batch mixing"],
            progress=False,
        )  # fmt: skip
