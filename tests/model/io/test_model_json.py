"""Every entry of the description of an exported model is checked before it is used."""

import json

import pytest
from shapes import TINY, mudata_of, poisson

from scmamba_scvi import SCMAMBA
from scmamba_scvi.config import ModelConfig
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.model.io.model_json import read_description
from scmamba_scvi.pp import FeatureLayout

LAYOUT = {"patch_size": 2, "slots": [0, 1], "patch_names": ["a"], "n_placed": 2, "ordered": True}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    mdata = mudata_of({"rna": poisson(40, 30), "atac": poisson(40, 20)})
    SCMAMBA.setup_mudata(mdata)
    folder = tmp_path_factory.mktemp("export") / "m"
    SCMAMBA(mdata, **TINY).export(folder)
    return folder / "model.json"


def test_configuration_and_layouts_come_back_as_objects(exported):
    described = read_description(exported)
    assert isinstance(described["config"], ModelConfig) and described["config"].n_latent == 4
    assert isinstance(described["layouts"]["rna"], FeatureLayout) and described["layouts"]["rna"].n_features == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format version 99, this release reads 1"),
        ({"format": "another"}, "does not describe a model of this package"),
        ({"weights_file": "../weights.safetensors"}, "weights cannot be in"),
        ({"reference_batches": 7}, "cannot have 7 batches"),
        ({"unknown_offsets": {"rna": [7], "atac": []}}, "offsets of batches that it does not have"),
        ({"unknown_offsets": {"rna": [0]}}, "offsets are not known of modalities that it does not have, or not of all"),
        ({"match_temperatures": {"rna atac": 0.0}}, "a temperature is not above 0"),
        ({"is_trained": 1}, "'is_trained' cannot be 1"),
        ({"layouts": {"rna": LAYOUT | {"patch_size": 2.0}}}, "'layouts' cannot be"),
        ({"layouts": {"rna": LAYOUT | {"ordered": "yes"}}}, "'layouts' cannot be"),
        ({"layouts": {"rna": {"slots": [0]}}}, "'layouts' cannot be"),
        ({"classifier": {"labels_key": "x", "by_modalities": {"rna": {"classes": ["a", 2]}}}}, "'classifier' cannot be"),
        ({"features": {"rna": ["a"], "atac": ["b"]}}, "features and layout of rna do not belong to each other"),
    ],
)  # fmt: skip
def test_entries_that_do_not_fit_are_named(exported, tmp_path, change, message):
    forged = tmp_path / "model.json"
    forged.write_text(json.dumps(json.loads(exported.read_text()) | change))
    with pytest.raises(ScmambaError, match=message):
        read_description(forged)
