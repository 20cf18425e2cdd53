"""Models as files that can be read without running their code: weights in safetensors, everything else in JSON."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pandas as pd
import safetensors
import safetensors.torch
import scvi
import torch
from mudata import MuData
from safetensors import SafetensorError

from ..._compat import device_of, package_version, reason_of, scvi_constants
from ..._files import atomic_write, sync_folder, temporary_folder
from ..._keys import BATCH_KEY, LABELS_KEY, x_key
from ...config import ModelConfig
from ...errors import ScmambaError
from ...pp import FeatureLayout
from .._base import ModelBase
from .._module import SCMAMBAModule
from ..inputs.manager import manager_of
from .model_json import FORMAT, FORMAT_VERSION, MODEL_FILE, WEIGHTS_FILE, WEIGHTS_NAME, read_description

_C = scvi_constants()
#: Entries that are attributes of the model, without the underscore at their end.
LEARNED: Final = (
    "is_trained", "is_initialized", "match_temperatures", "classifier", "places", "is_query", "reference_batches",
    "precision", "unknown_offsets",
)  # fmt: skip


class ExportMixin(ModelBase):
    """`export` and `from_export`."""

    def export(self, directory: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model as safetensors and JSON, the format for files that go to others: reading it runs no code.

        Parameters
        ----------
        directory
            Folder to create; afterwards it is complete, or as it was.
        overwrite
            Replace an existing export; other files in the folder stay.

        Raises
        ------
        ScmambaError
            The folder exists and is not to be overwritten, holds something else, or cannot be written.

        Examples
        --------
        >>> model.export("exported", overwrite=True)
        >>> sorted(path.suffix for path in pathlib.Path("exported").iterdir())
        ['.json', '.safetensors']
        """
        directory = folder_of(directory)
        exists = directory.exists()
        if exists and not overwrite:
            raise ScmambaError(f"{directory} exists. Choose another folder or pass overwrite=True.")
        if exists and not (directory / MODEL_FILE).is_file() and (not directory.is_dir() or any(directory.iterdir())):
            raise ScmambaError(
                f"{directory} is not an exported model, so it is not overwritten: choose another folder."
            )
        try:
            with temporary_folder(directory) as folder:
                (unfinished := folder / "new").mkdir()  # for whom a folder of the user is, which a temporary one is not
                weights = {
                    name: tensor.detach().cpu().contiguous() for name, tensor in self.module.state_dict().items()
                }
                safetensors.torch.save_file(weights, unfinished / WEIGHTS_FILE)
                described = {**describe(self), "weights_sha256": _sha256(unfinished / WEIGHTS_FILE)}
                if exists:
                    _replace_export(unfinished / WEIGHTS_FILE, described, directory)
                else:
                    _write_description(unfinished / MODEL_FILE, {**described, "weights_file": WEIGHTS_FILE})
                    os.replace(unfinished, directory)
                    sync_folder(directory.parent)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or reason_of(error)
            raise ScmambaError(
                f"The model cannot be written into {directory}: {reason}. What was there is as it was."
            ) from error

    @classmethod
    def from_export(
        cls,
        directory: str | os.PathLike[str],
        mdata: MuData | None = None,
        *,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> Self:
        """Model from a folder that :meth:`export` made; safe for files from anyone.

        It runs no code from the files, checks all that they say, and takes no more memory than their size accounts for.

        Parameters
        ----------
        directory
            The folder.
        mdata
            Data to attach; :meth:`setup_mudata` is not needed. `None`: pass data to the methods that need them.
        accelerator, device
            Where the model is put, as in :meth:`load`.

        Returns
        -------
        The model, in evaluation mode.

        Raises
        ------
        ScmambaError
            A file is missing, damaged, of another format or version, or does not fit the network it describes; or the
            device is not there.

        Examples
        --------
        >>> model.export("exported", overwrite=True)
        >>> SCMAMBA.from_export("exported").get_latent_representation(mdata).shape
        (300, 64)
        """
        where = device_of(accelerator, device)
        directory = folder_of(directory)
        _refuse_saved(cls, directory)
        described = read_description(directory / MODEL_FILE)
        config, layouts = described["config"], described["layouts"]
        path = directory / described["weights_file"]
        n_batches = len(described["categories"][BATCH_KEY])
        check_weights(path, described["weights_sha256"], config, layouts, n_batches)
        weights = safetensors.torch.load_file(path)
        for name, tensor in weights.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise ScmambaError(f"{path} holds values that are not finite, in {name!r}.")
        registry = _registry(cls, described)
        if mdata is not None:
            cls.setup_mudata(mdata, source_registry=registry, **described["setup_args"])
        arguments = {"layouts": layouts, "config": config, "n_batches": n_batches}
        model = cls(mdata, preset=described["preset"], registry=registry, **arguments)
        model.module.load_state_dict(weights)
        model.module.to(where).eval()
        for name in LEARNED:
            setattr(model, f"{name}_", described[name])
        return model


def _refuse_saved(cls: type[ModelBase], directory: Path) -> None:
    """Raise if a folder holds what `save` wrote; whether to run what is in it is for the user to say."""
    if not (directory / MODEL_FILE).exists() and any(directory.glob("*model.pt")):
        raise ScmambaError(
            f"{directory} holds what save wrote, not export. If it comes from people you trust, as reading it can run any "
            f"code, {cls.__name__}.load({os.fspath(directory)!r}) reads it."
        )


def folder_of(directory: Any) -> Path:
    """The path, checked to be one that the file system can look up."""
    try:
        folder = Path(directory)
        with suppress(FileNotFoundError, NotADirectoryError):
            folder.stat()  # `exists` hides a null character
    except (TypeError, ValueError, OSError) as error:
        raise ScmambaError(f"{str(directory)[:60]!r} is not the path of a folder: {str(error)[:60]}.") from error
    return folder


def describe(model: ModelBase) -> dict[str, Any]:
    """Everything that makes up a model but its weights, in values that JSON can hold."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {
            "scmamba-scvi": package_version(),
            "scvi-tools": scvi.__version__,
            "torch": str(torch.__version__),
        },
        "preset": model.preset_,
        "config": model.config.architecture(),
        **{name: getattr(model, f"{name}_") for name in LEARNED},
        "setup_args": dict(model._setup_args),
        "features": {kind: [str(name) for name in model.feature_names(kind)] for kind in model.kinds},
        "layouts": {kind: layout.to_dict() for kind, layout in model.layouts.items()},
        "categories": {
            BATCH_KEY: model.batches.tolist(),
            LABELS_KEY: model._state_of(LABELS_KEY)["categorical_mapping"].tolist(),
        },
        "original_keys": {key: model._state_of(key)["original_key"] for key in (BATCH_KEY, LABELS_KEY)},
    }


def check_weights(
    path: Path, sha256: str, config: ModelConfig, layouts: Mapping[str, FeatureLayout], n_batches: int
) -> None:
    """Raise unless the file is the one described, and its names, shapes and types are those of the network.

    The network is built on the meta device, without memory for its values, so that a description cannot ask for more
    memory than the file accounts for.
    """
    if not path.is_file():
        raise ScmambaError(f"{path.parent} is not an exported model: it has no {path.name}.")
    if _sha256(path) != sha256:
        raise ScmambaError(f"{path} is damaged or was replaced: its checksum is not the one that {MODEL_FILE} states.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            found = {name: f"{part.get_dtype()} {tuple(part.get_shape())}" for name, part in slices.items()}
        if max(config.of_kind("n_layers", kind) for kind in layouts) > len(found):
            raise ScmambaError("the network described has more layers than there are tensors.")
        with torch.device("meta"):
            network = SCMAMBAModule(config, layouts, n_batches).state_dict()
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise ScmambaError(f"{path} cannot be read: {reason_of(error)}") from error
    dtypes = {torch.int64: "I64", torch.float32: "F32"}
    needed = {name: f"{dtypes[tensor.dtype]} {tuple(tensor.shape)}" for name, tensor in network.items()}
    for name in sorted(found.keys() | needed.keys()):
        if found.get(name) != needed.get(name):
            raise ScmambaError(
                f"The weights in {path} do not fit the network described: {name[:60]!r} is "
                f"{found.get(name, 'missing')}, the network has {needed.get(name, 'no such tensor')}."
            )


def _registry(cls: type[ModelBase], described: Mapping[str, Any]) -> dict[str, Any]:
    """scvi-tools' registry as `setup_mudata` of the training data would make it."""
    known = {x_key(kind): np.asarray(names, dtype=object) for kind, names in described["features"].items()}
    known |= {key: pd.Index(values).to_numpy() for key, values in described["categories"].items()}
    states: dict[str, dict[str, Any]] = {
        key: {"n_obs": 0, "n_vars": len(names), "column_names": names} for key, names in known.items()
    }
    for key, column in described["original_keys"].items():
        states[key] = {"categorical_mapping": known[key], "original_key": column}
    registry = {
        _C._SCVI_VERSION_KEY: described["versions"]["scvi-tools"],
        _C._MODEL_NAME_KEY: cls.__name__,
        _C._SETUP_METHOD_NAME: "setup_mudata",
        _C._SETUP_ARGS_KEY: described["setup_args"],
    }
    fields = {
        field.registry_key: {
            _C._DATA_REGISTRY_KEY: field.get_data_registry(),
            _C._STATE_REGISTRY_KEY: states[field.registry_key],
            _C._SUMMARY_STATS_KEY: {f"n_{field.registry_key}": len(known[field.registry_key])},
        }
        for field in manager_of(registry).fields
    }
    return {**registry, _C._FIELD_REGISTRIES_KEY: fields}


def _replace_export(weights: Path, described: Mapping[str, Any], directory: Path) -> None:
    """Replace an export: new weights are put beside the old ones, then ``model.json`` names them, then the old ones go."""
    name = f"weights-{described['weights_sha256'][:16]}.safetensors"
    with atomic_write(directory / name) as unfinished:
        os.replace(weights, unfinished)
    _write_description(directory / MODEL_FILE, {**described, "weights_file": name})
    for old in directory.iterdir():
        if WEIGHTS_NAME.fullmatch(old.name) and old.name != name:
            with suppress(OSError):  # Windows keeps a file that a process reads
                old.unlink()


def _write_description(path: Path, described: Mapping[str, Any]) -> None:
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(described, indent=1, allow_nan=False), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
