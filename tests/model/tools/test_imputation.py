"""Another modality from neighbours: what numpy would average, nearer to held-out truth than RNA alone gets."""

import mudata
import numpy as np
import pytest
from scipy import sparse
from scipy.special import softmax
from shapes import QUICK, mudata_of, poisson
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from scmamba_scvi import SCMAMBA
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError, UnknownNameError


def rows(mdata, cells):
    with without_pulling():
        return mdata[cells].copy()


def fitted(mdata, n_test):
    order = np.random.default_rng(0).permutation(mdata.n_obs)
    train, test = rows(mdata, order[n_test:]), rows(mdata, order[:n_test])
    SCMAMBA.setup_mudata(train, batch_key="batch")
    model = SCMAMBA(train, encoder="linear")
    model.train(max_epochs=4, enable_progress_bar=False, accelerator="cpu")
    return model, train, test


@pytest.fixture(scope="module")
def citeseq():
    return fitted(simulate_multiome(n_peaks=0, n_proteins=50, n_cells=1500, n_genes=800, n_cell_types=6, seed=3), 400)


def clr(x):
    logs = np.log1p(x.toarray() if sparse.issparse(x) else x)
    return logs - logs.mean(1, keepdims=True)


def correlations(a, b):
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum(0) / np.maximum(np.sqrt((a**2).sum(0) * (b**2).sum(0)), 1e-12)


def by_rna_alone(train, test, values, k):
    """Mean of the k nearest training cells on 50 principal components of log-normalised RNA."""
    logs = [
        np.log1p(1e4 * x / np.maximum(x.sum(1, keepdims=True), 1))
        for x in (m["rna"].X.toarray() for m in (train, test))
    ]
    pca = PCA(50, random_state=0).fit(logs[0])
    found = NearestNeighbors(n_neighbors=k).fit(pca.transform(logs[0])).kneighbors(pca.transform(logs[1]))[1]
    return values[found].mean(1)


def test_values_are_what_numpy_averages(trained):
    """Over neighbours other than the cell itself."""
    mdata, k = trained.adata, 7
    names = list(mdata["atac"].var_names[[5, 300, 17, 2]])
    found = trained.impute(modality="atac", features=names, k=k)
    x, y = (trained.get_latent_representation(modality=kind).astype(np.float64) for kind in ("rna", "atac"))
    cosine = x @ y.T
    np.fill_diagonal(cosine, -np.inf)
    nearest = np.argsort(-cosine, axis=1)[:, :k]
    weight = softmax(np.take_along_axis(cosine, nearest, 1) / (2 * trained.match_temperatures_["rna-atac"]), axis=1)
    seen = (mdata["atac"][:, names].X.toarray() > 0).astype(float)
    assert sparse.issparse(found.X) and found.X.dtype == np.float32
    np.testing.assert_allclose(found.X.toarray(), np.einsum("nk,nkf->nf", weight, seen[nearest]), atol=1e-4)
    assert list(found.var_names) == names and list(found.obs_names) == list(mdata.obs_names)
    assert (found.var["chrom"] == mdata["atac"].var.loc[names, "chrom"]).all()


@pytest.mark.parametrize(("values", "target"), [("raw", "atac"), ("log1p", "rna"), ("binary", "rna")])
def test_values_to_average_can_be_chosen(trained, values, target):
    names = list(trained.adata[target].var_names[:3])
    found = trained.impute(modality=target, features=names, k=299, values=values)
    x = trained.adata[target].X.toarray()
    want = {"raw": x, "binary": x > 0, "log1p": np.log1p(1e4 * x / np.maximum(x.sum(1, keepdims=True), 1))}[values]
    # averages of all other cells lie within the values, and follow their mean
    assert (found.X.toarray() <= want[:, :3].max(0) + 1e-4).all()
    assert found.X.toarray().mean(0) == pytest.approx(want[:, :3].mean(0), rel=0.5)


def test_proteins_of_held_out_cells_beat_rna_alone(citeseq):
    model, train, test = citeseq
    truth = clr(test["protein"].X)
    ours = correlations(model.impute(test, modality="protein").X, truth)
    alone = correlations(by_rna_alone(train, test, clr(train["protein"].X), 50), truth)
    assert ours.mean() > alone.mean() + 0.04 and ours.mean() > 0.45


def test_peaks_of_held_out_cells_beat_rna_alone():
    model, train, test = fitted(simulate_multiome(n_cells=1500, n_genes=800, n_peaks=2000, n_cell_types=6, seed=3), 400)
    peaks = np.argsort(-np.asarray(test["atac"].X.sum(0)).ravel())[:200]
    names = test["atac"].var_names[peaks]
    truth = (test["atac"].X[:, peaks].toarray() > 0).astype(float)
    found = model.impute(test["rna"].copy(), modality="atac", features=names)  # RNA-only cells
    assert sparse.issparse(found.X)
    ours = correlations(found.X.toarray(), truth)
    seen = (train["atac"].X[:, peaks].toarray() > 0).astype(float)
    alone = correlations(by_rna_alone(train, test, seen, 50), truth)
    assert ours.mean() > alone.mean() + 0.003 and ours.mean() > 0.05


def test_blocks_together_hold_what_impute_gives_for_all_features(citeseq):
    model, _, test = citeseq
    whole = model.impute(test, modality="rna", features=model.feature_names("rna"), k=5)
    blocks = list(model.impute_blocks(test, block_size=300, modality="rna", k=5))
    assert [b.n_vars for b in blocks] == [300, 300, 200]
    np.testing.assert_allclose(np.hstack([b.X.toarray() for b in blocks]), whole.X.toarray(), atol=1e-6)


def test_values_changed_between_two_blocks_are_named(citeseq):
    model, train, test = citeseq
    reference = train["protein"].copy()
    blocks = model.impute_blocks(test, block_size=20, modality="protein", reference=reference)
    next(blocks)
    reference.X *= 2
    with pytest.raises(ScmambaError, match="protein in the reference were changed between two blocks"):
        next(blocks)


def test_order_of_cells_and_features_does_not_matter(citeseq):
    model, _, test = citeseq
    names = list(model.feature_names("protein")[[4, 0, 9]])
    want = model.impute(test, modality="protein", features=names, k=20)
    turned = test["rna"][::-1, ::-1].copy()
    found = model.impute(turned, modality="protein", features=names[::-1], k=20)
    assert list(found.obs_names) == list(test.obs_names[::-1])
    np.testing.assert_allclose(found[want.obs_names, want.var_names].X, want.X, atol=1e-4)


def test_references_need_no_other_modality(citeseq):
    model, train, test = citeseq
    want = model.impute(test, modality="protein", k=20)
    np.testing.assert_allclose(
        model.impute(test, modality="protein", k=20, reference=train["protein"].copy()).X, want.X, atol=1e-4
    )


def test_cells_with_nothing_to_impute_from_are_nan(citeseq):
    model, _, test = citeseq
    with without_pulling():
        mosaic = mudata.MuData({"rna": test["rna"][:30].copy(), "protein": test["protein"][20:50].copy()})
    lacking = ~mosaic.obs_names.isin(mosaic["rna"].obs_names)
    with pytest.warns(UserWarning, match="20 of 50 cells have none of"):
        found = model.impute(mosaic, modality="protein", k=5)
    assert found.n_obs == 50
    np.testing.assert_array_equal(np.isnan(found.X).all(1), lacking)
    with pytest.warns(UserWarning, match="20 of 50 cells"):
        genes = model.impute(mosaic, modality="rna", features=model.feature_names("rna")[:4], k=5)
    np.testing.assert_array_equal(
        np.isnan(genes.X.toarray()).all(1), ~mosaic.obs_names.isin(mosaic["protein"].obs_names)
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"features": None}, ScmambaError, "Name the features of atac.*impute_blocks", id="all peaks"),
        pytest.param({"features": []}, ScmambaError, "features is empty", id="no feature"),
        pytest.param({"features": ["nowhere"]}, UnknownNameError, "feature of atac.*'nowhere'", id="unknown feature"),
        pytest.param({"modality": "protein"}, UnknownNameError, "modality 'protein'", id="unknown modality"),
        pytest.param({"k": 301}, ScmambaError, "between 1 and the 300", id="k beyond the cells"),
        pytest.param({"k": 300}, ScmambaError, "besides the cell itself", id="k counts the cell itself"),
        pytest.param({"values": "tfidf"}, UnknownNameError, "values 'tfidf'", id="unknown values"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(trained, arguments, error, message):
    two_peaks = list(trained.feature_names("atac")[:2])
    with pytest.raises(error, match=message):
        trained.impute(**{"features": two_peaks, **arguments})


def test_a_repeated_feature_is_named(trained):
    name = trained.feature_names("atac")[0]
    with pytest.raises(ScmambaError, match=f"{name!r} twice"):
        trained.impute(features=[name, name])


def test_cells_of_the_asked_modality_alone_are_refused(trained):
    with pytest.raises(ScmambaError, match="nothing but atac to impute atac from"):
        trained.impute(trained.adata["atac"].copy(), modality="atac", features=trained.feature_names("atac")[:1])


@pytest.mark.parametrize("store", [np.asarray, sparse.csr_matrix])
def test_values_that_the_model_reads_as_they_are_are_averaged_so(store):
    """Scaled values have no logarithm: their average was NaN."""
    mdata = mudata_of({"rna": poisson(60, 30), "atac": poisson(60, 20)})
    mdata["rna"].X = store((poisson(60, 30) - 0.5).astype(np.float32))
    SCMAMBA.setup_mudata(mdata, require_counts=False)
    model = SCMAMBA(mdata, encoder="linear", values={"rna": "raw"}, n_latent=4)
    model.train(**QUICK)
    asked = {"modality": "rna", "features": list(mdata["rna"].var_names[:4]), "k": 5}
    found, want = (model.impute(**asked, **of).X for of in ({}, {"values": "raw"}))
    assert np.isfinite(dense(found)).all() and (dense(found) == dense(want)).all()
    for values in ("log1p", "clr"):
        with pytest.raises(
            ScmambaError, match=f"rna has negative values, such as -0.5.*values='{values}'.*values='raw'"
        ):
            model.impute(**asked, values=values)
    assert np.isfinite(dense(model.impute(**asked, values="binary").X)).all()


def dense(x):
    return x.toarray() if sparse.issparse(x) else x
