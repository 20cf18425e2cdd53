"""Simulated links are found again; numbers are those of the definition; what cannot be linked is named."""

import tracemalloc

import mudata
import numpy as np
import pandas as pd
import pytest
import scvi
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from scmamba_scvi import SCMAMBA
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.model.tools.links import _classes, _compare, _pairs

PLACES = ["chrom", "start", "end", "strand"]


@pytest.fixture(scope="module")
def linked():
    """A model made before its genes had coordinates, and its data, which have them now."""
    mdata = simulate_multiome(n_cells=1000, n_genes=600, n_peaks=3000, n_cell_types=4, seed=0)
    places = mdata["rna"].var[PLACES]
    mdata["rna"].var = mdata["rna"].var.drop(columns=PLACES)
    scvi.settings.seed = 0
    SCMAMBA.setup_mudata(mdata, batch_key="batch")
    model = SCMAMBA(mdata, encoder="linear")
    model.train(max_epochs=3, enable_progress_bar=False, accelerator="cpu")
    mdata["rna"].var = mdata["rna"].var.join(places)
    return model, mdata


@pytest.fixture(scope="module")
def table(linked):
    with pytest.warns(UserWarning, match="pairs have a feature that no cell has"):
        return linked[0].get_region_links()


def is_true(mdata, table):
    return mdata["atac"].var["linked_gene"].reindex(table["peak"]).to_numpy() == table["gene"].to_numpy()


def correlation_of_counts(mdata, table):
    """Pearson's of log counts over cells, the usual way to link peaks."""

    def standard(key, names):
        x = mdata[key][mdata.obs_names].to_df()[names.unique()]
        x = np.log1p(x.div(mdata[key].to_df().sum(axis=1), axis=0) * 1e4)
        return (x - x.mean()) / x.std(ddof=0)

    genes, peaks = standard("rna", table["gene"]), standard("atac", table["peak"])
    return (genes[table["gene"]].to_numpy() * peaks[table["peak"]].to_numpy()).mean(axis=0)


def test_true_links_rank_above_other_pairs_of_the_window(linked, table):
    """Among pairs of marker genes: where a gene differs between no cells, no peak can be seen to follow it."""
    _, mdata = linked
    of_marker = (mdata["rna"].var["marker_of"] != "").reindex(table["gene"]).to_numpy()
    some = table[of_marker & table["z"].notna().to_numpy()]
    true = is_true(mdata, some)
    found = {name: roc_auc_score(true, some[name]) for name in ("correlation", "z")}
    found["correlation of log counts"] = roc_auc_score(true, correlation_of_counts(mdata, some))
    assert true.sum() > 100 and (~true).sum() > 100
    assert min(found["correlation"], found["z"]) >= 0.8
    assert found["z"] >= found["correlation of log counts"] + 0.04


def test_the_numbers_are_those_of_the_definition(linked, table):
    model, mdata = linked
    vectors = {}
    for kind in ("rna", "atac"):
        values = model.module.values[kind](model.adata_manager.matrix(kind).read(np.arange(mdata.n_obs)))
        embedded = model.get_latent_representation(modality=kind).astype(float)
        covariance = values.detach().to_dense().numpy().astype(float).T @ (embedded - embedded.mean(0))
        vectors[kind] = pd.DataFrame(covariance, index=mdata[kind].var_names)
        vectors[kind] /= np.linalg.norm(covariance, axis=1, keepdims=True).clip(1e-30)
    seen = pd.Series((mdata["atac"].X > 0).sum(0).A1, index=mdata["atac"].var_names)
    edges = np.quantile(seen[seen > 0], np.arange(1, 10) / 10)
    chrom = mdata["atac"].var["chrom"].astype(str)
    for row in table.dropna().sample(60, random_state=0).itertuples():
        cosines = vectors["atac"] @ vectors["rna"].loc[row.gene]
        of_class = np.searchsorted(edges, seen, "right") == np.searchsorted(edges, seen[row.peak], "right")
        background = cosines[of_class & (seen > 0) & (chrom != row.chrom)]
        assert len(background) > 100
        z = (cosines[row.peak] - background.mean()) / background.std(ddof=0)
        np.testing.assert_allclose([row.correlation, row.z, row.p], [cosines[row.peak], z, norm.sf(z)], rtol=1e-3, atol=1e-4)  # fmt: skip
    p = table["p"].dropna().to_numpy()  # sorted
    ratio = p * len(p) / np.arange(1, len(p) + 1)
    np.testing.assert_allclose(table["q"].dropna(), np.minimum.accumulate(ratio[::-1])[::-1].clip(max=1), rtol=1e-9)
    assert table["z"].dropna().is_monotonic_decreasing and table["z"].isna().to_numpy()[-1]


def test_pairs_and_distances_are_those_of_the_coordinates(linked, table):
    """Every pair of the window is there once, with its distance along the gene's strand."""
    _, mdata = linked
    genes, peaks = mdata["rna"].var, mdata["atac"].var
    start = np.where(genes["strand"] == "-", genes["end"], genes["start"])
    centre = ((peaks["start"] + peaks["end"]) // 2).to_numpy()
    away = centre - start[:, None]
    near = (np.abs(away) <= 250_000) & (peaks["chrom"].astype(str).to_numpy() == genes["chrom"].astype(str).to_numpy()[:, None])  # fmt: skip
    away = np.where((genes["strand"] == "-").to_numpy()[:, None], -away, away)
    expected = {(genes.index[i], peaks.index[j]): away[i, j] for i, j in np.argwhere(near)}
    assert dict(zip(zip(table["gene"], table["peak"], strict=True), table["distance"], strict=True)) == expected
    assert len(table) == len(expected) and (expected.values() and min(expected.values()) < 0 < max(expected.values()))
    ensembl = mdata.copy()
    ensembl["rna"].var["strand"] = np.where(genes["strand"] == "-", -1, 1)
    assert linked[0].get_region_links(ensembl)["distance"].equals(table["distance"])
    closer = linked[0].get_region_links(max_distance=1000)
    assert len(closer) == (np.abs(table["distance"]) <= 1000).sum()


def test_new_data_take_the_strands_of_the_model(table, tmp_path):
    """A query has the model's features without their columns; distances are those of the reference."""
    mdata = simulate_multiome(n_cells=300, n_genes=200, n_peaks=600, n_cell_types=2, seed=0)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    model.export(tmp_path / "exported")
    here = model.get_region_links().set_index(["gene", "peak"])["distance"].sort_index()
    new = mdata[np.arange(299, -1, -1)].copy()
    new["rna"].var = new["rna"].var.drop(columns=PLACES)
    for of in (model, SCMAMBA.from_export(tmp_path / "exported", mdata)):
        query = SCMAMBA.load_query_data(new, of)
        assert query.get_region_links().set_index(["gene", "peak"])["distance"].sort_index().equals(here)
    assert (here < 0).any() and (here > 0).any()


def test_coordinates_of_the_data_count_and_the_model_s_fill_their_gaps():
    """As after `annotate_genome` of a trained model's data, of all genes or of those that had none."""
    mdata = simulate_multiome(n_cells=300, n_genes=200, n_peaks=600, n_cell_types=2, seed=0)
    places = mdata["rna"].var[PLACES].astype({"chrom": str, "strand": str})
    mdata["rna"].var[PLACES] = places
    hidden = np.arange(200) % 2 == 1
    mdata["rna"].var.loc[hidden, PLACES] = ["", -1, -1, ""]
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    some = model.get_region_links()
    mdata["rna"].var[PLACES] = places
    every = model.get_region_links()
    assert {*every["gene"]} - {*some["gene"]} <= {*mdata["rna"].var_names[hidden]} and len(every) > 1.5 * len(some)
    mdata["rna"].var.loc[~hidden, PLACES] = ["", -1, -1, ""]  # the model has these
    both = model.get_region_links().set_index(["gene", "peak"])["distance"]
    assert both.sort_index().equals(every.set_index(["gene", "peak"])["distance"].sort_index())
    mdata["rna"].var[PLACES] = places.assign(start=places["start"] + 5, end=places["end"] + 5)
    moved = model.get_region_links().set_index(["gene", "peak"])["distance"]
    away = (moved - every.set_index(["gene", "peak"])["distance"]).dropna()
    assert {*away.abs()} == {5} and len(away) > 0.9 * len(every)


def test_chromosomes_of_another_naming_are_no_empty_table(linked):
    model, mdata = linked
    refseq = mdata.copy()
    numbers = refseq["rna"].var["chrom"].astype(str).str.removeprefix("chr")
    refseq["rna"].var["chrom"] = "NC_0000" + numbers.str.zfill(2) + ".11"
    with pytest.raises(ScmambaError, match=r"no chromosome in common, 'NC_.*.11' or 'chr1' for instance"):
        model.get_region_links(refseq)
    with pytest.warns(UserWarning, match="No peak lies within 0 bases of these genes"):
        assert model.get_region_links(genes=mdata["rna"].var_names[:1], max_distance=0).empty


def test_genes_without_strands_are_said_to_begin_at_their_start(linked, table):
    model, mdata = linked
    unknown = mdata.copy()
    unknown["rna"].var = unknown["rna"].var.drop(columns="strand")
    with pytest.warns(UserWarning, match="No strand of a gene is known.*annotate_genome"):
        links = model.get_region_links(unknown).set_index(["gene", "peak"])["distance"].sort_index()
    assert not links.equals(table.set_index(["gene", "peak"])["distance"].sort_index())


def test_genes_moved_to_other_chromosomes_have_no_links(linked, table):
    """Without true links, p is distributed as by chance; with some, more of them are low."""
    model, mdata = linked
    moved = mdata.copy()
    var = moved["rna"].var
    # half of the list further, every gene is on another chromosome
    moved["rna"].var = var.assign(**{name: np.roll(var[name].to_numpy(), len(var) // 2) for name in PLACES})
    null = model.get_region_links(moved)
    assert len(null) > 1000
    assert null["q"].min() > 0.2
    low = [(found["p"].dropna() < 0.05).mean() for found in (null, table)]
    assert low[0] < 0.06 and low[1] > 0.09


def test_a_feature_that_all_cells_have_alike_has_no_links(mdata, quick):
    """The covariance of a gene or peak that was counted in every cell, read as presence, is rounding errors."""
    for part in mdata.mod.values():
        x = part.X.tolil()
        x[:, 7] = 2
        part.X = x.tocsr()
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear", values="binary")
    model.train(**quick)
    table = model.get_region_links(max_distance=10**9)
    alike = (table["gene"] == mdata["rna"].var_names[7]) | (table["peak"] == mdata["atac"].var_names[7])
    assert alike.any() and table.loc[alike, ["correlation", "z", "p"]].isna().all(axis=None)
    assert table.loc[~alike, "z"].notna().mean() > 0.5


def test_cells_need_not_have_both_and_may_come_in_any_order(linked):
    model, mdata = linked
    rna, atac = mdata["rna"][:600][::-1].copy(), mdata["atac"][400:].copy()
    atac = atac[:, np.random.default_rng(0).permutation(atac.n_vars)].copy()
    atac.var["chrom"] = atac.var["chrom"].astype(str).str.removeprefix("chr")
    with without_pulling():
        other = mudata.MuData({"rna": rna, "atac": atac})
    found = model.get_region_links(other).dropna()
    of_marker = (mdata["rna"].var["marker_of"] != "").reindex(found["gene"]).to_numpy()
    assert roc_auc_score(is_true(mdata, found[of_marker]), found["z"][of_marker]) >= 0.75


def test_memory_is_that_of_pairs_and_features():
    """20,000 genes times 150,000 peaks would be 12 GB. Random vectors give z with mean 0 and spread 1."""
    rng = np.random.default_rng(0)
    n = {"genes": 20_000, "peaks": 150_000}
    vectors = {name: rng.normal(size=(size, 16)).astype(np.float32) for name, size in n.items()}
    vectors = {name: v / np.linalg.norm(v, axis=1, keepdims=True) for name, v in vectors.items()}
    chrom = {name: rng.integers(24, size=size) for name, size in n.items()}
    place = {name: rng.integers(125_000_000, size=size) for name, size in n.items()}
    n_cells = rng.integers(1, 500, size=n["peaks"])
    tracemalloc.start()
    pairs = _pairs(np.arange(n["genes"]), place["genes"], chrom["genes"], place["peaks"], chrom["peaks"], 250_000)
    _, z = _compare(vectors["genes"], vectors["peaks"], *pairs, chrom["peaks"], _classes(n_cells))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(z) > 400_000 and peak < 100e6
    assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01


def test_named_genes_get_the_numbers_they_get_among_all(linked, table):
    model, _ = linked
    names = table["gene"][:3].tolist()
    some = model.get_region_links(genes=names[0], batch_size=100)
    assert set(some["gene"]) == {names[0]}
    whole = table[table["gene"] == names[0]].set_index("peak").loc[some["peak"]]
    np.testing.assert_allclose(some[["correlation", "z"]], whole[["correlation", "z"]], atol=1e-4)
    assert len(model.get_region_links(genes=names)) == table["gene"].isin(names).sum()


def test_a_model_of_the_published_shape_links_too_and_alike_after_loading(trained, tmp_path):
    """Vectors come from cells, not from weights, so that an encoder whose features share weights has them too."""
    mdata = trained.adata
    SCMAMBA.setup_mudata(mdata)
    paper = SCMAMBA(mdata, patch_embedding="shared", linear_branch=False, spectral=False, gate_init=1.0, joint="shared")
    paper.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    found = paper.get_region_links()
    assert found["z"].notna().sum() > 100
    paper.save(tmp_path / "model", save_anndata=False)
    again = SCMAMBA.load(str(tmp_path / "model"), adata=mdata).get_region_links()
    pd.testing.assert_frame_equal(found, again, rtol=1e-4)


def test_one_chromosome_is_no_background(mdata):
    for key in mdata.mod:
        n = mdata[key].n_vars
        mdata[key].var_names = [f"{key} {i}" for i in range(n)]
        mdata[key].var = mdata[key].var.assign(chrom="chr1", start=np.arange(n) * 9_000, end=np.arange(n) * 9_000 + 500)
    mdata.update()
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    with pytest.warns(UserWarning, match="fewer than 20 peaks"):
        found = model.get_region_links()
    assert found["correlation"].notna().any() and found[["z", "p", "q"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"genes": ["GENE00"]}, UnknownNameError, r"gene \(1 of 1\) 'GENE00'", id="no such gene"),
        pytest.param({"genes": []}, ScmambaError, "genes is empty", id="no gene"),
        pytest.param({"max_distance": -1}, ScmambaError, "max_distance must be at least 0", id="distance"),
        pytest.param({"max_distance": 1e5}, ScmambaError, "max_distance must be a whole number", id="not whole"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(linked, arguments, error, message):
    with pytest.raises(error, match=message):
        linked[0].get_region_links(**arguments)


def test_data_that_cannot_be_linked_are_named(linked):
    model, mdata = linked
    with pytest.raises(ScmambaError, match="no cells with 'atac'"):
        model.get_region_links(mdata["rna"])
    with without_pulling():
        rna_alone = mudata.MuData({"rna": mdata["rna"].copy()})
    with pytest.raises(ScmambaError, match="no cells with 'atac'"):
        model.get_region_links(rna_alone)
    nowhere = mdata.copy()
    nowhere["rna"].var = nowhere["rna"].var.drop(columns=PLACES)
    with pytest.raises(ScmambaError, match="No feature of 'rna' has coordinates.*annotate_genome"):
        model.get_region_links(nowhere)
    partly = mdata.copy()
    partly["rna"].var = partly["rna"].var.assign(chrom=partly["rna"].var["chrom"].astype(str))
    partly["rna"].var.iloc[0, partly["rna"].var.columns.get_loc("chrom")] = ""
    name = partly["rna"].var_names[0]
    with pytest.raises(ScmambaError, match=f"1 of 1 genes have no coordinates, such as '{name}'"):
        model.get_region_links(partly, genes=name)
    assert name not in set(model.get_region_links(partly)["gene"])
    with pytest.raises(ScmambaError, match="Train the model first"):
        SCMAMBA(mdata, encoder="linear").get_region_links()


def test_a_model_without_peaks_is_refused():
    mdata = simulate_multiome(n_peaks=0, n_cells=100, n_genes=60, n_proteins=10, n_cell_types=2, seed=0)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    with pytest.raises(ScmambaError, match=r"has \['rna', 'protein'\], no atac"):
        model.get_region_links()
