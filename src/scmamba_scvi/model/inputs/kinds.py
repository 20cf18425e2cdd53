"""Which modality of a MuData is RNA, accessibility or protein."""

import logging
from collections.abc import Mapping

import numpy as np
from anndata import AnnData
from mudata import MuData

from ..._compat import warn
from ..._keys import FEATURE_TYPES, KINDS, is_of_no_kind, kind_of_key, kind_of_type
from ...errors import ScmambaError, UnknownNameError, written

# below scvi-tools' logger: `scvi.settings.verbosity` is for it too
logger = logging.getLogger(f"scvi.{__name__}")


def resolve_modalities(mdata: MuData, modalities: Mapping[str, str] | None) -> dict[str, str]:
    """Dict from kind to key of ``mdata.mod``, in the order of `KINDS`; checked if given, recognised if not."""
    if modalities is not None and not isinstance(modalities, Mapping):
        raise ScmambaError(f"modalities must be a dict from kind to key of mdata.mod, got {modalities!r}.")
    found = _recognise_kinds(mdata) if modalities is None else _without_suffix(modalities)
    for kind, key in found.items():
        if kind in ("batch_key", "labels_key"):
            raise ScmambaError(
                f"modalities has {kind!r}, which is no kind of modality. Leave it out: columns are found in mdata.obs, else in "
                f"those of the modalities, and {written(kind, f'{key}:...')} takes the one of {key!r}."
            )
        if kind not in KINDS:
            raise UnknownNameError("kind of modality", kind, KINDS)
        if key not in mdata.mod:
            raise UnknownNameError(f"modality for {kind!r}", key, mdata.mod)
        if not isinstance(mdata.mod[key], AnnData):
            raise ScmambaError(
                f"mdata[{key!r}] is a {type(mdata.mod[key]).__name__}, and a modality must be an AnnData: take those out of "
                f"it, mudata.MuData({{..., **mdata[{key!r}].mod}})."
            )
    if len(set(found.values())) < len(found):
        raise ScmambaError(
            f"modalities names one modality for two kinds: {found}. Give each kind its own key of mdata.mod."
        )
    if len(found) < 2:
        raise ScmambaError(
            f"At least two modalities are needed, found {found or 'none'} among the keys {list(mdata.mod)}. "
            f"Name them: {written('modalities', {'rna': ..., 'atac': ...})}; kinds are {', '.join(KINDS)}."
        )
    if modalities is None:
        _say_what_is_left_out(mdata, found)
    return {kind: found[kind] for kind in KINDS if kind in found}


def _without_suffix(modalities: Mapping[str, str]) -> dict[str, str]:
    """The same from kind to key, where scvi-tools' models have ``"rna_layer"`` for the kind."""
    found = {str(kind).removesuffix("_layer"): key for kind, key in modalities.items()}
    if len(found) < len(modalities):
        raise ScmambaError(f"modalities names one kind twice: {dict(modalities)}. Leave one of the two out.")
    return found


def kinds_in(mdata: MuData, modalities: Mapping[str, str]) -> dict[str, str]:
    """Those of the ``modalities``, from kind to key, that ``mdata`` has; a slice of other data may have one without cells."""
    return {kind: key for kind, key in modalities.items() if key in mdata.mod and mdata.mod[key].n_obs}


def _recognise_kinds(mdata: MuData) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, adata in mdata.mod.items():
        kind = kind_of_modality(key, adata)
        if kind is None:
            continue
        if kind in found:
            raise ScmambaError(
                f"Modalities {found[kind]!r} and {key!r} both look like {kind}. Name the one that is meant and "
                f"those of the other kinds, such as {written('modalities', {'rna': ..., 'atac': ...})}."
            )
        found[kind] = key
    return found


def _say_what_is_left_out(mdata: MuData, found: Mapping[str, str]) -> None:
    """Warn of modalities that may be meant, as neither key nor types of features tell their kind; log the others not used."""
    missing = [kind for kind in KINDS if kind not in found]
    for key, adata in mdata.mod.items():
        if key in found.values():
            continue
        if not missing or not adata.n_vars or _is_of_no_kind(key, adata):
            logger.info(f"mdata[{key!r}] is not used.")
            continue
        named = {**found, missing[0]: key}
        named = {kind: named[kind] for kind in KINDS if kind in named}
        warn(
            f"mdata[{key!r}] is not used: its kind is not known. If it is {missing[0]}, name it: "
            f"{written('modalities', named)}."
        )


def _is_of_no_kind(key: str, adata: AnnData) -> bool:
    """Whether a modality is known to hold something else, by its key or the types of its features."""
    types = _types_of(adata)
    return is_of_no_kind(key) or (bool(types) and all(map(is_of_no_kind, types)))


def check_is_mudata(data: object, then: str = "") -> None:
    """Raise unless ``data`` are a MuData, and say how to make one and what to do ``then``."""
    if not isinstance(data, MuData):
        raise ScmambaError(f"A MuData is needed, got {type(data).__name__}. {how_to_make_mudata(data)}{then}")


def how_to_make_mudata(data: object) -> str:
    """What to do with something that is no MuData, where one is needed."""
    types = data.var["feature_types"].nunique() if isinstance(data, AnnData) and "feature_types" in data.var else 0
    if types > 1:
        return "var['feature_types'] tells its modalities, so mdata = scmamba_scvi.read(adata) makes one."
    return "Put the modalities into one, mudata.MuData({'rna': ..., 'atac': ...}), or read it: scmamba_scvi.read(path)."


def kind_of_modality(key: str, adata: AnnData) -> str | None:
    """Kind of one modality by its key or the types of its features; `None` if neither says it."""
    types = _types_of(adata)
    return kind_of_key(key) or (FEATURE_TYPES.get(types.pop()) if len(types) == 1 else None)


def stated_kinds(adata: AnnData) -> np.ndarray:
    """Kind of each feature by its type in ``var``, object ``(f,)``: `None` if it is not known, ``""`` if no model takes it."""
    if "feature_types" not in adata.var:
        return np.full(adata.n_vars, None, dtype=object)
    types = adata.var["feature_types"].astype(str)
    kinds = {name: "" if is_of_no_kind(name) else kind_of_type(name) for name in types.unique()}
    return np.array([kinds[name] for name in types], dtype=object)


def _types_of(adata: AnnData) -> set[str]:
    """Types of the features, where ``var`` has them as 10x writes them."""
    return set(adata.var["feature_types"].astype(str)) if "feature_types" in adata.var else set()
