"""``model.json`` of an exported model. It may come from anyone, so every entry is checked before it is used."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ..._keys import BATCH_KEY, KINDS, LABELS_KEY
from ...config import ModelConfig, resolve_config
from ...errors import ScmambaError
from ...pp import FeatureLayout
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
SETUP_ARGUMENTS: Final = (
    "modalities", "layers", "batch_key", "labels_key", "unlabeled_category", "require_counts", "genome"
)  # fmt: skip


def read_description(directory: Path) -> dict[str, Any]:
    """Entries of ``model.json``, each of the type and within the bounds that the rest of the package relies on.

    ``config`` is a `ModelConfig`, ``layouts`` holds `FeatureLayout`.

    Raises
    ------
    ScmambaError
        The file is missing, damaged, too large, of another format or version, or an entry is not what it should be.
    """
    path = directory / MODEL_FILE
    described = _read_json(path)
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise ScmambaError(f"{path} does not describe a model of this package.")
    if described.get("format_version") != FORMAT_VERSION:
        versions = described.get("versions")
        writer = versions.get("scmamba-scvi") if isinstance(versions, dict) else None
        raise ScmambaError(
            f"{path} has format version {_short(described.get('format_version'))}; this release reads {FORMAT_VERSION}. "
            f"It was written by scmamba-scvi {_short(writer)}."
        )
    missing = [name for name in CHECKS if name not in described]
    if missing:
        raise ScmambaError(f"{path} lacks the entries {missing}.")
    for name, check in CHECKS.items():
        if not check(described[name]):
            raise ScmambaError(f"{path}: the entry {name!r} cannot be that of a model: {_short(described[name])}.")
    try:
        return _consistent(described)
    except ScmambaError as error:
        raise ScmambaError(f"{path}: {error}") from error


def read_classifier(described: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Heads of a classifier, checked."""
    if described is None:
        return None
    try:
        heads = {str(key): LinearClassifier.from_dict(values).to_dict() for key, values in described["heads"].items()}
        return {"labels_key": described["labels_key"], "heads": heads}
    except (AttributeError, KeyError, TypeError) as error:
        raise ScmambaError(f"The classifier of this model cannot be read: {error!r}.") from error


def _read_json(path: Path) -> Any:
    if not path.is_file():  # reading a pipe would wait forever
        raise ScmambaError(f"{path.parent} is not an exported model: it has no {MODEL_FILE}.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ScmambaError(f"{path} has {path.stat().st_size:,} bytes; no description of a model is that long.")
        return json.loads(path.read_text(encoding="utf-8"))
    except ScmambaError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ScmambaError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}.") from error


def _consistent(described: dict[str, Any]) -> dict[str, Any]:
    """The same entries as objects, once they are known to fit each other."""
    kinds = list(described["setup_args"]["modalities"])
    layouts = {kind: FeatureLayout.from_dict(saved) for kind, saved in described["layouts"].items()}
    for what in ("features", "layouts"):
        if list(described[what]) != kinds:
            raise ScmambaError(f"{what} are those of {_short(list(described[what]))}, the modalities are {kinds}.")
    for kind, layout in layouts.items():
        names = described["features"][kind]
        if len(set(names)) < len(names) or len(names) != layout.n_features:
            raise ScmambaError(f"{len(set(names)):,} different names for {layout.n_features:,} features of {kind}.")
        places = described["places"].get(kind)
        if places is not None and len(places["chrom"]) != layout.n_features:
            raise ScmambaError(f"{len(places['chrom']):,} coordinates for {layout.n_features:,} features of {kind}.")
        if layout.patch_size > max(MAX_PATCH, layout.n_features):
            raise ScmambaError(f"patches of {layout.patch_size:,} slots for {layout.n_features:,} features of {kind}.")
    return {**described, "layouts": layouts, "config": _config(described["preset"], described["config"])}


def _config(preset: str, entries: Mapping[str, Any]) -> ModelConfig:
    entries = _with_tuples(entries)
    try:
        return resolve_config(preset, **entries)
    except (TypeError, AttributeError, KeyError, OverflowError, ZeroDivisionError) as error:
        raise ScmambaError(f"the configuration cannot be used: {error}.") from error


def _with_tuples(config: Mapping[str, Any]) -> dict[str, Any]:
    """Lists as tuples: JSON has lists only, and the configuration has tuples, to be hashable."""

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: convert(entry) for name, entry in value.items()}
        return tuple(value) if isinstance(value, list) else value

    return convert(config)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# -- what each entry may be


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _is_categories(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) or _is_number(v) for v in value)


def _by_kind(check: Callable[[Any], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and set(value) <= set(KINDS) and all(map(check, value.values()))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < 2**31


def _is_setting(value: object) -> bool:
    """What an entry of the configuration may hold: plain values, by kind or not, and no huge numbers."""
    if isinstance(value, dict):
        return set(value) <= set(KINDS) and all(not isinstance(v, dict) and _is_setting(v) for v in value.values())
    if isinstance(value, list):
        return len(value) < 10_000 and all(isinstance(v, int) and _is_number(v) for v in value)
    return value is None or isinstance(value, str) or _is_number(value)


def _is_config(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_setting, value.values()))


def _is_setup(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == set(SETUP_ARGUMENTS)
        and _by_kind(_is_text)(value["modalities"])
        and len(set(value["modalities"].values())) == len(value["modalities"]) >= 2
        and _by_kind(_is_text_or_none)(value["layers"])
        and set(value["layers"]) <= set(value["modalities"])
        and all(_is_text_or_none(value[name]) for name in ("batch_key", "labels_key", "genome"))
        and _is_text(value["unlabeled_category"])
        and isinstance(value["require_counts"], bool)
    )


def _of_columns(check: Callable[[Any], bool]) -> Callable[[object], bool]:
    return lambda value: (
        isinstance(value, dict) and set(value) == {BATCH_KEY, LABELS_KEY} and all(map(check, value.values()))
    )


def _is_temperatures(value: object) -> bool:
    return isinstance(value, dict) and all(_is_number(t) and t > 0 for t in value.values())


def _is_places(value: object) -> bool:
    """Chromosome by number, start and end of every feature, or nothing if the names say them."""
    return value is None or (
        isinstance(value, dict)
        and set(value) == {"chroms", "chrom", "start", "end"}
        and _is_texts(value["chroms"])
        and all(
            isinstance(value[part], list) and all(map(_is_whole, value[part])) for part in ("chrom", "start", "end")
        )
        and len({len(value[part]) for part in ("chrom", "start", "end")}) == 1
        and all(-1 <= chrom < len(value["chroms"]) for chrom in value["chrom"])
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62


#: From entry of ``model.json`` to whether its value is allowed.
CHECKS: Final[dict[str, Callable[[Any], bool]]] = {
    "weights_file": lambda value: _is_text(value) and WEIGHTS_NAME.fullmatch(value) is not None,
    "weights_sha256": lambda value: _is_text(value) and re.fullmatch("[0-9a-f]{64}", value) is not None,
    "versions": lambda value: isinstance(value, dict) and "scvi-tools" in value and all(map(_is_text, value.values())),
    "is_trained": lambda value: isinstance(value, bool),
    "preset": _is_text,
    "match_temperatures": _is_temperatures,
    "classifier": lambda value: value is None or isinstance(value, dict),
    "places": _by_kind(_is_places),
    "is_query": lambda value: isinstance(value, bool),
    "reference_batches": lambda value: _is_whole(value) and value >= 0,
    "config": _is_config,
    "setup_args": _is_setup,
    "features": _by_kind(_is_texts),
    "layouts": _by_kind(lambda value: isinstance(value, dict)),
    "categories": _of_columns(_is_categories),
    "original_keys": _of_columns(_is_text_or_none),
}
