"""The cells that a method is called with."""

import warnings
from types import SimpleNamespace

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from shapes import fitted, mudata_of, poisson

from scmamba_scvi import SCMAMBA
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.model.tools.cells import kind_of, kind_of_features, resolve_cells


@pytest.mark.parametrize(
    ("indices", "found"),
    [
        pytest.param(None, [0, 1, 2, 3], id="all"),
        pytest.param([3, -4, 3], [3, 0, 3], id="positions from either end, repeated"),
        pytest.param([False, True, False, True], [1, 3], id="mask"),
        pytest.param([], [], id="none"),
    ],
)
def test_cells_are_positions_or_a_mask(indices, found):
    assert resolve_cells(indices, pd.Index(list("abcd"))).tolist() == found


def test_a_mask_with_names_selects_the_cells_that_it_names():
    names = pd.Index(["c1", "c2", "c3", "c4"])
    mask = pd.Series([True, False, False, False], index=["c4", "c3", "c2", "c1"])
    for kind in ("bool", "boolean", "category"):
        assert resolve_cells(mask.astype(kind), names).tolist() == [3]
    assert resolve_cells(mask.reset_index(drop=True), names).tolist() == [0]  # without names
    with pytest.raises(ScmambaError, match="The mask of cells names other cells: it lacks 1 of 4, such as 'c1'"):
        resolve_cells(mask.set_axis(["c2", "c3", "c4", "c5"]), names)


@pytest.mark.parametrize("indices", [[4], [-5], [0.5], ["a"], [True, False], [[0, 1]]])
def test_cells_that_are_not_there_are_refused(indices):
    with pytest.raises(ScmambaError, match=r"indices must be|mask of cells has 2 entries for 4"):
        resolve_cells(indices, pd.Index(list("abcd")))


def test_features_of_a_kind_that_the_model_lacks_are_refused_and_the_model_stays_usable(trained):
    for ask in (trained.feature_names, trained.coordinates):
        with pytest.raises(UnknownNameError, match="kind of modality 'protein'. Known: 'rna', 'atac'"):
            ask("protein")
    assert trained.get_latent_representation(indices=[0]).shape == (1, 64)


@pytest.mark.parametrize(
    ("names", "types", "kind"),
    [
        pytest.param(["CD3", "CD4", "TCR"], None, "protein", id="most names"),
        pytest.param(["CD3", "CD4"], None, "protein", id="as many of the fewer"),
        pytest.param(["CD3", "CD4"], "Gene Expression", "rna", id="what the data say"),
        pytest.param(["CD3", "CD4", "ACTB"], None, "rna", id="genes"),
        pytest.param(["x"], "Gene Expression", None, id="none"),
    ],
)
def test_proteins_are_told_from_their_genes(names, types, kind):
    features = {"rna": ["CD3", "CD4", "ACTB", "GAPDH"], "protein": ["CD3", "CD4", "TCR"]}
    model = SimpleNamespace(kinds={"rna": "gex", "protein": "adt"}, feature_names=features.get)
    var = pd.DataFrame({} if types is None else {"feature_types": types}, index=names)
    assert kind_of_features(model, AnnData(np.ones((1, len(names))), var=var)) == kind


def test_a_modality_is_known_by_kind_and_a_stranger_is_named(trained):
    assert kind_of(trained, "atac") == "atac"
    with pytest.raises(UnknownNameError, match="query_modality 'smell'"):
        kind_of(trained, "smell", "query_modality")
    with pytest.raises(ScmambaError, match=r"must be the name of one modality, got \['rna', 'atac'\]"):
        kind_of(trained, ["rna", "atac"])
    assert kind_of_features(trained, trained.adata["atac"]) == "atac"
    assert kind_of_features(trained, AnnData(np.ones((2, 2)))) is None


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda model, mdata: model.get_latent_representation(mdata), id="embed"),
        pytest.param(lambda model, mdata: model.predict(mdata), id="predict"),
        pytest.param(lambda model, mdata: model.match_cells(mdata, k=2), id="match"),
        pytest.param(lambda model, mdata: model.train_classifier(mdata, labels_key="label"), id="train a classifier"),
    ],
)
def test_a_modality_under_another_key_is_said_to_be_unread(use):
    """The model knows it as atac: without a word, cells would be embedded from their genes alone."""
    model = fitted(mudata_of({"rna": poisson(60, 30), "atac": poisson(60, 20)}))
    mdata = mudata_of({"rna": poisson(60, 30), "peaks": poisson(60, 20)})
    mdata.obs["label"] = model.adata.obs["label"] = ["a", "b"] * 30
    model.train_classifier(labels_key="label")
    with pytest.warns(
        UserWarning, match=r"mdata\['peaks'\] looks like atac and is not read.*as 'atac'.*prepare_query"
    ) as said:
        use(model, mdata)
    assert sum("is not read" in str(one.message) for one in said) == 1
    with pytest.raises(ScmambaError, match=r"no cells with 'atac'.*mdata\['peaks'\] looks like atac"):
        model.get_latent_representation(mdata, modality="atac")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.get_latent_representation(mdata, modality="rna")


def test_an_anndata_is_wrapped_and_left_as_it_is(trained):
    cells = trained.adata["rna"][:7]
    columns = list(cells.obs)
    z = trained.get_latent_representation(cells, modality="rna")
    assert z.shape == (7, 64) and list(cells.obs) == columns and not cells.uns
    assert cells.is_view
    np.testing.assert_allclose(z, trained.get_latent_representation(modality="rna", indices=range(7)), atol=1e-5)


def test_an_anndata_is_corrected_for_the_batches_in_its_obs(trained):
    rna = trained.adata["rna"][:7].copy()
    rna.obs = trained.adata.obs.loc[rna.obs_names, ["batch"]]
    alone = mudata.MuData({"rna": trained.adata["rna"][:7].copy()})
    alone.obs["batch"] = rna.obs["batch"]
    want = trained.get_latent_representation(alone)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # those of other packages change with their versions
        np.testing.assert_array_equal(trained.get_latent_representation(rna), want)


@pytest.mark.parametrize("use", ["get_latent_representation", "match_cells", "get_modality_agreement"])
@pytest.mark.filterwarnings("ignore:obs_names are not unique")
def test_a_slice_with_a_cell_twice_is_refused(trained, use):
    with pytest.raises(
        ScmambaError, match=r"mdata\['rna'\] has 1 cell names that occur more than once, such as 'cell_001'"
    ):
        getattr(trained, use)(trained.adata[[0, 0, 1]])


@pytest.fixture(scope="module")
def of_proteins():
    """A model of genes and proteins, four of which have the name of their gene, and of a gene that no cell has."""
    counts = {"rna": poisson(80, 30), "protein": poisson(80, 8, mean=3)}
    counts["rna"][:, 0] = 0
    mdata = mudata_of(counts)
    mdata["protein"].var_names = [*mdata["rna"].var_names[:4], *mdata["protein"].var_names[4:]]
    with without_pulling():
        mdata = type(mdata)(dict(mdata.mod))
    mdata.obs["type"] = [f"type {i % 2}" for i in range(80)]
    with pytest.warns(UserWarning, match="1 of 30 features are zero throughout"):
        return fitted(mdata)


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda model, few, _: model.get_latent_representation(few), id="embed"),
        pytest.param(lambda model, few, _: model.get_latent_representation(few["rna"]), id="embed an AnnData"),
        pytest.param(lambda model, few, _: model.train_classifier(labels_key="type"), id="train a classifier"),
        pytest.param(lambda model, few, _: SCMAMBA.load_query_data(few, model), id="map"),
        pytest.param(lambda model, few, folder: _loaded(model, few, folder), id="load"),
    ],
)
@pytest.mark.filterwarnings("ignore:var_names are not unique")  # as mudata says of the user's data
@pytest.mark.parametrize("is_turned", [False, True])
def test_features_that_few_cells_lack_and_shared_names_are_said_at_setup_only(of_proteins, use, is_turned, tmp_path):
    """Among ten cells most genes are zero, and the parts of data that were set up have the names that these have."""
    with without_pulling():
        few = of_proteins.adata[:10].copy()
        if is_turned:  # an order of cells that no modality has
            few = type(few)({"protein": few["protein"][::-1].copy(), "rna": few["rna"].copy()})
            few = few[few.obs_names[[*range(5, 10), *range(5)]]].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        use(of_proteins, few, tmp_path)


def test_a_slice_that_holds_other_cells_than_it_says_is_refused(trained):
    """mudata slices a modality by the order that its cells had when the MuData was made or updated."""
    with without_pulling():
        mdata = trained.adata.copy()
        mdata.mod["rna"] = mdata["rna"][::-1].copy()
        with pytest.raises(ScmambaError, match=r"cells are not in mdata.obs.*mdata.update\(\)"):
            trained.get_latent_representation(mdata[:20])
        mdata.update()
        np.testing.assert_allclose(
            trained.get_latent_representation(mdata[:20]), trained.get_latent_representation()[:20], atol=1e-5
        )


def test_cells_without_a_count_are_said_of_new_data_too(of_proteins):
    with without_pulling():
        few = of_proteins.adata[:10].copy()
    few["rna"].X = few["rna"].X * 0
    with pytest.warns(UserWarning, match=r"mdata\['rna'\].X: 10 of 10 cells are zero throughout. They are kept."):
        of_proteins.get_latent_representation(few)


def _loaded(model, few, folder):
    model.save(folder / "model")
    SCMAMBA.load(folder / "model", few)
