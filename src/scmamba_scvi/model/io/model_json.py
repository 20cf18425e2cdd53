"""``model.json`` of an exported model. It may come from anyone, so every entry is checked before it is used."""

import json
import math
import re
from pathlib import Path
from types import NoneType
from typing import Any, Final

import numpy as np

from ..._compat import reason_of
from ..._keys import BATCH_KEY, KINDS, LABELS_KEY
from ...config import ModelConfig
from ...errors import ScmambaError
from ...pp import FeatureLayout
from ..inputs.genome import PARTS
from ..tools.linear_classifier import LinearClassifier

FORMAT: Final = "scmamba-scvi model"
FORMAT_VERSION: Final = 1
MODEL_FILE: Final = "model.json"
WEIGHTS_FILE: Final = "weights.safetensors"
#: No folder in it; the digest tells the weights of an export from those that it replaces.
WEIGHTS_NAME: Final = re.compile(r"weights(-[0-9a-f]{16})?\.safetensors")
#: Ten times the description of 1.2 million features.
MAX_BYTES: Final = 1 << 30
#: Slots of a patch that are allowed even where there are fewer features.
MAX_PATCH: Final = 1 << 16
#: Types of the arguments of `setup_mudata`, in the form of `ENTRIES`.
SETUP_ARGUMENTS: Final[dict[str, Any]] = {
    "modalities": {...: str}, "layers": {...: (str, NoneType)}, "batch_key": (str, NoneType),
    "labels_key": (str, NoneType), "unlabeled_category": (str, int, float, bool), "require_counts": bool,
    "genome": (str, NoneType),
}  # fmt: skip
#: The same of what `LinearClassifier.to_dict` and `FeatureLayout.to_dict` give.
CLASSIFIER: Final = {"classes": [str], "weight": [list], "bias": [float, int], "temperature": (float, int)}
LAYOUT: Final = {"patch_size": int, "slots": [int], "patch_names": [str], "n_placed": int, "ordered": bool}
#: Types of the entries of ``model.json``: ``[a, b]`` is a list of values of types ``a`` or ``b``, ``{...: a}`` a dict of
#: any keys, another dict has exactly the keys named, a tuple lists alternatives.
ENTRIES: Final[dict[str, Any]] = {
    "format": str,
    "format_version": int,
    "weights_file": str,
    "weights_sha256": str,
    "versions": {"scmamba-scvi": str, "scvi-tools": str, "torch": str},
    "is_trained": bool,
    "is_initialized": bool,
    "is_query": bool,
    "reference_batches": int,
    "precision": str,
    "unknown_offsets": {...: [int]},
    "preset": str,
    "config": dict,
    "match_temperatures": {...: (float, int)},
    "classifier": ({"labels_key": str, "by_modalities": {...: CLASSIFIER}}, NoneType),
    "places": {...: ({"chroms": [str], **{part: [int] for part in PARTS}}, NoneType)},
    "setup_args": SETUP_ARGUMENTS,
    "features": {...: [str]},
    "layouts": {...: LAYOUT},
    "categories": {BATCH_KEY: [str, int, float, bool], LABELS_KEY: [str, int, float, bool]},
    "original_keys": {BATCH_KEY: (str, NoneType), LABELS_KEY: (str, NoneType)},
}


def read_description(path: Path) -> dict[str, Any]:
    """Entries of ``model.json``, each of its type and consistent with the others; raises if that is not so.

    ``config`` is a `ModelConfig`, ``layouts`` holds `FeatureLayout`.
    """
    if not path.is_file():  # reading a pipe would wait forever
        raise ScmambaError(f"{path.parent} is not an exported model: it has no {path.name}.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ScmambaError(f"{path.stat().st_size:,} bytes are more than the description of any model has.")
        described = json.loads(path.read_text(encoding="utf-8"))
        _check_version(described)
        for name, types in ENTRIES.items():
            if not _is_of(described[name], types):
                raise ScmambaError(f"{name!r} cannot be {_short(described[name])}.")
        return _with_objects(described)
    except KeyError as error:
        raise ScmambaError(f"{path} cannot be read: it lacks {error}.") from error
    except (OSError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ScmambaError(f"{path} cannot be read: {reason_of(error)}") from error


def _check_version(described: Any) -> None:
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise ScmambaError("it does not describe a model of this package.")
    if (version := described.get("format_version")) != FORMAT_VERSION:
        raise ScmambaError(
            f"it has format version {_short(version)}, this release reads {FORMAT_VERSION}. It was written by "
            f"{_short(described.get('versions'))}."
        )


def _is_of(value: Any, types: Any) -> bool:
    """Whether a value of JSON has the types that are written as in `ENTRIES`; True and False are no numbers."""
    if isinstance(types, tuple):
        return any(_is_of(value, one) for one in types)
    if isinstance(types, list):
        return type(value) is list and {type(v) for v in value} <= set(types)
    if isinstance(types, dict):
        if type(value) is not dict or (... not in types and value.keys() != types.keys()):
            return False
        return all(_is_of(v, types[name if name in types else ...]) for name, v in value.items())
    return type(value) is types


def _with_objects(described: dict[str, Any]) -> dict[str, Any]:
    """The entries, configuration and layouts as objects that check themselves; all fit each other."""
    modalities, features = described["setup_args"]["modalities"], described["features"]
    if not set(modalities) <= set(KINDS) or not len(set(modalities.values())) == len(modalities) >= 2:
        raise ScmambaError(f"the modalities cannot be {_short(modalities)}.")
    if not set(described["setup_args"]["layers"]) <= set(modalities):
        raise ScmambaError(f"there are layers of {_short(list(described['setup_args']['layers']))}.")
    layouts = {kind: FeatureLayout.from_dict(saved) for kind, saved in described["layouts"].items()}
    if not list(layouts) == list(features) == list(modalities):
        raise ScmambaError(f"features or layouts are not those of the modalities {list(modalities)}.")
    for kind, layout in layouts.items():
        n = layout.n_features
        if not len(set(features[kind])) == len(features[kind]) == n or layout.patch_size > max(MAX_PATCH, n):
            raise ScmambaError(f"features and layout of {kind} do not belong to each other.")
    for kind, places in described["places"].items():
        if places is not None:
            chrom, *_ = np.asarray([places[part] for part in PARTS], dtype=np.int64)
            if len(chrom) != len(features[kind]) or ((chrom < -1) | (chrom >= len(places["chroms"]))).any():
                raise ScmambaError(f"the coordinates of {kind} are damaged.")
    if not all(0 < t < math.inf for t in described["match_temperatures"].values()):
        raise ScmambaError("a temperature is not above 0.")
    if not 0 <= described["reference_batches"] <= len(described["categories"][BATCH_KEY]):
        raise ScmambaError(f"the reference cannot have {described['reference_batches']} batches.")
    if described["unknown_offsets"].keys() != modalities.keys():
        raise ScmambaError("offsets are not known of modalities that it does not have, or not of all that it has.")
    batches = range(len(described["categories"][BATCH_KEY]))
    if not all(number in batches for numbers in described["unknown_offsets"].values() for number in numbers):
        raise ScmambaError("offsets of batches that it does not have are not known.")
    if not WEIGHTS_NAME.fullmatch(described["weights_file"]):
        raise ScmambaError(f"weights cannot be in {_short(described['weights_file'])}.")
    config = ModelConfig(**described["config"])
    for classifier in (described["classifier"] or {"by_modalities": {}})["by_modalities"].values():
        if len(LinearClassifier.from_dict(classifier).weight) != config.n_latent:
            raise ScmambaError("the classifier is of another number of latent dimensions.")
    return {**described, "layouts": layouts, "config": config}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
