"""Modalities are recognised by key or by the types of their features, in one order."""

import pytest
from shapes import mudata_of, poisson

from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.model.inputs.kinds import resolve_modalities


def data(*keys):
    return mudata_of({key: poisson(4, 3) for key in keys})


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        pytest.param(("peaks", "GEX"), {"rna": "GEX", "atac": "peaks"}, id="other names in another order"),
        pytest.param(("adt", "spatial", "rna"), {"rna": "rna", "protein": "adt"}, id="one that is no kind"),
    ],
)
def test_kinds_are_recognised_by_key(keys, found):
    resolved = resolve_modalities(data(*keys), None)
    assert resolved == found and list(resolved) == list(found)


def test_kinds_are_recognised_by_the_types_of_features():
    mdata = data("one", "two")
    mdata["one"].var["feature_types"], mdata["two"].var["feature_types"] = "Peaks", "Gene Expression"
    assert resolve_modalities(mdata, None) == {"rna": "two", "atac": "one"}


def test_the_names_of_other_models_are_understood():
    assert resolve_modalities(data("gex", "acc"), {"rna_layer": "gex", "atac_layer": "acc"}) == {
        "rna": "gex",
        "atac": "acc",
    }


def test_gene_activity_beside_expression_is_not_taken_for_it():
    assert resolve_modalities(data("rna", "atac", "gene"), None) == {"rna": "rna", "atac": "atac"}


@pytest.mark.parametrize(
    ("keys", "given", "error", "message"),
    [
        (("rna", "gex"), None, ScmambaError, "both look like rna"),
        (("rna", "x"), None, ScmambaError, "At least two modalities"),
        (("rna", "atac"), {"rna": "rna", "atac": "peaks"}, UnknownNameError, "modality for 'atac'"),
        (("rna", "atac"), {"smell": "rna", "atac": "atac"}, UnknownNameError, "kind of modality"),
        (("rna", "atac"), {"rna": "rna", "atac": "rna"}, ScmambaError, "one modality for two kinds"),
        (("rna", "atac"), {"rna": "rna", "rna_layer": "rna", "atac": "atac"}, ScmambaError, "names one kind twice"),
        (("rna", "atac"), ["rna", "atac"], ScmambaError, "must be a dict"),
    ],
)
def test_what_cannot_be_resolved_is_named(keys, given, error, message):
    with pytest.raises(error, match=message):
        resolve_modalities(data(*keys), given)
