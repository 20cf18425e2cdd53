"""Which modality is meant where none is named: the only one that the cells have, or lack, or that has regions; else it is asked for."""

import numpy as np
import pandas as pd
import pytest
from shapes import fitted, mudata_of, poisson

from scmamba_scvi._compat import without_pulling
from scmamba_scvi.errors import ScmambaError

pytestmark = pytest.mark.filterwarnings("ignore:The confidence is not calibrated")  # of so few cells
SIZES = {"rna": 30, "atac": 20, "protein": 12}


def model_of(*kinds):
    mdata = mudata_of({kind: poisson(60, SIZES[kind], seed=i) for i, kind in enumerate(kinds)})
    mdata.obs["type"] = [f"type {i % 2}" for i in range(60)]
    return fitted(mdata, encoder="linear")


@pytest.fixture(scope="module")
def models():
    return {
        kinds: model_of(*kinds) for kinds in [("rna", "atac"), ("rna", "protein"), ("atac", "protein"), tuple(SIZES)]
    }


def with_kinds(model, *kinds):
    """The cells of a model as a MuData of these modalities, of one alone as an AnnData."""
    mods = {kind: model.adata[kind].copy() for kind in kinds}
    with without_pulling():
        return next(iter(mods.values())) if len(mods) == 1 else type(model.adata)(mods)


PAIRS = [("rna", "atac"), ("rna", "protein"), ("atac", "protein")]


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_cells_are_matched_with_the_other_modality_of_two(models, pair):
    model, (first, second) = models[pair], pair
    for kind, other in (pair, pair[::-1]):
        query, reference = with_kinds(model, kind), with_kinds(model, other)
        want = model.match_cells(query, reference, query_modality=kind, reference_modality=other, k=3)
        for found in (
            model.match_cells(query, reference, k=3),
            model.match_cells(query, k=3),
            model.match_cells(reference=reference, k=3),
            model.match_cells(query_modality=kind, k=3),
            model.match_cells(reference_modality=other, k=3),
        ):
            np.testing.assert_allclose(found.scores, want.scores, atol=1e-5)
    want = model.match_cells(query_modality=first, reference_modality=second, k=3)
    np.testing.assert_array_equal(model.match_cells(k=3).indices, want.indices)


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_the_modality_that_cells_lack_is_imputed(models, pair):
    model, second = models[pair], pair[1]
    for kind, other in (pair, pair[::-1]):
        for found in (
            *model.impute_blocks(with_kinds(model, kind), k=3),
            *model.impute_blocks(reference=with_kinds(model, other), k=3),
        ):
            assert found.shape == (60, SIZES[other])
    (found,) = model.impute_blocks(k=3)
    assert found.n_vars == SIZES[second]
    assert model.impute(features=model.feature_names(second)[:2], k=3).n_vars == 2


@pytest.mark.parametrize(
    ("kinds", "given", "explained"),
    [
        pytest.param(("rna", "atac"), ("rna", "atac"), "atac", id="accessibility"),
        pytest.param(("rna", "protein"), ("rna", "protein"), "rna", id="RNA"),
        pytest.param(("rna", "atac"), ("rna",), "rna", id="the only one"),
        pytest.param(("rna", "protein"), ("protein",), "protein", id="proteins alone"),
        pytest.param(("rna", "atac", "protein"), ("rna", "protein"), "rna", id="those of the data"),
    ],
)
def test_what_has_regions_is_explained(models, kinds, given, explained):
    model = models[kinds]
    data = with_kinds(model, *given)
    data.obs["type"] = model.adata.obs["type"]
    found = model.get_region_importance(data, groupby="type", n_steps=1)
    assert set(found["name"]) == set(model.feature_names(explained))
    named = model.get_region_importance(data, groupby="type", modality=explained, n_steps=1)
    pd.testing.assert_frame_equal(found, named)


def test_of_three_modalities_the_last_that_is_open_is_clear_and_others_are_asked_for(models):
    model = models[tuple(SIZES)]
    rna = with_kinds(model, "rna")
    assert model.impute(with_kinds(model, "rna", "atac"), k=3).n_vars == SIZES["protein"]
    assert model.match_cells(rna, with_kinds(model, "protein"), k=3).scores.shape == (60, 3)
    for call, message in (
        (lambda: model.match_cells(), r"Name two of \['rna', 'atac', 'protein'\]: match_cells\(query_modality=..., "),
        (lambda: model.match_cells(rna), r"reference_modality=..., one of \['atac', 'protein'\]"),
        (lambda: model.match_cells(reference=rna), r"query_modality=..., one of \['atac', 'protein'\]"),
        (lambda: model.impute(rna), r"modality=..., one of \['atac', 'protein'\]"),
        (lambda: model.impute_blocks(), r"modality=..., one of \['rna', 'atac', 'protein'\]"),
    ):
        with pytest.raises(ScmambaError, match=message):
            call()


def test_the_way_to_all_features_keeps_what_was_passed(models):
    model = models["rna", "atac"]
    rna, atac = with_kinds(model, "rna"), with_kinds(model, "atac")
    for arguments, call in (
        ({}, "modality='atac'"),
        ({"adata": rna}, "adata, modality='atac'"),
        ({"adata": rna, "reference": atac}, "adata, modality='atac', reference=reference"),
    ):
        with pytest.raises(ScmambaError) as error:
            model.impute(**arguments)
        assert str(error.value).endswith(f"for part in model.impute_blocks({call}): ...")
