"""Bad input is refused before any work, with an error that names it, and the user's data are not changed."""

import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from faults import content
from scipy import sparse

from scmamba_scvi import SCMAMBA
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.model.inputs.checks import check_still_counts, check_storage
from scmamba_scvi.model.inputs.disk import in_memory


def changed_x(mdata, key, change):
    adata = mdata[key].copy()
    adata.X = change(adata.X.copy())
    return mudata.MuData({k: adata if k == key else v.copy() for k, v in mdata.mod.items()})


def set_value(value):
    def change(x):
        x.data[7] = value
        return x

    return change


# -- setup: from good data to what setup_mudata is called with ----------------------------------------------------------


def only_rna(m):
    return mudata.MuData({"rna": m["rna"].copy()}), {}


def unknown_kind(m):
    return m, {"modalities": {"rna": "rna", "methylation": "atac"}}


def missing_key(m):
    return m, {"modalities": {"rna": "rna", "atac": "peaks"}}


def two_of_a_kind(m):
    other = m["rna"].copy()
    other.var_names = other.var_names + "_2"
    return mudata.MuData({"rna": m["rna"].copy(), "gex": other, "atac": m["atac"].copy()}), {}


def names_that_are_numbers(m):
    rna = m["rna"].copy()
    rna.obs.index = pd.RangeIndex(rna.n_obs)
    return mudata.MuData({"rna": rna, "atac": m["atac"].copy()}), {}


def repeated_cell_name(m):
    adata = m["rna"].copy()
    adata.obs_names = ["same"] * 2 + list(adata.obs_names[2:])
    return mudata.MuData({"rna": adata, "atac": m["atac"].copy()}), {}


def repeated_feature_name(m):
    adata = m["rna"].copy()
    adata.var_names = ["same"] * 2 + list(adata.var_names[2:])
    return mudata.MuData({"rna": adata, "atac": m["atac"].copy()}), {}


def no_shared_cell(m):
    adata = m["atac"].copy()
    adata.obs_names = adata.obs_names + "-1"
    return mudata.MuData({"rna": m["rna"].copy(), "atac": adata}), {}


def a_view(m):
    return m[:50], {}


def masked(m):
    # AnnData stores a masked array as it is
    adata = m["rna"].copy()
    adata.X = np.ma.masked_less(adata.X.toarray(), 1)
    return mudata.MuData({"rna": adata, "atac": m["atac"].copy()}), {}


def missing_batch(m):
    m.obs["batch"] = m.obs["batch"].astype(object)
    m.obs.loc[m.obs_names[:3], "batch"] = None
    return m, {"batch_key": "batch"}


def different_batches(m):
    del m.obs["batch"]
    m["atac"].obs["batch"] = ["batch_2", *m["atac"].obs["batch"][1:]]
    return m, {"batch_key": "batch"}


def filtered_in_place(m):
    m.mod["rna"], m.mod["atac"] = m["rna"][:150].copy(), m["atac"][:150].copy()
    return m, {}


def more_cells_in_place(m):
    m.mod["rna"] = simulate_multiome(n_cells=250, n_genes=150, n_peaks=10, n_cell_types=3)["rna"]
    return m, {}


def features_shared_instead_of_cells(m):
    parts = {key: m["rna"][cells].copy() for key, cells in (("rna", slice(100)), ("atac", slice(100, None)))}
    return mudata.MuData(parts, axis=1), {}


def a_modality_that_is_a_view(m):
    return mudata.MuData({"rna": m["rna"][:, :100], "atac": m["atac"]}), {}


def nested(m):
    return mudata.MuData({"rna": m["rna"].copy(), "atac": mudata.MuData({"acc": m["atac"].copy()})}), {}


def bad_coordinate(column, value):
    def make(m):
        adata = m["atac"].copy()
        adata.var[column] = adata.var[column].astype(object)
        adata.var.loc[adata.var_names[4], column] = value
        return mudata.MuData({"rna": m["rna"].copy(), "atac": adata}), {}

    return make


BAD = [
    pytest.param(only_rna, "At least two modalities", id="one modality"),
    pytest.param(unknown_kind, "Unknown kind of modality 'methylation'.*'rna', 'atac', 'protein'", id="unknown kind"),
    pytest.param(missing_key, "Unknown modality for 'atac' 'peaks'.*Known: 'rna', 'atac'", id="key that is not there"),
    pytest.param(two_of_a_kind, "'rna' and 'gex' both look like rna", id="two modalities of one kind"),
    pytest.param(lambda m: (m, {"layers": {"rna": "raw"}}), r"Unknown layer of mdata\['rna'\] 'raw'. Known: none. .*mdata\['rna'\].layers\['raw'\] = mdata\['rna'\].X", id="missing layer"),
    pytest.param(lambda m: (m, {"layers": {"protein": "raw"}}), "Unknown kind of modality in layers", id="layer of no modality"),
    pytest.param(lambda m: (m, {"batch_key": "donor"}), "Unknown batch_key 'donor'. Known: 'cell_type', 'batch', 'rna:cell_type'", id="missing column"),
    pytest.param(missing_batch, r"missing for 3 of 200 cells, such as 'cell_001'.*astype\(str\)", id="batch missing for some cells"),
    pytest.param(different_batches, "'cell_001'.*'rna' and 'atac' have 'batch_1' and 'batch_2'.*'rna:batch'", id="batches differ"),
    pytest.param(filtered_in_place, r"50 cells of mdata are in none of its modalities.*mdata.update\(\)", id="filtered in place"),
    pytest.param(more_cells_in_place, r"50 cells are not in mdata.obs.*mdata.update\(\)", id="cells added in place"),
    pytest.param(features_shared_instead_of_cells, r"different cells of the same features \(axis=1\)", id="axis 1"),
    pytest.param(a_modality_that_is_a_view, r"mdata.mod\['rna'\] is a view.*mdata.mod\['rna'\] = mdata.mod\['rna'\].copy", id="a modality is a view"),
    pytest.param(lambda m: (changed_x(m, "rna", set_value(-1)), {}), r"mdata\['rna'\].X holds values that are negative", id="negative"),
    pytest.param(lambda m: (changed_x(m, "atac", set_value(np.nan)), {}), r"mdata\['atac'\].X holds values that are not finite", id="nan"),
    pytest.param(lambda m: (changed_x(m, "rna", set_value(np.inf)), {}), "not finite", id="infinite"),
    pytest.param(lambda m: (changed_x(m, "rna", lambda x: x.log1p()), {}), "not whole numbers.*layers=", id="log-transformed"),
    pytest.param(lambda m: (changed_x(m, "rna", lambda x: np.log1p(x.toarray())), {}), "not whole numbers", id="log-transformed dense"),
    pytest.param(repeated_cell_name, "1 cell names that occur more than once, such as 'same'.*the sample before them in every modality", id="duplicated cell names"),
    pytest.param(names_that_are_numbers, r"not text: convert them, mdata\['rna'\].obs_names = mdata\['rna'\].obs_names.astype\(str\)", id="numbers as names"),
    pytest.param(repeated_feature_name, "1 feature names that occur more than once", id="duplicated feature names"),
    pytest.param(no_shared_cell, "cell names do not overlap", id="modalities share no cell"),
    pytest.param(a_view, "mdata is a view.*mdata = mdata.copy", id="a view"),
    pytest.param(masked, "masked array", id="masked array"),
    pytest.param(nested, r"mdata\['atac'\] is a MuData, and .*MuData\({..., \*\*mdata\['atac'\].mod}\)", id="a MuData within"),
    pytest.param(lambda m: (m, {"rna_layer": "counts"}), r"Unknown argument of setup_mudata 'rna_layer'.*layers={'rna': 'counts'}", id="layers as in other models"),
    pytest.param(lambda m: ("multiome.h5mu", {}), "A MuData is needed, got str", id="not a MuData"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "message"), BAD)
def test_setup_names_what_is_wrong_and_changes_nothing(mdata, make, message):
    bad, arguments = make(mdata)
    before = content(bad)
    with pytest.raises(ScmambaError, match=message):
        SCMAMBA.setup_mudata(bad, **arguments)
    assert content(bad) == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(bad_coordinate("end", 1), "end", id="end before start"),
        pytest.param(bad_coordinate("start", "many"), "start", id="start is not a number"),
    ],
)
def test_broken_coordinates_are_named(mdata, make, message):
    bad, _ = make(mdata)
    SCMAMBA.setup_mudata(bad)
    with pytest.raises(ScmambaError, match=message):
        SCMAMBA(bad)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda var: var.drop(columns=["chrom", "start", "end"]), id="no coordinates at all"),
        pytest.param(
            lambda var: var.assign(chrom=np.where(np.arange(len(var)) % 2, var["chrom"].astype(str), "")),
            id="half of them",
        ),
        pytest.param(lambda var: var.assign(chrom="GL000194.1"), id="all on an unplaced contig"),
    ],
)
def test_features_without_coordinates_are_kept(mdata, quick, change):
    mods = {k: v.copy() for k, v in mdata.mod.items()}
    mods["rna"].var = change(mods["rna"].var)
    other = mudata.MuData(mods)
    SCMAMBA.setup_mudata(other)
    model = SCMAMBA(other)
    model.train(**quick)
    assert np.isfinite(model.get_latent_representation()).all()
    assert model.layouts["rna"].n_features == mdata["rna"].n_vars


def test_empty_cells_and_features_are_kept_with_one_warning(mdata, quick):
    def empty(x):
        x = x.tolil()
        x[:5] = 0
        x[:, :7] = 0
        return x.tocsr()

    other = changed_x(mdata, "rna", empty)
    with pytest.warns(UserWarning, match=r"mdata\['rna'\].X: 5 of 200 cells and \d+ of 150 features are zero") as seen:
        SCMAMBA.setup_mudata(other)
    assert sum("mdata['rna']" in str(w.message) for w in seen) == 1
    model = SCMAMBA(other)
    model.train(**quick)
    assert np.isfinite(model.get_latent_representation()).all() and len(model.get_latent_representation()) == 200


@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
def test_values_of_both_signs_enter_the_joint_embedding(mdata, quick, dense):
    """Scaled values cannot be split as counts: negative ones would become zero, and most components lose all weight."""

    def scaled(x):
        x = np.log1p(x.toarray())
        x = np.float32(0.3) * (x - x.mean(0)) / x.std(0).clip(0.1)
        return x if dense else sparse.csr_matrix(x)

    other = changed_x(mdata, "rna", scaled)
    SCMAMBA.setup_mudata(other, require_counts=False)
    model = SCMAMBA(other, values={"rna": "raw"}, encoder="linear")
    model.train(**quick)
    weights = model.module.joint.components_rna.norm(dim=0)
    assert (weights > 0).sum() > 5 and np.isfinite(model.get_latent_representation()).all()


def test_setup_changes_nothing_but_what_scvi_tools_writes(mdata):
    counts = {k: (v.X.data.copy(), v.X.indices.copy(), v.X.indptr.copy()) for k, v in mdata.mod.items()}
    obs, var = mdata.obs.copy(), {k: v.var.copy() for k, v in mdata.mod.items()}
    SCMAMBA.setup_mudata(mdata, batch_key="batch")
    SCMAMBA(mdata).train(max_epochs=1, enable_progress_bar=False)
    for key, adata in mdata.mod.items():
        for now, then in zip((adata.X.data, adata.X.indices, adata.X.indptr), counts[key], strict=True):
            np.testing.assert_array_equal(now, then)
        pd.testing.assert_frame_equal(adata.var, var[key])
    added = set(mdata.obs) - set(obs)
    assert all(name.startswith("_scvi") for name in added)
    pd.testing.assert_frame_equal(mdata.obs[list(obs)], obs)


def other_names(m):
    m["rna"].var_names = [f"{name}_v2" for name in m["rna"].var_names]


def fewer_features(m):
    m.mod["rna"] = m["rna"][:, :100].copy()


def fewer_cells(m):
    m.mod["rna"] = m["rna"][:150].copy()


def fewer_cells_and_updated(m):
    m.mod["rna"], m.mod["atac"] = m["rna"][:150].copy(), m["atac"][:150].copy()
    m.update()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(other_names, r"mdata\['rna'\] .*of 150 features 150 are missing .*150 are not known", id="names"),
        pytest.param(fewer_features, r"mdata\['rna'\] .*of 150 features 50 are missing", id="features"),
        pytest.param(fewer_cells, r"mdata\['rna'\] .*of 200 cells 50 are missing .*'cell_151'", id="cells"),
        pytest.param(fewer_cells_and_updated, "mdata was changed .*of 200 cells 50 are missing", id="cells and update"),
    ],
)
@pytest.mark.filterwarnings("ignore:From 0.4:FutureWarning")
def test_data_changed_after_setup_are_named(mdata, quick, change, message):
    """Counts would be read into other features, or cells and features be zero without a word."""
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(**quick)
    change(mdata)
    again = r".*changed after setup_mudata.*Call SCMAMBA.setup_mudata again"
    with pytest.raises(ScmambaError, match=f"(?=.*{message}){again}"):
        model.get_latent_representation()
    with pytest.raises(ScmambaError, match=f"(?=.*{message}){again}"):
        SCMAMBA(mdata, encoder="linear").train(**quick)


@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
def test_values_normalised_in_place_after_setup_are_named(mdata, quick, dense):
    """As scanpy does it: the model would read them as counts."""
    if dense:
        mdata["rna"].X = mdata["rna"].X.toarray()
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(**quick)
    sc.pp.normalize_total(mdata["rna"])
    message = r"mdata\['rna'\].X was changed after setup_mudata.*not whole numbers.*layers=\{'rna': 'counts'\}"
    for call in (model.get_latent_representation, lambda: SCMAMBA(mdata, encoder="linear").train(**quick)):
        with pytest.raises(ScmambaError, match=message):
            call()


def test_cells_and_features_in_another_order_after_setup_are_the_same(mdata, quick):
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(**quick)
    z = model.get_latent_representation()
    mdata.mod["rna"] = mdata["rna"][::-1, ::-1].copy()
    np.testing.assert_allclose(model.get_latent_representation(), z, atol=1e-5)


# -- models and training ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"pooling": "max"}, "Unknown pooling 'max'", id="unknown pooling"),
        pytest.param({"values": {"rna": "log2"}}, "log2.*log1p", id="unknown value transform"),
        pytest.param({"mask_rate": 1.0}, r"mask_rate must be in \[0, 1\)", id="everything masked"),
        pytest.param({"headdim": 48}, "must be a multiple of headdim", id="heads that do not fit"),
        pytest.param(
            {"preset": "paper", "gate_init": 0.0},
            "gate_init=0 without a linear branch",
            id="neither network nor linear branch",
        ),
        pytest.param({"ssd_backend": "cuda"}, "Unknown ssd_backend 'cuda'", id="unknown back-end"),
    ],
)
def test_bad_model_options_are_named(mdata, arguments, message):
    SCMAMBA.setup_mudata(mdata)
    with pytest.raises(ScmambaError, match=message):
        SCMAMBA(mdata, **arguments)


def test_a_mudata_without_setup_is_refused(mdata):
    with pytest.raises(ScmambaError, match=r"not set up: call SCMAMBA.setup_mudata\(mdata"):
        SCMAMBA(mdata)
    with pytest.raises(ScmambaError, match="A MuData is needed, got AnnData"):
        SCMAMBA(mdata["rna"])
    SCMAMBA.setup_mudata(mdata)
    with pytest.raises(ScmambaError, match="a copy of one that was set up: call SCMAMBA.setup_mudata"):
        SCMAMBA(mdata.copy())


def test_the_setup_of_a_copy_leaves_the_original_set_up(mdata):
    SCMAMBA.setup_mudata(mdata)
    copy = mdata.copy()
    SCMAMBA.setup_mudata(copy)
    SCMAMBA.setup_mudata(copy)  # again, as after a mistake
    assert SCMAMBA(mdata).adata is mdata
    assert SCMAMBA(copy).adata is copy


def test_float16_is_compared_without_overflow(mdata, recwarn):
    check_still_counts(mdata["rna"].X.toarray().astype(np.float16), "rna", "rna", None)
    assert not recwarn.list


def test_too_few_cells_are_refused():
    few = simulate_multiome(n_cells=12, n_genes=60, n_peaks=100, n_cell_types=2, seed=0)
    SCMAMBA.setup_mudata(few)
    with pytest.raises(ScmambaError, match="12 cells have two modalities; at least 20"):
        SCMAMBA(few).train()


# -- queries ---------------------------------------------------------------------------------------------------------


def test_unknown_and_missing_features_of_a_query_are_counted_and_named(trained):
    rna = trained.adata["rna"][:, 3:].copy()
    rna.var_names = [*rna.var_names[:-1], "unknown gene"]
    query = mudata.MuData({"rna": rna, "atac": trained.adata["atac"].copy()})
    message = r"mdata\['rna'\] .*of 150 features 4 are missing .*1 are not known .*unknown gene"
    with pytest.raises(ScmambaError, match=message):
        trained.get_latent_representation(query)


def test_bad_values_of_a_query_are_named(trained):
    query = changed_x(trained.adata, "rna", set_value(np.nan))
    with pytest.raises(ScmambaError, match="not finite"):
        trained.get_latent_representation(query)


def test_what_is_said_of_a_query_without_counts_can_be_done(trained):
    """The methods that take new data have neither layers nor require_counts."""
    query = mudata.MuData({key: part.copy() for key, part in trained.adata.mod.items()})
    query["rna"].layers["raw"], query["rna"].X = query["rna"].X, query["rna"].X.log1p()
    message = r"not whole numbers.* raw counts: put them into mdata\['rna'\].X, or .*prepare_query_mudata\(mdata, model, layers=\{'rna': ...\}\); mdata\['rna'\] also has: 'raw'"
    for use in (trained.get_latent_representation, lambda of: SCMAMBA.prepare_query_mudata(of, trained)):
        with pytest.raises(ScmambaError, match=message) as caught:
            use(query)
        assert "require_counts" not in str(caught.value)
    prepared = SCMAMBA.prepare_query_mudata(query, trained, layers={"rna": "raw"})
    assert trained.get_latent_representation(prepared).shape == (300, 64)


@pytest.mark.parametrize("of_counts", [True, False])
def test_counts_in_raw_are_named(mdata, of_counts):
    rna = mdata["rna"]
    if of_counts:
        rna.raw = rna.copy()
    rna.X = rna.X.log1p()
    if not of_counts:
        rna.raw = rna.copy()
    with pytest.raises(ScmambaError, match=r"not whole numbers.*mdata\['rna'\] has no other layer") as caught:
        SCMAMBA.setup_mudata(mdata)
    assert ("mdata['rna'].raw.to_adata()" in str(caught.value)) == of_counts
    assert (".write_h5ad('rna_counts.h5ad') makes a file" in str(caught.value)) == of_counts


def test_hashtags_and_isotype_controls_among_proteins_are_named():
    mdata = simulate_multiome(n_cells=60, n_genes=40, n_peaks=60, n_proteins=12, seed=0)
    proteins = ["CD3", "IgD", "IgM", "CD32_FcgRII", "Rat-antigen", "Mousetrap", "CD19"]
    others = ["Hashtag_1", "HTO2", "Mouse IgG1 isotype ctrl", "IgG2a_control_TotalSeqB", "Control_Rat_IgG1_TCACGGTA"]
    mdata["protein"].var_names = proteins + others
    mdata.update()
    with pytest.warns(UserWarning, match="isotype controls") as caught:
        SCMAMBA.setup_mudata(mdata)
    text = " ".join(str(w.message) for w in caught if "isotype controls" in str(w.message))
    assert all(repr(name) in text for name in others) and not any(repr(name) in text for name in proteins)


@pytest.mark.parametrize("check", [check_storage, lambda x, where: check_still_counts(x, "rna", "rna", None)])
def test_a_matrix_that_is_neither_in_memory_nor_in_a_file_is_refused(check):
    class Array:  # as those of dask
        shape, dtype = (2, 3), np.dtype("float32")

        def __getitem__(self, rows):
            raise NotImplementedError

    with pytest.raises(ScmambaError, match=r"mdata\['rna'\].X is a .*Array: .*AnnData.to_memory\(\)"):
        check(in_memory(Array()), "mdata['rna'].X")


def test_files_of_one_modality_each_are_refused():
    with pytest.raises(ScmambaError, match="needs a MuData .*open_mudata"):
        SCMAMBA.setup_annbatch(paths=["rna.h5ad"])


def test_a_matrix_by_columns_on_disk_is_refused(trained, tmp_path):
    by_columns = mudata.MuData({k: v.copy() for k, v in trained.adata.mod.items()})
    by_columns["rna"].X = sparse.csc_matrix(by_columns["rna"].X)
    by_columns.write_h5mu(tmp_path / "m.h5mu")
    backed = mudata.read_h5mu(tmp_path / "m.h5mu", backed="r")
    with pytest.raises(ScmambaError, match="stored by columns on disk"):
        trained.get_latent_representation(backed)
