"""Bad input is refused before any work, with an error that names it, and the user's data are not changed."""

import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scmamba_scvi import SCMAMBA
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError


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


def not_recognised(m):
    atac = m["atac"].copy()
    atac.var = atac.var.drop(columns=["feature_types"])
    return mudata.MuData({"first": m["rna"].copy(), "second": atac}), {}


def two_of_a_kind(m):
    other = m["rna"].copy()
    other.var_names = other.var_names + "_2"
    return mudata.MuData({"rna": m["rna"].copy(), "gex": other, "atac": m["atac"].copy()}), {}


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


def missing_labels(m):
    m.obs["cell_type"] = m.obs["cell_type"].astype(object)
    m.obs.loc[m.obs_names[:3], "cell_type"] = None
    return m, {"labels_key": "cell_type"}


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
    pytest.param(not_recognised, "At least two modalities are needed", id="nothing recognised"),
    pytest.param(two_of_a_kind, "'rna' and 'gex' both look like rna", id="two modalities of one kind"),
    pytest.param(lambda m: (m, {"layers": {"rna": "raw"}}), r"Unknown layer of mdata\['rna'\] 'raw'", id="missing layer"),
    pytest.param(lambda m: (m, {"layers": {"protein": "raw"}}), "Unknown kind of modality in layers", id="layer of no modality"),
    pytest.param(lambda m: (m, {"batch_key": "donor"}), "batch_key='donor' is not a column of mdata.obs", id="missing column"),
    pytest.param(missing_labels, "missing for 3 of 200 cells", id="labels missing for some cells"),
    pytest.param(lambda m: (changed_x(m, "rna", set_value(-1)), {}), r"mdata\['rna'\].X holds values that are negative", id="negative"),
    pytest.param(lambda m: (changed_x(m, "atac", set_value(np.nan)), {}), r"mdata\['atac'\].X holds values that are not finite", id="nan"),
    pytest.param(lambda m: (changed_x(m, "rna", set_value(np.inf)), {}), "not finite", id="infinite"),
    pytest.param(lambda m: (changed_x(m, "rna", lambda x: x.log1p()), {}), "not whole numbers.*layers=", id="log-transformed"),
    pytest.param(lambda m: (changed_x(m, "rna", lambda x: np.log1p(x.toarray())), {}), "not whole numbers", id="log-transformed dense"),
    pytest.param(repeated_cell_name, "1 cell names that occur more than once, such as 'same'", id="duplicated cell names"),
    pytest.param(repeated_feature_name, "1 feature names that occur more than once", id="duplicated feature names"),
    pytest.param(no_shared_cell, "cell names do not overlap", id="modalities share no cell"),
    pytest.param(a_view, "view of another one.*copy", id="a view"),
    pytest.param(masked, "masked array", id="masked array"),
    pytest.param(lambda m: ("multiome.h5mu", {}), "setup_mudata needs a MuData, got str", id="not a MuData"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "message"), BAD)
def test_setup_names_what_is_wrong_and_changes_nothing(mdata, make, message):
    bad, arguments = make(mdata)
    before = snapshot(bad)
    with pytest.raises(ScmambaError, match=message):
        SCMAMBA.setup_mudata(bad, **arguments)
    assert snapshot(bad) == before


def snapshot(mdata):
    if isinstance(mdata, str):
        return mdata
    return {
        "uns": sorted(mdata.uns),
        "obs": list(mdata.obs),
        "mods": {k: (v.shape, sorted(v.uns), list(v.obs), list(v.var)) for k, v in mdata.mod.items()},
    }


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


def test_corrected_counts_are_accepted_if_asked_for(mdata, quick):
    corrected = changed_x(mdata, "rna", lambda x: x * 0.9)
    SCMAMBA.setup_mudata(corrected, require_counts=False)
    model = SCMAMBA(corrected)
    model.train(**quick)
    assert np.isfinite(model.get_latent_representation()).all()


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


# -- models and training ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            {"preset": "huge"}, "Unknown preset 'huge'.*'small', 'base', 'large', 'paper'", id="unknown preset"
        ),
        pytest.param({"n_layer": 3}, "Unknown model option 'n_layer'. Did you mean 'n_layers'", id="unknown option"),
        pytest.param({"pooling": "max"}, "Unknown pooling 'max'", id="unknown pooling"),
        pytest.param({"values": {"rna": "log2"}}, "log2.*log1p", id="unknown value transform"),
        pytest.param({"mask_rate": 1.0}, r"mask_rate must be in \[0, 1\)", id="everything masked"),
        pytest.param({"headdim": 48}, "must be a multiple of headdim", id="heads that do not fit"),
        pytest.param(
            {"preset": "paper", "gate_init": 0.0},
            "gate_init=0 without a linear branch",
            id="neither network nor linear branch",
        ),
        pytest.param({"n_latent": 0}, "n_latent must be at least 1", id="no latent dimension"),
        pytest.param({"ssd_backend": "cuda"}, "Unknown ssd_backend 'cuda'", id="unknown back-end"),
        pytest.param({"values": {"methylation": "raw"}}, "Unknown kind of modality in values", id="values of no kind"),
    ],
)
def test_bad_model_options_are_named(mdata, arguments, message):
    SCMAMBA.setup_mudata(mdata)
    with pytest.raises(ScmambaError, match=message):
        SCMAMBA(mdata, **arguments)


def test_a_mudata_without_setup_is_refused(mdata):
    with pytest.raises(ValueError, match="set up"):
        SCMAMBA(mdata)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            {"batch_size": 150},
            "batch_size=150 does not fit 180 training cells: choose 2 to 90",
            id="minibatch too large",
        ),
        pytest.param(
            {"batch_size": 1}, "batch_size=1 is too few cells to compare: choose 2 to 90", id="minibatch of one"
        ),
        pytest.param(
            {"plan_kwargs": {"learning_rate": 1}}, "Unknown training option 'learning_rate'", id="unknown option"
        ),
    ],
)
def test_bad_training_options_are_named(mdata, arguments, message):
    SCMAMBA.setup_mudata(mdata)
    with pytest.raises(ScmambaError, match=message):
        SCMAMBA(mdata).train(**arguments)


def test_too_few_cells_are_refused():
    few = simulate_multiome(n_cells=12, n_genes=60, n_peaks=100, n_cell_types=2, seed=0)
    SCMAMBA.setup_mudata(few)
    with pytest.raises(ScmambaError, match="12 cells have two modalities; at least 20"):
        SCMAMBA(few).train()


def test_an_untrained_model_does_not_embed(mdata):
    SCMAMBA.setup_mudata(mdata)
    with pytest.raises(ScmambaError, match="Train the model first"):
        SCMAMBA(mdata).get_latent_representation()


# -- queries ---------------------------------------------------------------------------------------------------------


def test_unknown_and_missing_features_of_a_query_are_counted_and_named(trained):
    rna = trained.adata["rna"][:, 3:].copy()
    rna.var_names = [*rna.var_names[:-1], "unknown gene"]
    query = mudata.MuData({"rna": rna, "atac": trained.adata["atac"].copy()})
    message = r"mdata\['rna'\] .*of 150 features 4 are missing .*1 are not known to the model .*unknown gene"
    with pytest.raises(ScmambaError, match=message):
        trained.get_latent_representation(query)


def test_bad_values_of_a_query_are_named(trained):
    query = changed_x(trained.adata, "rna", set_value(np.nan))
    with pytest.raises(ScmambaError, match="not finite"):
        trained.get_latent_representation(query)


def test_a_query_without_any_known_modality_is_refused(trained):
    query = mudata.MuData({"expression": trained.adata["rna"].copy()})
    with pytest.raises(ScmambaError, match="None of the modalities"):
        trained.get_latent_representation(query)


def test_setup_of_an_anndata_is_refused(trained):
    with pytest.raises(ScmambaError, match="put them in a MuData"):
        SCMAMBA.setup_anndata(trained.adata["rna"].copy())


def test_a_matrix_by_columns_on_disk_is_refused(trained, tmp_path):
    by_columns = mudata.MuData({k: v.copy() for k, v in trained.adata.mod.items()})
    by_columns["rna"].X = sparse.csc_matrix(by_columns["rna"].X)
    by_columns.write_h5mu(tmp_path / "m.h5mu")
    backed = mudata.read_h5mu(tmp_path / "m.h5mu", backed="r")
    with pytest.raises(ScmambaError, match="stored by columns on disk"):
        trained.get_latent_representation(backed)
