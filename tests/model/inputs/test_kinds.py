"""Modalities are recognised by key or by the types of their features, in one order."""

import warnings

import pytest
from logged import logged
from shapes import fitted, mudata_of, poisson

from scmamba_scvi import SCMAMBA
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.model.inputs.kinds import resolve_modalities, stated_kinds


def data(*keys):
    return mudata_of({key: poisson(4, 3) for key in keys})


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        pytest.param(("peaks", "GEX"), {"rna": "GEX", "atac": "peaks"}, id="other names in another order"),
        pytest.param(("rna", "antibody"), {"rna": "rna", "protein": "antibody"}, id="antibodies"),
        pytest.param(
            ("rna", "protein_expression", "accessibility"),
            {"rna": "rna", "atac": "accessibility", "protein": "protein_expression"},
            id="as scvi-tools has them",
        ),
        pytest.param(
            ("Gene Expression", "Surface-Protein"),
            {"rna": "Gene Expression", "protein": "Surface-Protein"},
            id="words apart",
        ),
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
    with pytest.warns(UserWarning, match=r"mdata\['gene'\] is not used"):
        assert resolve_modalities(data("rna", "atac", "gene"), None) == {"rna": "rna", "atac": "atac"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param(
            ("rna", "atac", "ab"),
            "mdata['ab'] is not used: its kind is not known. If it is protein, name it: "
            "modalities={'rna': 'rna', 'atac': 'atac', 'protein': 'ab'}.",
            id="proteins",
        ),
        pytest.param(
            ("prot", "gex", "tiles"),
            "mdata['tiles'] is not used: its kind is not known. If it is atac, name it: "
            "modalities={'rna': 'gex', 'atac': 'tiles', 'protein': 'prot'}.",
            id="accessibility",
        ),
        pytest.param(
            ("rna", "atac", "ab", "spatial"),
            "mdata['ab'] is not used: its kind is not known. If it is protein, name it: "
            "modalities={'rna': 'rna', 'atac': 'atac', 'protein': 'ab'}.\n"
            "mdata['spatial'] is not used: its kind is not known. If it is protein, name it: "
            "modalities={'rna': 'rna', 'atac': 'atac', 'protein': 'spatial'}.",
            id="two",
        ),
    ],
)
def test_a_modality_of_a_kind_that_is_not_known_is_named_once(keys, message):
    mdata = data(*keys)
    with pytest.warns(UserWarning) as warned:
        SCMAMBA.setup_mudata(mdata)
    assert "\n".join(str(w.message) for w in warned if "not used" in str(w.message)) == message
    assert warned[0].filename == __file__


def test_only_the_users_own_setup_names_it(tmp_path):
    """What a model does with its data, with a copy, with new cells and with a file says nothing of it again."""
    mdata = mudata_of({"rna": poisson(60, 30), "atac": poisson(60, 20), "ab": poisson(60, 10)})
    with pytest.warns(UserWarning, match="not used"):
        model = fitted(mdata)
    with warnings.catch_warnings(record=True) as later:
        warnings.simplefilter("always")
        model.get_latent_representation(mdata.copy())
        SCMAMBA.load_query_data(mdata.copy(), model)
        model.save(tmp_path / "model")
        SCMAMBA.load(tmp_path / "model", mdata.copy())
        SCMAMBA.setup_mudata(mdata, modalities=model.kinds)  # left out on purpose
    assert not [w for w in later if "not used" in str(w.message)]


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(("rna", "atac", "HTO"), id="hashtags"),
        pytest.param(("rna", "atac", "CRISPR Guide Capture"), id="guides"),
        pytest.param(("rna", "atac", "prot", "gene activity"), id="beside all kinds"),
    ],
)
def test_what_no_model_takes_is_only_logged(keys):
    mdata = data(*keys)
    with logged() as lines, warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve_modalities(mdata, None)
    assert lines == [f"mdata[{keys[-1]!r}] is not used."]


@pytest.mark.parametrize(
    ("written", "kind"),
    [("Gene Expression", "rna"), ("mRNA", "rna"), ("Peak", "atac"), ("ADT", "protein"), ("Custom", None), ("HTO", "")],
)
def test_the_type_of_a_feature_states_its_kind(written, kind):
    adata = data("x")["x"]
    adata.var["feature_types"] = written
    assert stated_kinds(adata).tolist() == [kind] * 3


def test_hashtags_are_known_by_the_types_of_features():
    mdata = data("rna", "atac", "tags")
    mdata["tags"].var["feature_types"] = "Multiplexing Capture"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve_modalities(mdata, None)
    mdata["tags"].var["feature_types"] = ["Multiplexing Capture", "Custom", "Custom"]
    with pytest.warns(UserWarning, match="its kind is not known"):  # of these alone
        resolve_modalities(mdata, None)


@pytest.mark.parametrize(
    ("keys", "given", "message"),
    [
        (("rna", "x"), None, "At least two modalities"),
        (("rna", "atac"), {"rna": "rna", "atac": "rna"}, "one modality for two kinds"),
        (("rna", "atac"), {"rna": "rna", "rna_layer": "rna", "atac": "atac"}, "names one kind twice"),
        (("rna", "atac"), ["rna", "atac"], "must be a dict"),
        (
            ("rna", "atac"),
            {"rna_layer": "rna", "atac_layer": "atac", "batch_key": "rna"},
            r"batch_key='rna:\.\.\.' takes",
        ),
    ],
)
def test_what_cannot_be_resolved_is_named(keys, given, message):
    with pytest.raises(ScmambaError, match=message):
        resolve_modalities(data(*keys), given)
