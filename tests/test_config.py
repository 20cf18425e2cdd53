"""Presets, overrides, and options that are refused by name."""

import dataclasses
import json

import numpy as np
import pytest

from scmamba_scvi.config import PRESETS, ModelConfig, TrainConfig, check_option_names, name_of_preset, resolve_config
from scmamba_scvi.errors import ScmambaError, UnknownNameError


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_resolves_and_comes_back_from_its_dict(preset):
    config = resolve_config(preset)
    assert ModelConfig(**dataclasses.asdict(config)) == config
    for kind in ("rna", "atac", "protein"):
        for name in ("values", "n_layers", "patch_size", "attention_layers"):
            config.of_kind(name, kind)


def test_overrides_win_over_the_preset():
    assert resolve_config("paper", n_layers=3).of_kind("n_layers", "rna") == 3
    assert resolve_config("paper", n_layers={"rna": 3}).n_layers == {"rna": 3, "atac": 12, "protein": 4}


def test_auto_is_the_preset_that_it_stands_for():
    assert resolve_config("auto") == resolve_config(name_of_preset("auto")) == resolve_config("small")


def test_vectors_of_features_are_as_wide_as_the_embedding_needs():
    assert resolve_config("small").d_feature == resolve_config("small", n_latent=32).d_feature == 64
    assert resolve_config("small", n_latent=128).d_feature == 128
    assert resolve_config("large", n_latent=np.int64(100)).d_feature == 128
    for without in ({"spectral": False}, {"linear_branch": False, "gate_init": 1.0}):
        assert resolve_config("small", n_latent=128, **without).d_feature == 64
    with pytest.raises(ScmambaError, match="d_feature = 64 must be at least n_latent = 128"):
        resolve_config("small", n_latent=128, d_feature=64)
    with pytest.raises(ScmambaError, match="n_latent must be a whole number"):
        resolve_config("small", n_latent="128")


def test_naming_one_kind_keeps_the_others():
    config = resolve_config("small", values={"rna": "binned"})
    assert config.values == {"rna": "binned", "atac": "tfidf", "protein": "clr"}
    assert resolve_config("small").values["rna"] == "pareto"  # the preset itself is untouched


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: resolve_config("tiny"), "Unknown preset 'tiny'.*Known: 'auto', 'small'", id="preset"),
        pytest.param(lambda: resolve_config("small", n_latents=3), "Did you mean 'n_latent'", id="option"),
        pytest.param(
            lambda: check_option_names("training option", ["rate"], TrainConfig),
            "Unknown training option 'rate'",
            id="training option",
        ),
        pytest.param(lambda: ModelConfig(n_layers={"dna": 2}), "Unknown kind of modality in n_layers 'dna'", id="kind"),
    ],
)
def test_unknown_names_are_answered_with_the_known_ones(call, message):
    with pytest.raises(UnknownNameError, match=message):
        call()


def test_numbers_of_numpy_are_taken_wherever_numbers_are():
    config = ModelConfig(
        n_latent=np.int64(32), n_layers={"rna": np.int64(2), "atac": 3}, attention_layers=(np.int64(1),)
    )
    assert json.loads(json.dumps(dataclasses.asdict(config))) == {
        **json.loads(json.dumps(dataclasses.asdict(ModelConfig()))),
        "n_latent": 32, "n_layers": {"rna": 2, "atac": 3}, "attention_layers": [1],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"n_latent": np.array([32, 64])}, "n_latent must be a whole number, got array", id="array"),
        pytest.param({"n_latent": 1}, "n_latent must be at least 2 and at most", id="one dimension has no directions"),
        pytest.param({"dropout": [0.1]}, r"dropout must be a finite number, got \(0.1,\)", id="list"),
        pytest.param({"n_layers": True}, "n_layers must be a whole number, got True", id="True is no number"),
        pytest.param({"temperature": float("nan")}, "temperature must be a finite number, got nan", id="nan"),
        pytest.param({"gate_init": 10**40}, "gate_init must be a finite number, got 1000", id="infinite in float32"),
        pytest.param({"attention_layers": (-1,)}, "attention_layers must be indices of layers", id="index below 0"),
        pytest.param({"attention_layers": (1.5,)}, "attention_layers must be indices of layers", id="index in between"),
        pytest.param(
            {"attention_layers": (0, 1)},
            r"attention_layers = \(0, 1\) must be below n_layers = 1, as",
            id="attention in a block that is not there",
        ),
        pytest.param(
            {"attention_layers": (1,), "n_layers": {"rna": 2, "atac": 1}},
            r"attention_layers = \(1,\) of atac must be below n_layers = 1 of atac",
            id="nor for one kind",
        ),
        pytest.param(
            {"attention_layers": {"atac": (2,)}, "n_layers": 2},
            r"attention_layers = \(2,\) of atac must be below n_layers = 2 of atac",
            id="attention of one kind",
        ),
        pytest.param(
            {"attention_layers": (0,), "attention_heads": 3},
            "d_model = 64 must be a multiple of attention_heads = 3",
            id="width that heads cannot share",
        ),
        pytest.param(
            {"patch_embedding": "shared"},
            "no vector per feature to hold the spectral initialization",
            id="nowhere to start",
        ),
        pytest.param({"d_feature": 32}, "d_feature = 32 must be at least n_latent = 64", id="too narrow to start"),
        *(
            pytest.param(
                {"d_feature": 32, "encoder": encoder, "patch_embedding": "shared"},
                "d_feature = 32 must be at least n_latent = 64",
                id=f"too narrow to start, {encoder}",
            )
            for encoder in ("mlp", "linear")
        ),
    ],
)
def test_values_that_cannot_be_used_are_refused_by_name(options, message):
    with pytest.raises(ScmambaError, match=message):
        ModelConfig(**options)


def test_attention_that_nothing_reads_is_no_fault():
    ModelConfig(attention_heads=3)
    ModelConfig(attention_layers={"rna": (0,)}, n_layers={"atac": 1})
    ModelConfig(attention_layers=(1,), encoder="mlp")


def test_a_kind_that_is_left_out_is_named():
    with pytest.raises(ScmambaError, match="n_layers has no value for 'atac'"):
        ModelConfig(n_layers={"rna": 2}).of_kind("n_layers", "atac")


def test_configurations_are_frozen():
    for config in (ModelConfig(), TrainConfig()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.anything = 1
