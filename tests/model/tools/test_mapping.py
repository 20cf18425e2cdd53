"""New cells in the embedding of a reference: the same numbers where nothing differs, an error that helps where too much does."""

import mudata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from logged import logged
from scipy import sparse

from scmamba_scvi import SCMAMBA
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import omics_entropy_mixing
from scmamba_scvi.model import SCMAMBAModule
from scmamba_scvi.report import write_report

QUICK = {"max_epochs": 4, "enable_progress_bar": False, "accelerator": "cpu"}


def part(mdata, keep):
    """Cells with plain columns, as another experiment would bring them."""
    with without_pulling():
        out = mudata.MuData({k: AnnData(v[keep].X, v.obs[[]][keep], v.var.copy()) for k, v in mdata.mod.items()})
    out.obs["batch"], out.obs["cell_type"] = (mdata.obs[c][keep].astype(str) for c in ("batch", "cell_type"))
    return out


@pytest.fixture(scope="module")
def model_and_query():
    """A model of two batches, and a third batch that it has not seen."""
    mdata = simulate_multiome(
        n_cells=1200, n_genes=400, n_peaks=1500, n_cell_types=6, n_batches=3, seed=0, batch_strength=0.8
    )
    third = (mdata.obs["batch"] == "batch_3").to_numpy()
    reference, query = part(mdata, ~third), part(mdata, third)
    reference["atac"].uns["genome"] = "GRCh38"
    scvi.settings.seed = 0
    SCMAMBA.setup_mudata(reference, batch_key="batch", labels_key="cell_type")
    model = SCMAMBA(reference)
    model.train(**QUICK)
    # the gate opens slowly: without this, drift of the network would not be seen
    for encoder in model.module.encoders.values():
        encoder.gate.data.fill_(0.3)
    model._fit_joint_embedding(np.asarray(model.train_indices))
    return model, query


def transfer(model, z, query):
    """Share of query cells whose nearest reference cell is of their type."""
    labels = model.adata.obs["cell_type"].to_numpy()
    return (labels[(z @ model.get_latent_representation().T).argmax(1)] == query.obs["cell_type"].to_numpy()).mean()


def mixing(model, z):
    whole = model.get_latent_representation()
    side = np.repeat(["reference", "query"], [len(whole), len(z)])
    return omics_entropy_mixing(np.r_[whole, z], side, n_neighbors=30)


# -- features ----------------------------------------------------------------------------------------------------------


def test_order_and_extra_features_change_nothing(model_and_query):
    model, query = model_and_query
    rng = np.random.default_rng(0)
    mods = {}
    for key, modality in query.mod.items():
        extra = AnnData(
            sparse.csr_matrix(np.ones((query.n_obs, 5), np.float32)), modality.obs, pd.DataFrame(index=list("abcde"))
        )
        wide = AnnData(
            sparse.hstack([modality.X, extra.X], format="csr"),
            modality.obs,
            pd.DataFrame(index=[*modality.var_names, *"abcde"]),
        )
        mods[key] = wide[rng.permutation(wide.n_obs)][:, rng.permutation(wide.n_vars)].copy()
    with without_pulling():
        other = mudata.MuData(mods)
    other.obs["batch"] = query.obs["batch"].reindex(other.obs_names)
    before = {k: (v.X.copy(), v.var.copy()) for k, v in other.mod.items()}
    columns, uns = list(other.obs), dict(other.uns)
    prepared = SCMAMBA.prepare_query_mudata(other, model)
    assert (
        prepared.uns["query_mapping"]["rna"]["ignored"] == 5 and prepared.uns["query_mapping"]["rna"]["coverage"] == 1
    )
    assert list(prepared.obs_names) == list(other.obs_names)
    for kind in model.kinds:
        expected = model.get_latent_representation(query, modality=kind)
        z = model.get_latent_representation(prepared, modality=kind)[prepared.obs_names.get_indexer(query.obs_names)]
        np.testing.assert_allclose(z, expected, atol=1e-5)
    SCMAMBA.load_query_data(other, model, accelerator="cpu")
    assert list(other.obs) == columns and dict(other.uns) == uns
    for key, (x, var) in before.items():
        assert (other[key].X != x).nnz == 0
        pd.testing.assert_frame_equal(other[key].var, var)


def test_missing_features_are_zero_marked_and_counted(model_and_query):
    model, query = model_and_query
    fewer = mudata.MuData({"rna": query["rna"][:, 100:].copy(), "atac": query["atac"].copy()})
    fewer.obs["batch"] = query.obs["batch"]
    prepared = SCMAMBA.prepare_query_mudata(fewer, model)
    assert not prepared["rna"].var["in_query"].iloc[:100].any() and prepared["rna"].var["in_query"].iloc[100:].all()
    assert prepared["rna"].X[:, :100].nnz == 0 and prepared.uns["query_mapping"]["rna"]["coverage"] == 0.75
    z = SCMAMBA.load_query_data(fewer, model, accelerator="cpu").get_latent_representation()
    whole = SCMAMBA.load_query_data(query, model, accelerator="cpu").get_latent_representation()
    assert transfer(model, z, query) > transfer(model, whole, query) - 0.1
    fewer = mudata.MuData({"rna": query["rna"][:, :100].copy()})
    with pytest.raises(ScmambaError, match=r"100 of the 400 features.*25%.*min_coverage=...\), 0.25 or"):
        SCMAMBA.prepare_query_mudata(fewer, model)
    assert SCMAMBA.prepare_query_mudata(fewer, model, min_coverage=0.2).n_obs == query.n_obs


def test_peaks_on_other_intervals_are_summed_by_overlap(model_and_query):
    """Every peak is cut into two pieces with names of their own; their counts sum to those of the peak."""
    model, query = model_and_query
    atac = query["atac"]
    rng = np.random.default_rng(1)
    whole = atac.X.toarray()
    left = rng.binomial(whole.astype(int), 0.5).astype(np.float32)
    chrom, start, end = (atac.var[c].to_numpy() for c in ("chrom", "start", "end"))
    middle = start + (end - start) // 3
    names = [
        f"{c}-{a}-{b}"
        for c, a, b in [*zip(chrom, start - 40, middle, strict=True), *zip(chrom, middle, end + 40, strict=True)]
    ]
    pieces = AnnData(sparse.csr_matrix(np.hstack([left, whole - left])), atac.obs, pd.DataFrame(index=names))
    other = mudata.MuData({"atac": pieces[:, rng.permutation(pieces.n_vars)].copy()})
    prepared = SCMAMBA.prepare_query_mudata(other, model)
    report = prepared.uns["query_mapping"]["atac"]
    assert report["by_overlap"] == 2 * atac.n_vars and report["coverage"] > 0.99 and report["counts_kept"] > 0.999
    differs = (prepared["atac"].X.toarray() != whole[atac.obs_names.get_indexer(prepared.obs_names)]).mean()
    assert differs < 0.01  # the simulated peaks that overlap each other


LAYOUTS = {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_array}
NARROW = [
    ("uint8", "csr"),
    ("uint8", "dense"),
    ("int8", "csc"),
    ("bool", "csr"),
    ("float16", "dense"),
    ("float16", "csr"),
]


@pytest.mark.parametrize(("dtype", "layout"), NARROW)
def test_counts_of_several_peaks_are_summed_in_full(model_and_query, dtype, layout):
    """Two pieces of each peak: 200 + 100 are 44 in the arithmetic of uint8."""
    model, _ = model_and_query
    peaks = model.coordinates("atac")
    middle = (peaks.start + peaks.end) // 2
    ends = [(peaks.start, middle), (middle, peaks.end)]
    names = [f"{c}:{a}-{b}" for start, end in ends for c, a, b in zip(peaks.names(), start, end, strict=True)]
    n = len(middle)
    x = np.tile(np.repeat([100, 27 if dtype == "int8" else 200], n), (3, 1)).astype(dtype)
    counts = LAYOUTS[layout](x.astype("float32") if dtype == "float16" else x)  # scipy makes no float16
    if sparse.issparse(counts):
        counts.data = counts.data.astype(dtype)
    query = AnnData(counts, pd.DataFrame(index=list("abc")), pd.DataFrame(index=names))
    prepared = SCMAMBA.prepare_query_mudata(mudata.MuData({"atac": query}), model)
    found = prepared["atac"].X
    found = found.toarray() if sparse.issparse(found) else found
    assert found.sum() == x.sum(dtype=float) and prepared.uns["query_mapping"]["atac"]["counts_kept"] == 1
    assert (np.median(found, axis=1) == int(x[0, 0]) + int(x[0, -1])).all()


def test_a_query_of_the_model_s_features_may_be_in_half_precision(model_and_query):
    model, query = model_and_query
    peaks = query["atac"][:5].copy()
    peaks.X.data = peaks.X.data.astype("float16")  # scipy cannot copy it
    prepared = SCMAMBA.prepare_query_mudata(peaks, model)
    np.testing.assert_array_equal(prepared["atac"].X.toarray(), query["atac"].X[:5].toarray())


def test_another_build_is_refused(model_and_query):
    model, query = model_and_query
    named = part(query, np.ones(query.n_obs, bool))
    named["atac"].uns["genome"] = "hg19"
    with pytest.raises(ScmambaError, match="query is on hg19, the model was trained on hg38"):
        SCMAMBA.prepare_query_mudata(named, model)
    with pytest.raises(ScmambaError, match="Genome builds differ.*hg19"):
        model.get_latent_representation(named)
    with pytest.raises(ScmambaError, match="query is on mm10"):
        SCMAMBA.prepare_query_mudata(query, model, genome="GRCm38")
    moved = query["atac"].copy()
    moved.var = moved.var.assign(start=moved.var["start"] + 90_000, end=moved.var["end"] + 90_000)
    moved.var_names = [f"peak{i}" for i in range(moved.n_vars)]
    with pytest.raises(ScmambaError, match="overlap one of the model.*another genome build.*the model on hg38"):
        SCMAMBA.prepare_query_mudata(mudata.MuData({"atac": moved}), model)


@pytest.mark.parametrize("name", ["GRCh38_p13_ARC", "GRCh38-2020-A", "my reference"])
def test_names_of_a_build_are_one_build_or_settled_by_the_user(model_and_query, name):
    model, query = model_and_query
    other = part(query, np.ones(query.n_obs, bool))
    for modality in other.mod.values():
        modality.var["genome"] = name
    if name == "my reference":
        with pytest.raises(ScmambaError, match="query is on my reference"):
            SCMAMBA.prepare_query_mudata(other, model)
    prepared = SCMAMBA.prepare_query_mudata(other, model, genome="GRCh38" if name == "my reference" else None)
    assert prepared.uns["genome"] == "hg38" and SCMAMBA.load_query_data(prepared, model).is_query_
    assert not SCMAMBA.load_query_data(prepared, model, unfrozen=True).is_query_


def test_tiles_without_an_end_are_named(model_and_query):
    """As ArchR writes them: seqnames, idx and start."""
    model, query = model_and_query
    var = query["atac"].var
    start = var["start"].to_numpy() // 500 * 500
    tiles = pd.DataFrame(
        {"seqnames": var["chrom"].to_numpy(), "start": start}, index=[f"t{i}" for i in range(len(var))]
    )
    other = mudata.MuData({"atac": AnnData(query["atac"].X, query["atac"].obs, tiles)})
    with pytest.raises(ScmambaError, match=r"no end.*mdata\['atac'\].var\['end'\] = .*\['start'\] \+ 500"):
        SCMAMBA.prepare_query_mudata(other, model)
    other["atac"].var["end"] = other["atac"].var["start"] + 500
    assert SCMAMBA.prepare_query_mudata(other, model).uns["query_mapping"]["atac"]["coverage"] > 0.9


def test_what_cannot_be_mapped_is_refused(model_and_query):
    model, query = model_and_query
    other = query["rna"].copy()
    other.var["gene_symbol"] = other.var_names
    other.var_names = [f"ENSG{i:011d}" for i in range(other.n_vars)]
    with pytest.raises(ScmambaError, match=r"0 of the 400.*var\['gene_symbol'\] holds 400"):
        SCMAMBA.prepare_query_mudata(mudata.MuData({"rna": other}), model)
    with pytest.raises(ScmambaError, match="None of the modalities.*spatial"):
        SCMAMBA.prepare_query_mudata(mudata.MuData({"spatial": AnnData(np.ones((3, 3)))}), model)
    with pytest.raises(ScmambaError, match="There is no folder"):
        SCMAMBA.load_query_data(query, "nowhere")


def test_cells_are_left_out_with_a_warning_or_not_at_all(model_and_query):
    model, query = model_and_query
    rna = query["rna"]
    other = mudata.MuData({"rna": rna[20:].copy(), "spatial": AnnData(np.ones((30, 1)), obs=rna.obs[[]][:30])})
    with pytest.warns(UserWarning, match=rf"20 of {rna.n_obs:,} cells have none of \['rna'\]: they are left out"):
        assert set(SCMAMBA.prepare_query_mudata(other, model).obs_names) == set(rna.obs_names[20:])
    stale = mudata.MuData({"rna": rna[:50].copy()})
    stale.mod["rna"] = rna.copy()
    with pytest.raises(ScmambaError, match=r"cells are not in mdata.obs.*mdata.update\(\)"):
        SCMAMBA.prepare_query_mudata(stale, model)


# -- cells -------------------------------------------------------------------------------------------------------------


def test_a_query_embeds_without_training_beside_cells_of_its_types(model_and_query):
    model, query = model_and_query
    with pytest.warns(UserWarning, match="not corrected for batches"):
        raw = model.get_latent_representation(query)
    loaded = SCMAMBA.load_query_data(query, model, accelerator="cpu")
    z = loaded.get_latent_representation()
    assert transfer(model, z, query) > 0.8 and transfer(model, z, query) > transfer(model, raw, query)
    assert mixing(model, z) > mixing(model, raw) + 0.08
    # the query's model knows the reference's batches by name, and embeds their cells where they were
    np.testing.assert_allclose(
        loaded.get_latent_representation(model.adata), model.get_latent_representation(), atol=1e-5
    )


def test_a_query_computes_in_the_precision_of_its_reference(model_and_query, monkeypatch):
    model, query = model_and_query
    seen, real = set(), SCMAMBAModule.joint_features

    def watched(*arguments):
        seen.add(torch.is_autocast_enabled("cpu"))
        return real(*arguments)

    monkeypatch.setattr(SCMAMBAModule, "joint_features", watched)
    monkeypatch.setattr(model, "precision_", "bf16-mixed")
    # on a CPU, what is done on a GPU
    monkeypatch.setattr(
        SCMAMBA, "_as_trained", lambda self: torch.autocast("cpu", torch.bfloat16, self.precision_ == "bf16-mixed")
    )
    loaded = SCMAMBA.load_query_data(query, model, accelerator="cpu")
    assert loaded.precision_ == "bf16-mixed"
    assert seen == {True}


def test_a_type_that_the_query_lacks_does_not_move_it(model_and_query):
    model, query = model_and_query
    common = query.obs["cell_type"].value_counts().index[0]
    few = part(query, (query.obs["cell_type"] != common).to_numpy())
    z = SCMAMBA.load_query_data(few, model, accelerator="cpu").get_latent_representation()
    assert transfer(model, z, few) > 0.8


def test_rna_without_a_batch_embeds_alike_from_a_model_an_export_and_a_saved_model(model_and_query, tmp_path):
    model, query = model_and_query
    model.export(tmp_path / "export")
    model.save(str(tmp_path / "saved"))
    rna = query["rna"][::-1].copy()  # an AnnData, in another order
    found = [
        SCMAMBA.load_query_data(rna, r, accelerator="cpu") for r in (model, tmp_path / "export", tmp_path / "saved")
    ]
    assert set(found[0].adata.obs["batch"]) == {"query"} and list(found[0].adata.obs_names) == list(rna.obs_names)
    z = found[0].get_latent_representation()
    for other in found[1:]:
        np.testing.assert_allclose(other.get_latent_representation(), z, atol=1e-5)
    assert transfer(model, z, query[rna.obs_names]) > 0.75
    with pytest.raises(ScmambaError, match="0 cells have two modalities"):
        found[0].train(**QUICK)


def test_cells_to_search_are_asked_for_where_the_query_has_none(model_and_query):
    """The model of a query has the query's data alone."""
    model, query = model_and_query
    loaded = SCMAMBA.load_query_data(query["rna"].copy(), model, accelerator="cpu")
    peaks = list(model.feature_names("atac")[:2])
    for ask in (
        loaded.match_cells,
        lambda **of: loaded.match_cells(reference_modality="atac", **of),
        lambda **of: loaded.impute(features=peaks, **of),
        lambda **of: loaded.impute(query["rna"], modality="atac", features=peaks, **of),
        lambda **of: loaded.impute_blocks(modality="atac", **of),
    ):
        with pytest.raises(
            ScmambaError, match=r"no cells with atac, only with rna: pass the cells to search, reference="
        ):
            ask()
        ask(reference=model.adata["atac"])


def test_a_query_without_a_batch_is_a_new_one_where_batches_are_numbers(mdata, quick):
    mdata.obs["donor"] = np.arange(mdata.n_obs) % 2 + 1
    SCMAMBA.setup_mudata(mdata, batch_key="donor")
    model = SCMAMBA(mdata, encoder="linear")
    model.train(**quick)
    rna = mdata["rna"].copy()
    with logged() as lines:
        assert SCMAMBA.load_query_data(rna, model, accelerator="cpu").batches.tolist() == [1, 2, 3]
    assert lines == ["The data have no obs['donor']: all 200 cells are taken as one new batch, 3."]
    rna.obs["donor"] = 1
    with logged() as lines:
        SCMAMBA.load_query_data(rna, model, accelerator="cpu")
    # of two labs, both may have numbered theirs
    (line,) = lines
    assert line.startswith(
        "Batches of the query that have the name of one of the reference are taken for the same: 1. Rename"
    )


def test_training_on_the_query_leaves_the_reference_where_it_is(model_and_query, tmp_path):
    model, query = model_and_query
    before = model.get_latent_representation()
    loaded = SCMAMBA.load_query_data(query, model, accelerator="cpu")
    frozen = {n: p.detach().clone() for n, p in loaded.module.named_parameters()}
    loaded.train(**{**QUICK, "max_epochs": 20}, train_size=1.0)  # the last weights, however far
    changed = {n for n, p in loaded.module.named_parameters() if not np.array_equal(p.detach(), frozen[n])}
    assert changed and all(any(part in n for part in ("gate", "linear_branch.bias")) for n in changed)
    after = loaded.get_latent_representation(model.adata)
    assert (before * after).sum(1).mean() > 0.99
    assert all(p.requires_grad for n, p in loaded.module.named_parameters() if n != "temperature.log")
    np.testing.assert_array_equal(model.get_latent_representation(), before)
    loaded.save(str(tmp_path / "query"))
    again = SCMAMBA.load(str(tmp_path / "query"), adata=loaded.adata)
    assert again.is_query_ and again.reference_batches_ == 2
    np.testing.assert_allclose(again.get_latent_representation(), loaded.get_latent_representation(), atol=1e-5)


def test_a_batch_of_few_cells_gets_no_offset_and_a_warning(model_and_query):
    model, query = model_and_query
    few = part(query, np.arange(query.n_obs) < 5)
    with pytest.warns(UserWarning, match=r"too small .*'batch_3' \(5\)\. "):
        loaded = SCMAMBA.load_query_data(few, model, accelerator="cpu")
    assert (loaded.module.joint.batch_offset_rna[2] == 0).all()
    assert loaded._uncorrected_batches() == {2: {"rna": 5, "atac": 5}}
    assert SCMAMBA.load_query_data(query, model, accelerator="cpu")._uncorrected_batches() == {}


def test_a_new_batch_of_which_few_cells_have_a_modality_gets_no_offset_in_it(model_and_query):
    model, query = model_and_query
    mosaic = mudata.MuData({"rna": query["rna"].copy(), "atac": query["atac"][:7].copy()})
    mosaic.obs["batch"] = query.obs["batch"].astype(str).reindex(mosaic.obs_names)
    with pytest.warns(UserWarning, match=r"too small .*'batch_3' \(7 with 'atac'\)\. "):
        loaded = SCMAMBA.load_query_data(mosaic, model, accelerator="cpu")
    assert (loaded.module.joint.batch_offset_atac[2] == 0).all()
    assert loaded.module.joint.batch_offset_rna[2].norm() > 0
    assert loaded._uncorrected_batches() == {2: {"atac": 7}}


def test_a_query_that_lacks_a_modality_of_three_can_be_trained_and_reported(tmp_path):
    mdata = simulate_multiome(n_cells=500, n_genes=100, n_peaks=200, n_proteins=20, n_cell_types=3, n_batches=1, seed=0)
    reference, query = mdata[:300].copy(), mdata[300:].copy()
    del query.mod["protein"]
    SCMAMBA.setup_mudata(reference)
    model = SCMAMBA(reference, encoder="linear")
    model.train(**QUICK)
    loaded = SCMAMBA.load_query_data(query, model, accelerator="cpu")
    loaded.train(**QUICK)
    assert set(loaded.match_temperatures_) == {
        "rna-atac",
        "rna-protein",
        "atac-protein",
    }  # two are those of the reference
    write_report(loaded, tmp_path / "report.html")
    assert "rna, atac in one embedding" in (tmp_path / "report.html").read_text()
    model.save(tmp_path / "model")
    with pytest.raises(ScmambaError, match="The data have no protein, which this model knows and would forget"):
        SCMAMBA.load(tmp_path / "model", loaded.adata, accelerator="cpu").train(**QUICK)


def test_a_slice_of_a_mosaic_lacks_the_modality_of_which_it_has_no_cell():
    mdata = simulate_multiome(n_cells=200, n_genes=100, n_peaks=200, n_proteins=20, n_cell_types=3, n_batches=1, seed=0)
    names = mdata.obs_names
    parts = {"rna": mdata["rna"], "atac": mdata["atac"][:100].copy(), "protein": mdata["protein"][100:].copy()}
    mosaic = mudata.MuData(parts)
    mosaic.obs["cell_type"] = mdata.obs["cell_type"].reindex(mosaic.obs_names)
    SCMAMBA.setup_mudata(mosaic, labels_key="cell_type")
    model = SCMAMBA(mosaic, encoder="linear")
    model.train(**QUICK)
    model.train_classifier()
    whole = model.get_latent_representation()[mosaic.obs_names.get_indexer(names[100:])]
    second = mosaic[names[100:]].copy()
    assert second["atac"].n_obs == 0
    np.testing.assert_allclose(model.get_latent_representation(second), whole, atol=1e-5)
    assert len(model.predict(second)) == 100
    loaded = SCMAMBA.load_query_data(second, model, accelerator="cpu")
    np.testing.assert_allclose(loaded.get_latent_representation(), whole, atol=1e-5)
    with pytest.raises(ScmambaError, match=r"no cells with 'atac' \(atac\); they have \['rna', 'protein'\]"):
        model.get_latent_representation(second, modality="atac")


def test_a_prepared_query_without_batches_is_embedded_uncorrected(model_and_query):
    model, query = model_and_query
    prepared = SCMAMBA.prepare_query_mudata(query, model)
    del prepared.obs["batch"]
    loaded = SCMAMBA.load_query_data(prepared, model, accelerator="cpu")
    with pytest.warns(UserWarning, match=r"not corrected for batches: the data have no obs\['batch'\]"):
        assert np.isfinite(loaded.get_latent_representation()).all()


def test_a_batch_left_behind_by_a_subset_is_new():
    """A column keeps the categories of cells that are no longer there."""
    mdata = simulate_multiome(n_cells=300, n_genes=150, n_peaks=400, n_cell_types=3, seed=1, batch_strength=0.8)
    first = (mdata.obs["batch"] == "batch_1").to_numpy()
    reference, query = mdata[first].copy(), mdata[~first].copy()
    assert list(reference.obs["batch"].cat.categories) == ["batch_1", "batch_2"]
    SCMAMBA.setup_mudata(reference, batch_key="batch")
    model = SCMAMBA(reference, encoder="linear")
    model.train(**QUICK)
    assert list(model.batches) == ["batch_1"]
    assert list(reference.obs["batch"].cat.categories) == ["batch_1", "batch_2"]  # the user's own column stays as it is
    loaded = SCMAMBA.load_query_data(query, model, accelerator="cpu")
    assert loaded.module.joint.batch_offset_rna[1].norm() > 0


def test_batches_of_data_that_the_reference_was_loaded_with_are_not_taken_for_its_own(model_and_query, tmp_path):
    model, query = model_and_query
    model.save(tmp_path / "m")
    reference = SCMAMBA.load(tmp_path / "m", query.copy())
    loaded = SCMAMBA.load_query_data(query["rna"].copy(), reference, accelerator="cpu")
    assert list(loaded.batches) == ["batch_1", "batch_2", "query"] and loaded.reference_batches_ == 2
    with pytest.warns(UserWarning, match=f"{query.n_obs} of {query.n_obs} cells is not corrected for batches"):
        loaded.get_latent_representation(query)


def test_a_known_batch_is_corrected_in_a_modality_that_only_the_query_has_of_it():
    mdata = simulate_multiome(n_cells=600, n_genes=200, n_peaks=400, n_cell_types=3, seed=0, batch_strength=1.0)
    first, second = np.arange(600) % 2 == 0, (mdata.obs["batch"] == "batch_2").to_numpy()
    reference = part(mdata, first)
    reference.mod["atac"] = reference["atac"][~second[first]].copy()
    reference.update()
    SCMAMBA.setup_mudata(reference, batch_key="batch")
    model = SCMAMBA(reference, encoder="linear")
    model.train(**QUICK)
    query = part(mdata, ~first)
    n_second = second[~first].sum()
    with pytest.warns(UserWarning, match=f"{n_second} of 300 cells is not corrected for batches"):
        model.get_latent_representation(query)
    loaded = SCMAMBA.load_query_data(query, model, accelerator="cpu")
    ours, theirs = loaded.module.joint, model.module.joint
    assert ours.batch_offset_atac[1].norm() > 0 and theirs.batch_offset_atac[1].norm() == 0
    assert torch.equal(ours.batch_offset_rna, theirs.batch_offset_rna)


def test_the_classifier_of_the_reference_labels_the_query(model_and_query):
    model, query = model_and_query
    model.train_classifier()
    predicted = SCMAMBA.load_query_data(query, model, accelerator="cpu").predict()
    assert (predicted == query.obs["cell_type"].to_numpy()).mean() > 0.8


# -- columns -----------------------------------------------------------------------------------------------------------


def without_columns(mdata):
    """As anyone makes a MuData of two AnnData: columns are in the modalities."""
    with without_pulling():
        return mudata.MuData({key: mod.copy() for key, mod in mdata.mod.items()})


@pytest.mark.parametrize("name", ["batch", "rna:batch"])
@pytest.mark.parametrize("place", ["mdata", "modalities", "one modality"])
def test_a_batch_is_found_wherever_the_data_have_it(place, name):
    plain = simulate_multiome(n_cells=120, n_genes=60, n_peaks=100, n_cell_types=2, seed=0)
    mdata = plain if place == "mdata" and name == "batch" else without_columns(plain)
    if place == "one modality":
        del mdata["atac"].obs["batch"]
    columns = list(mdata.obs)
    SCMAMBA.setup_mudata(mdata, batch_key=name)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(**QUICK)
    assert [c for c in mdata.obs if not c.startswith("_scvi")] == columns
    assert list(model.batches) == ["batch_1", "batch_2"] and model.module.joint.batch_offset_rna.abs().sum() > 0
    expected = model.get_latent_representation()
    for query in (mdata.copy(), without_columns(plain)):
        np.testing.assert_allclose(model.get_latent_representation(query), expected, atol=1e-5)
        loaded = SCMAMBA.load_query_data(query, model, accelerator="cpu")
        assert list(loaded.batches) == ["batch_1", "batch_2"]
        np.testing.assert_allclose(loaded.get_latent_representation(), expected, atol=1e-5)
    rna = SCMAMBA.load_query_data(plain["rna"].copy(), model, accelerator="cpu")  # an AnnData
    assert list(rna.batches) == ["batch_1", "batch_2"]


@pytest.mark.parametrize(
    "values",
    [[np.nan] * 60, [None] * 5 + ["type_1"] * 55, pd.Categorical([np.nan] * 5 + ["type_1"] * 55), [3] * 60],
    ids=["all missing", "some missing", "categories", "of another type"],
)
def test_labels_of_a_query_need_not_be_known(trained, values):
    query = part(trained.adata, np.arange(300) < 60)
    expected = trained.get_latent_representation(query.copy())
    query.obs["cell_type"] = pd.Series(values, index=query.obs_names)
    np.testing.assert_allclose(trained.get_latent_representation(query), expected, atol=1e-6)
    assert len(SCMAMBA.load_query_data(query, trained, accelerator="cpu").get_latent_representation()) == 60


def test_cells_without_a_label_are_of_the_unlabeled_category():
    mdata = simulate_multiome(n_cells=60, n_genes=60, n_peaks=100, n_cell_types=2, seed=0)
    mdata.obs["annotation"] = mdata.obs["cell_type"].where(np.arange(60) > 3)
    SCMAMBA.setup_mudata(mdata, labels_key="annotation", unlabeled_category="?")
    manager = SCMAMBA._get_most_recent_anndata_manager(mdata)
    assert list(manager.get_state_registry("labels").categorical_mapping) == ["type_1", "type_2", "?"]
    assert (manager.get_from_registry("labels").ravel()[:4] == 2).all()


def test_names_that_differ_by_a_suffix_are_pointed_at(trained):
    """Two modalities of the same cells: otherwise each cell is embedded twice, from one modality."""
    mods = {key: mod[:40].copy() for key, mod in trained.adata.mod.items()}
    mods["atac"].obs_names = [f"{name}-1" for name in mods["atac"].obs_names]
    with pytest.warns(UserWarning, match="None of 80 cells have two .*'cell_001' and 'cell_001-1' look like one cell"):
        SCMAMBA.load_query_data(mudata.MuData(mods), trained, accelerator="cpu")
    mods = {key: mod.copy() for key, mod in trained.adata.mod.items()}
    mods["atac"].obs_names = [f"{name}_s2" if i > 200 else name for i, name in enumerate(mods["atac"].obs_names)]
    with pytest.warns(UserWarning, match="201 of 399 cells have two .*differ in part"):
        SCMAMBA.setup_mudata(mudata.MuData(mods))
