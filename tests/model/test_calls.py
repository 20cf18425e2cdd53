"""How the methods of a trained model are called: data first, an AnnData where one modality suffices, errors that name."""

import inspect

import anndata
import mudata
import numpy as np
import pytest

from scmamba_scvi import SCMAMBA
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.errors import ScmambaError

#: Arguments that a method cannot do without, beside the data.
NEEDED = {
    "get_latent_representation": {},
    "match_cells": {},
    "impute": {"features": ["chr1:10000-10500"]},
    "impute_blocks": {},
    "get_modality_agreement": {},
    "train_classifier": {"labels_key": "cell_type"},
    "predict": {},
    "get_region_importance": {"groupby": "cell_type"},
    "get_region_links": {},
    "get_pseudotime": {"root": "type_1", "groupby": "cell_type"},
}


def call(model, name, adata=None, **arguments):
    needed = NEEDED[name] | ({"features": model.feature_names("atac")[:1]} if name == "impute" else {})
    return getattr(model, name)(adata, **(needed | arguments))


def of_other_features(adata):
    adata = adata.copy()
    adata.var_names = [f"other {i}" for i in range(adata.n_vars)]
    return adata


@pytest.fixture(scope="module")
def with_classifier(trained):
    trained.train_classifier(labels_key="cell_type")
    yield trained
    trained.classifier_ = None  # other tests share the model


@pytest.mark.parametrize("name", NEEDED)
def test_data_come_first_then_cells_and_the_rest_by_keyword(name):
    _, data, *others = inspect.signature(getattr(SCMAMBA, name)).parameters.values()
    assert (data.name, data.default) == ("adata", None)
    by_position = [p.name for p in others if p.kind is not p.KEYWORD_ONLY]
    assert by_position in ([], ["indices"], ["reference"])


@pytest.mark.parametrize("name", [name for name in NEEDED if name != "predict"])
def test_an_untrained_model_is_named(mdata, name):
    SCMAMBA.setup_mudata(mdata)
    with pytest.raises(ScmambaError, match="Train the model first"):
        call(SCMAMBA(mdata, encoder="linear"), name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda m: m["rna"].X, "must be a MuData, or an AnnData", id="a matrix"),
        pytest.param(lambda m: "cells.h5mu", "must be a MuData, or an AnnData", id="a path"),
        pytest.param(lambda m: of_other_features(m["rna"]), "features", id="an AnnData of other features"),
        pytest.param(lambda m: mudata.MuData({"x": of_other_features(m["rna"])}), "None of the modalities", id="a MuData of other modalities"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", NEEDED)
def test_data_of_another_kind_are_named(with_classifier, name, change, message):
    with pytest.raises(ScmambaError, match=message):
        call(with_classifier, name, change(with_classifier.adata))


@pytest.mark.parametrize("kind", ["rna", "atac"])
def test_an_anndata_is_embedded_like_a_mudata_of_that_modality(trained, kind):
    alone = trained.adata[kind][::-1, ::-1].copy()
    alone.obs["batch"] = trained.adata.obs["batch"].reindex(alone.obs_names)
    before = alone.obs.copy()
    with without_pulling():
        wrapped = mudata.MuData({kind: alone.copy()})
    wrapped.obs["batch"] = alone.obs["batch"]
    for modality in (None, kind):
        found = trained.get_latent_representation(alone, modality=modality)
        np.testing.assert_allclose(found, trained.get_latent_representation(wrapped, modality=modality), atol=1e-6)
    some = trained.get_latent_representation(alone, [3, 1], modality=kind)
    np.testing.assert_allclose(some, found[[3, 1]], atol=1e-6)
    assert type(alone) is anndata.AnnData and alone.obs.equals(before)


def test_an_anndata_of_another_modality_than_asked_for_is_named(trained):
    with pytest.raises(ScmambaError, match=r"features of mdata\['rna'\] are not those of the model"):
        trained.get_latent_representation(trained.adata["atac"].copy(), modality="rna")


def test_joint_is_understood_where_there_is_a_joint_embedding(with_classifier):
    model = with_classifier
    np.testing.assert_array_equal(model.get_latent_representation(modality="joint"), model.get_latent_representation())
    np.testing.assert_array_equal(model.predict(modality="joint"), model.predict())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("match_cells", {"query_modality": "joint"}),
        ("impute", {"modality": "joint"}),
        ("impute_blocks", {"modality": "joint"}),
        ("get_region_importance", {"modality": "joint"}),
    ],
)
def test_joint_is_answered_with_the_modalities_to_name(trained, name, arguments):
    with pytest.raises(ScmambaError, match=r"not 'joint': name one of \['rna', 'atac'\]"):
        call(trained, name, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"block_size": 0}, "block_size must be at least 1", id="block of nothing"),
        pytest.param({"modality": "protein"}, "Unknown modality", id="unknown modality"),
        pytest.param({"values": "tfidf"}, "Unknown values", id="unknown values"),
        pytest.param({"k": 301}, "between 1 and the 300", id="k beyond the cells"),
        pytest.param({"reference": "cells.h5mu"}, "reference must be a MuData", id="a path"),
    ],
)
def test_a_generator_checks_its_arguments_when_it_is_called(trained, arguments, message):
    with pytest.raises(ScmambaError, match=message):
        trained.impute_blocks(**arguments)
