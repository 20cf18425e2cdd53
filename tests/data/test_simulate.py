from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from mudata import MuData, read_h5mu
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError


@pytest.fixture(scope="module")
def multiome() -> MuData:
    return simulate_multiome()


@pytest.fixture(scope="module")
def citeseq() -> MuData:
    return simulate_multiome(n_peaks=0, n_proteins=50)


def rates(adata) -> np.ndarray:
    """Fraction of each feature in the counts of each type, ``(types, f)``, types sorted by name."""
    types = adata.obs["cell_type"]
    totals = np.stack([np.asarray(adata.X[(types == t).to_numpy()].sum(0)).ravel() for t in types.cat.categories])
    return totals / totals.sum(1, keepdims=True)


def same(a: MuData, b: MuData) -> bool:
    equal = a.obs.equals(b.obs) and [*a.mod] == [*b.mod] and np.array_equal(a.obsm["X_state"], b.obsm["X_state"])
    return equal and all(
        np.array_equal(a[k].X.data, b[k].X.data) and np.array_equal(a[k].X.indices, b[k].X.indices)
        and a[k].var.equals(b[k].var) for k in a.mod
    )  # fmt: skip


@pytest.mark.parametrize(("n_peaks", "n_proteins"), [(40, 0), (0, 40), (40, 40)])
def test_the_seed_decides_everything(n_peaks, n_proteins):
    def simulate(seed):
        return simulate_multiome(200, 300, n_peaks, n_proteins=n_proteins, seed=seed)

    before = np.random.get_state()[1].copy()
    assert same(simulate(5), simulate(5))
    assert not same(simulate(5), simulate(6))
    assert np.array_equal(before, np.random.get_state()[1])  # the global generator is not touched


@pytest.mark.parametrize(
    ("kind", "n_features", "feature_type", "density"),
    [
        pytest.param("rna", 2000, "Gene Expression", (0.05, 0.20), id="rna"),
        pytest.param("atac", 10000, "Peaks", (0.03, 0.10), id="atac"),
    ],
)
def test_a_multiome_holds_sparse_counts_with_types_and_batches(multiome, kind, n_features, feature_type, density):
    adata = multiome[kind]
    assert adata.shape == (2000, n_features)
    assert sparse.isspmatrix_csr(adata.X) and adata.X.dtype == np.float32 and adata.X.has_canonical_format
    assert (adata.X.data > 0).all() and (adata.X.data == np.round(adata.X.data)).all()
    assert density[0] < adata.X.nnz / np.prod(adata.shape) < density[1]
    assert adata.obs_names.is_unique and adata.var_names.is_unique
    assert (adata.obs_names == multiome.obs_names).all()
    assert set(adata.var["feature_types"]) == {feature_type}
    for name in ("cell_type", "batch"):
        assert isinstance(adata.obs[name].dtype, pd.CategoricalDtype)
        assert (adata.obs[name].to_numpy() == multiome.obs[name].to_numpy()).all()
        assert isinstance(multiome.obs[name].dtype, pd.CategoricalDtype)


def test_a_citeseq_holds_dense_protein_counts_linked_to_genes(citeseq):
    adata = citeseq["protein"]
    assert adata.shape == (2000, 50)
    assert adata.X.dtype == np.float32 and (adata.X.data == np.round(adata.X.data)).all()
    assert adata.X.nnz / np.prod(adata.shape) > 0.8
    assert set(adata.var["feature_types"]) == {"Antibody Capture"}
    assert adata.var["linked_gene"].isin(citeseq["rna"].var_names).all()
    assert adata.var_names.is_unique


def test_coordinates_are_a_plausible_genome(multiome):
    genes, peaks = multiome["rna"].var, multiome["atac"].var
    for var in (genes, peaks):
        assert (var["start"] > 0).all() and (var["end"] > var["start"]).all()
        by_chrom = var["chrom"].value_counts()
        assert by_chrom["chr1"] > by_chrom["chr10"] > by_chrom["chr21"]
        assert list(var["chrom"].cat.categories)[:3] == ["chr1", "chr2", "chr3"]
    assert (peaks.index == [f"{c}:{a}-{b}" for c, a, b in zip(peaks.chrom, peaks.start, peaks.end, strict=True)]).all()
    linked = peaks[peaks["linked_gene"] != ""]
    gene = genes.loc[linked["linked_gene"]]
    assert (gene["chrom"].astype(str).to_numpy() == linked["chrom"].astype(str).to_numpy()).all()
    to_start = np.abs(linked["start"].to_numpy() - gene["start"].to_numpy())
    to_end = np.abs(linked["start"].to_numpy() - gene["end"].to_numpy())
    assert np.median(np.minimum(to_start, to_end)) < 50_000
    assert 0.3 < len(linked) / len(peaks) < 0.6


def test_fractions_of_types_fall_to_that_of_the_rare_one(multiome):
    fractions = multiome.obs["cell_type"].value_counts(normalize=True)
    assert len(fractions) == 8
    assert fractions.min() == pytest.approx(0.02, abs=0.002)
    assert list(fractions.index) == [f"type_{i}" for i in range(1, 9)]


@pytest.mark.parametrize("kind", ["rna", "atac", "protein"])
def test_markers_are_enriched_in_their_type(multiome, citeseq, kind):
    adata = (citeseq if kind == "protein" else multiome)[kind]
    rate, marker_of = rates(adata), adata.var["marker_of"].to_numpy()
    types = list(adata.obs["cell_type"].cat.categories)
    assert set(marker_of) <= {*types, ""}
    highest = []
    for i, name in enumerate(types):
        mine = marker_of == name
        if mine.any():
            others = np.delete(rate[:, mine].sum(1), i)
            highest.append(rate[i, mine].sum() > 1.3 * np.median(others))
    assert len(highest) >= 6 and all(highest)


def test_peaks_follow_their_gene_across_types_and_other_peaks_do_not(multiome):
    rna, atac = (np.log(rates(multiome[k]) + 1e-6) for k in ("rna", "atac"))
    genes, peaks = multiome["rna"].var, multiome["atac"].var
    markers = peaks["linked_gene"].isin(genes.index[genes["marker_of"] != ""]).to_numpy()
    gene = genes.index.get_indexer(peaks["linked_gene"][markers])

    def mean_correlation(peak, gene):
        a, b = atac[:, peak] - atac[:, peak].mean(0), rna[:, gene] - rna[:, gene].mean(0)
        return float(np.mean((a * b).sum(0) / np.maximum(np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0), 1e-9)))

    linked = mean_correlation(np.flatnonzero(markers), gene)
    shuffled = mean_correlation(np.flatnonzero(markers), np.random.default_rng(0).permutation(gene))
    assert linked > 0.35 and abs(shuffled) < 0.15


def test_states_are_seen_in_both_modalities():
    def held_out_r2(state_strength):
        mdata = simulate_multiome(1200, 1500, 4000, 1, 1, batch_strength=0, state_strength=state_strength)
        state, scores = mdata.obsm["X_state"], []
        for kind in ("rna", "atac"):
            x = mdata[kind].X.toarray()
            x = np.log1p(1e4 * x / np.maximum(x.sum(1, keepdims=True), 1))
            u, s, _ = randomized_svd(x - x.mean(0), 15, random_state=0)
            z = u * s
            fit = np.linalg.lstsq(z[:900], state[:900], rcond=None)[0]
            scores.append(1 - (state[900:] - z[900:] @ fit).var() / state[900:].var())
        return scores

    assert min(held_out_r2(1.0)) > 0.2
    assert max(held_out_r2(0.0)) < 0.05


@pytest.mark.parametrize("kind", ["rna", "atac", "protein"])
def test_batches_differ_as_much_as_asked(kind):
    n_peaks, n_proteins = (0, 30) if kind == "protein" else (500, 0)

    def distance(strength):
        mdata = simulate_multiome(1000, 500, n_peaks, 1, n_proteins=n_proteins, batch_strength=strength)
        adata = mdata[kind]
        first = (adata.obs["batch"] == "batch_1").to_numpy()
        a, b = (np.asarray(adata.X[rows].sum(0)).ravel() for rows in (first, ~first))
        seen = (a > 50) & (b > 50)
        return np.log(a[seen] / b[seen]).std()

    none, some, strong = distance(0.0), distance(0.3), distance(0.8)
    assert none < 0.2 < some < strong
    assert strong == pytest.approx(0.8 * np.sqrt(2), rel=0.35)


def test_library_sizes_are_as_asked_and_hardly_shared():
    mdata = simulate_multiome(1500, 800, 3000, rna_counts=900, atac_counts=400, n_cell_types=2)
    depth = {kind: np.asarray(mdata[kind].X.sum(1)).ravel() for kind in ("rna", "atac")}
    assert np.median(depth["rna"]) == pytest.approx(900, rel=0.08)
    assert np.median(depth["atac"]) == pytest.approx(400, rel=0.08)
    assert 0.0 < np.corrcoef(np.log(depth["rna"]), np.log(depth["atac"]))[0, 1] < 0.4


@pytest.mark.parametrize(("n_peaks", "n_proteins"), [(100, 0), (0, 100), (100, 20)])
@pytest.mark.parametrize("paired_fraction", [0.0, 0.25, 1.0])
def test_the_fraction_of_whole_cells_is_as_asked_and_the_rest_is_split_evenly(n_peaks, n_proteins, paired_fraction):
    mdata = simulate_multiome(480, 200, n_peaks, n_proteins=n_proteins, paired_fraction=paired_fraction)
    assert mdata.n_obs == 480
    n_kinds = len(mdata.mod)
    assert n_kinds == 1 + (n_peaks > 0) + (n_proteins > 0)
    of_cell = np.sum([mdata.obs_names.isin(mod.obs_names) for mod in mdata.mod.values()], axis=0)
    assert (of_cell == n_kinds).sum() == 480 * paired_fraction and set(of_cell) <= {1, n_kinds}
    alone = 480 * (1 - paired_fraction) / n_kinds
    assert [mod.n_obs for mod in mdata.mod.values()] == [480 * paired_fraction + alone] * n_kinds
    for mod in mdata.mod.values():
        assert (mdata.obs.loc[mod.obs_names, "cell_type"].to_numpy() == mod.obs["cell_type"].to_numpy()).all()


def test_truth_and_arguments_survive_writing(tmp_path):
    mdata = simulate_multiome(60, 80, 90, paired_fraction=0.5)
    mdata.write(tmp_path / "m.h5mu")
    again = read_h5mu(tmp_path / "m.h5mu")
    assert again.uns["simulation"]["n_peaks"] == 90 and again.uns["simulation"]["paired_fraction"] == 0.5
    assert (again["atac"].var["linked_gene"] == mdata["atac"].var["linked_gene"]).all()
    assert simulate_multiome(**again.uns["simulation"])["atac"].X.nnz == mdata["atac"].X.nnz


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param({"n_cells": 3, "n_cell_types": 3, "n_batches": 3}, id="a_cell_each"),
        pytest.param({"n_genes": 1, "n_peaks": 1}, id="one_feature"),
        pytest.param(
            {"n_cells": 40, "n_cell_types": 2, "n_batches": 8, "paired_fraction": 0, "seed": 1},
            id="batch_without_a_modality",
        ),
        pytest.param({"n_cell_types": 1, "n_batches": 1, "rare_fraction": 1.0}, id="one_type"),
        pytest.param({"n_cell_types": 20, "rare_fraction": 0.05}, id="equal_shares_of_many_types"),
    ],
)
def test_every_type_and_batch_has_cells_at_small_and_odd_sizes(sizes):
    mdata = simulate_multiome(**{"n_cells": 60, "n_genes": 30, "n_peaks": 40, **sizes})
    assert mdata.obs["cell_type"].nunique() == sizes.get("n_cell_types", 8)
    assert mdata.obs["batch"].nunique() == sizes.get("n_batches", 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param({"n_genes": 0}, "n_genes must be at least 1, got 0", id="no_genes"),
        pytest.param({"n_peaks": 0}, "n_peaks and n_proteins are 0", id="one_modality"),
        pytest.param({"n_cells": 5}, "5 cells do not fill 8 types", id="fewer_cells_than_types"),
        pytest.param({"rare_fraction": 0.2}, r"at most 1 / n_cell_types = 0.125", id="rarest_type_above_its_fraction"),
        pytest.param({"rare_fraction": 0.0}, "rare_fraction", id="rarest_type_without_cells"),
        pytest.param({"batch_strength": -1}, "batch_strength must not be negative", id="negative_strength"),
        pytest.param({"paired_fraction": 1.5}, r"in \[0, 1\], got 1.5", id="share_above_one"),
        pytest.param({"seed": -1}, "seed must be at least 0, got -1", id="seed"),
        pytest.param({"n_cells": 100.0}, "n_cells must be a whole number, got 100.0", id="cells_as_float"),
        pytest.param({"rna_counts": 0}, "rna_counts must be above 0", id="no_counts"),
        pytest.param({"state_strength": float("nan")}, "state_strength", id="nan"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, says):
    with pytest.raises(ScmambaError, match=says):
        simulate_multiome(**arguments)


def test_more_proteins_than_genes_are_refused():
    with pytest.raises(ScmambaError, match="60 proteins need as many genes, n_genes is 50"):
        simulate_multiome(n_genes=50, n_peaks=0, n_proteins=60)


@pytest.mark.slow
def test_real_size_stays_sparse_and_fast():
    import time
    import tracemalloc

    begin = time.process_time()
    tracemalloc.start()
    mdata = simulate_multiome(20_000, 20_000, 100_000, 16, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = sum(m.X.data.nbytes + m.X.indices.nbytes + m.X.indptr.nbytes for m in mdata.mod.values())
    assert time.process_time() - begin < 60
    assert peak < 3 * size
    assert mdata["rna"].X.nnz < 0.10 * np.prod(mdata["rna"].shape)
    assert mdata["atac"].X.nnz < 0.05 * np.prod(mdata["atac"].shape)
