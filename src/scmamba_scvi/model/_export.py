"""Models as files that run no code when they are read: weights in safetensors, everything else in JSON."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import safetensors.torch
import scvi
import torch
from safetensors import SafetensorError

from .._compat import package_version, scvi_constants
from .._keys import BATCH_KEY, LABELS_KEY, x_key
from ..errors import ScmambaError
from ._heads import Head

if TYPE_CHECKING:
    from mudata import MuData

    from ._model import SCMAMBA

_C = scvi_constants()

FORMAT: Final = "scmamba-scvi model"
FORMAT_VERSION: Final = 1
WEIGHTS_FILE: Final = "weights.safetensors"
MODEL_FILE: Final = "model.json"


def write_export(model: SCMAMBA, directory: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a folder that is whole or not there: it is made beside its place and then moved.

    Raises
    ------
    ScmambaError
        The folder exists and ``overwrite`` is not set.
    """
    directory = Path(directory)
    if directory.exists() and not overwrite:
        raise ScmambaError(f"{directory} exists. Choose another folder or pass overwrite=True.")
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.module.state_dict().items()}
        safetensors.torch.save_file(weights, unfinished / WEIGHTS_FILE)
        described = {**describe(model), "weights_sha256": _sha256(unfinished / WEIGHTS_FILE)}
        (unfinished / MODEL_FILE).write_text(json.dumps(described, indent=1))
        unfinished.chmod(0o755)
        _replace_folder(unfinished, directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_export(cls: type[SCMAMBA], directory: str | os.PathLike[str], mdata: MuData | None = None) -> SCMAMBA:
    """Model from a folder that `write_export` made; runs no code of the file and checks what it reads.

    Raises
    ------
    ScmambaError
        A file is missing, damaged, of another format or version, or does not fit the network it describes.
    """
    described = _read_description(Path(directory))
    weights = _read_weights(Path(directory), described["weights_sha256"])
    registry = _registry(cls, described)
    if mdata is not None:
        cls.setup_mudata(mdata, source_registry=registry, **registry[_C._SETUP_ARGS_KEY])
    arguments = {"preset": described["preset"], "layouts": described["layouts"], **described["config"]}
    model = cls(mdata, **arguments) if mdata is not None else cls(registry=registry, **arguments)
    try:
        model.module.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ScmambaError(f"The weights in {directory} do not fit the network they describe: {reason}") from error
    model.module.eval()
    model.is_trained_ = bool(described["is_trained"])
    model.is_started_ = True
    model.match_temperatures_ = {str(pair): float(t) for pair, t in described.get("match_temperatures", {}).items()}
    model.classifier_ = _read_classifier(described.get("classifier"))
    return model


def describe(model: SCMAMBA) -> dict[str, Any]:
    """Everything of a model but its weights, in values that JSON can hold."""
    fields = model.registry_[_C._FIELD_REGISTRIES_KEY]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {
            "scmamba-scvi": package_version(),
            "scvi-tools": scvi.__version__,
            "torch": str(torch.__version__),
        },
        "is_trained": bool(model.is_trained_),
        "preset": model.preset_,
        "match_temperatures": dict(model.match_temperatures_),
        "classifier": model.classifier_,
        "config": model.config.to_dict(),
        "setup_args": dict(model.registry_[_C._SETUP_ARGS_KEY]),
        "features": {kind: [str(name) for name in model.feature_names(kind)] for kind in model.kinds},
        "layouts": {kind: layout.to_dict() for kind, layout in model.layouts.items()},
        "categories": {
            key: [str(c) for c in fields[key][_C._STATE_REGISTRY_KEY]["categorical_mapping"]]
            for key in (BATCH_KEY, LABELS_KEY)
        },
        "original_keys": {key: fields[key][_C._STATE_REGISTRY_KEY]["original_key"] for key in (BATCH_KEY, LABELS_KEY)},
    }


def _read_classifier(described: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if described is None:
        return None
    try:
        heads = {str(key): Head.from_dict(values).to_dict() for key, values in described["heads"].items()}
        return {"labels_key": described["labels_key"], "heads": heads}
    except (AttributeError, KeyError, TypeError) as error:
        raise ScmambaError(f"The classifier of this model cannot be read: {error!r}.") from error


def _registry(cls: type[SCMAMBA], described: Mapping[str, Any]) -> dict[str, Any]:
    """scvi-tools' registry as it would be after setup of the training data."""
    arguments = described["setup_args"]
    fields: dict[str, Any] = {}
    for kind, key in arguments["modalities"].items():
        names = np.asarray(described["features"][kind], dtype=object)
        layer = arguments["layers"].get(kind)
        location = {"mod_key": key, "attr_name": "X" if layer is None else "layers", "attr_key": layer}
        fields[x_key(kind)] = {
            _C._DATA_REGISTRY_KEY: location,
            _C._STATE_REGISTRY_KEY: {"n_obs": 0, "n_vars": len(names), "column_names": names},
            _C._SUMMARY_STATS_KEY: {f"n_{x_key(kind)}": len(names)},
        }
    for key in (BATCH_KEY, LABELS_KEY):
        values = pd.Index(described["categories"][key]).to_numpy()
        fields[key] = {
            _C._DATA_REGISTRY_KEY: {"mod_key": None, "attr_name": "obs", "attr_key": f"_scvi_{key}"},
            _C._STATE_REGISTRY_KEY: {"categorical_mapping": values, "original_key": described["original_keys"][key]},
            _C._SUMMARY_STATS_KEY: {f"n_{key}": len(values)},
        }
    return {
        _C._SCVI_VERSION_KEY: described["versions"]["scvi-tools"],
        _C._MODEL_NAME_KEY: cls.__name__,
        _C._SETUP_METHOD_NAME: "setup_mudata",
        _C._SETUP_ARGS_KEY: arguments,
        _C._FIELD_REGISTRIES_KEY: fields,
    }


def _read_description(directory: Path) -> dict[str, Any]:
    path = directory / MODEL_FILE
    try:
        described = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ScmambaError(f"{directory} is not an exported model: it has no {MODEL_FILE}.") from error
    except (OSError, ValueError) as error:
        raise ScmambaError(f"{path} cannot be read: {error}.") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise ScmambaError(f"{path} does not describe a model of this package.")
    if described.get("format_version") != FORMAT_VERSION:
        raise ScmambaError(
            f"{path} has format version {described.get('format_version')!r}; this release reads {FORMAT_VERSION}. "
            f"It was written by scmamba-scvi {described.get('versions', {}).get('scmamba-scvi', 'of unknown version')}."
        )
    needed = (
        "weights_sha256",
        "versions",
        "is_trained",
        "preset",
        "config",
        "setup_args",
        "features",
        "layouts",
        "categories",
    )
    missing = [name for name in needed if name not in described]
    if missing:
        raise ScmambaError(f"{path} lacks the entries {missing}.")
    described["config"] = _with_tuples(described["config"])
    return described


def _with_tuples(config: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists only; the configuration is hashable and so has tuples."""

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: convert(entry) for name, entry in value.items()}
        return tuple(value) if isinstance(value, list) else value

    return convert(config)


def _read_weights(directory: Path, sha256: str) -> dict[str, torch.Tensor]:
    path = directory / WEIGHTS_FILE
    if not path.exists():
        raise ScmambaError(f"{directory} is not an exported model: it has no {WEIGHTS_FILE}.")
    if _sha256(path) != sha256:
        raise ScmambaError(f"{path} is damaged or was exchanged: its checksum is not the one that {MODEL_FILE} states.")
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise ScmambaError(f"{path} cannot be read: {error}.") from error


def _replace_folder(new: Path, place: Path) -> None:
    if not place.exists():
        os.replace(new, place)
        return
    # a folder cannot be replaced in one step: the old one steps aside and comes back if the new one cannot move in
    old = Path(tempfile.mkdtemp(prefix=f".{place.name}.old.", dir=place.parent)) / place.name
    os.replace(place, old)
    try:
        os.replace(new, place)
    except OSError:
        os.replace(old, place)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
