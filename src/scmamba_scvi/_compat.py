"""The only place that imports private or optional names of other packages; a test imports every one of them."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from .errors import ScmambaError


def scvi_constants() -> ModuleType:
    """Names under which scvi-tools keeps the parts of its registry."""
    # `AnnDataManager.view_registry` of scvi-tools 1.4 uses rich.pretty without importing it
    import rich.pretty  # noqa: F401
    from scvi.data import _constants

    return _constants


def mudata_wrapper() -> type:
    """Base class of scvi-tools' fields that live in one modality of a MuData."""
    from scvi.data.fields import BaseMuDataWrapperClass

    return BaseMuDataWrapperClass


def without_pulling() -> contextlib.AbstractContextManager:
    """MuData made or updated in here take no columns from their modalities, as is usual from mudata 0.4 on.

    Columns of ``obs`` and ``var`` that were copied would be a second truth, and mudata 0.3 warns of them.
    """
    import mudata

    # called `set_options` until 0.3
    override = mudata.settings.override if hasattr(mudata, "settings") else mudata.set_options
    return override(pull_on_update=False)


def validation_check(**kwargs: bool) -> object:
    """scvi-tools' switches for what is checked when data are registered."""
    from scvi.data._manager import AnnDataManagerValidationCheck

    return AnnDataManagerValidationCheck(**kwargs)


def devices_docstring() -> Callable[[Callable], Callable]:
    """scvi-tools' decorator that fills in what it says about accelerators and devices everywhere."""
    from scvi.utils._docstrings import devices_dsp

    return devices_dsp.dedent


def device_of(accelerator: str, devices: int | list[int] | str) -> object:
    """The `torch.device` that scvi-tools' trainer will take for these arguments."""
    from scvi.model._utils import parse_device_args

    return parse_device_args(accelerator=accelerator, devices=devices, return_device="torch")[2]


def n_devices(accelerator: str, devices: int | list[int] | str) -> int:
    """How many devices of a machine scvi-tools' trainer will take for these arguments; ``"auto"`` is one."""
    from scvi.model._utils import parse_device_args

    found = parse_device_args(accelerator=accelerator, devices=devices, return_device="torch")[1]
    return len(found) if isinstance(found, list) else int(found)


def forget_manager(model: Any, data: Any) -> None:
    """Let scvi-tools drop what it registered of ``data`` for ``model``, which would keep the data in memory."""
    # `deregister_manager` looks among the data of the class only, new data are kept by the model
    uuid = data.uns.get(scvi_constants()._SCVI_UUID_KEY)
    type(model)._per_instance_manager_store.get(model.id, {}).pop(uuid, None)


def forget_with(model: Any) -> None:
    """Let scvi-tools drop what it registered for ``model`` once nobody holds the model: it would stay, data and all."""
    weakref.finalize(model, type(model)._per_instance_manager_store.pop, model.id, None)


@contextlib.contextmanager
def setup_goes_with(model: Any, data: Any) -> Iterator[None]:
    """Let scvi-tools drop the setup it makes of ``data`` for a model without any, once nobody holds the model.

    The class would keep it, data and all, for further models. Data that the user set up are the user's to let go.
    """
    store, uuid_key = type(model)._setup_adata_manager_store, scvi_constants()._SCVI_UUID_KEY
    for_model_alone = model.adata_manager is None and data is not None and data.uns.get(uuid_key) not in store
    yield
    if for_model_alone:
        uuid = data.uns[uuid_key]
        weakref.finalize(model, _drop, store, uuid, weakref.ref(store[uuid]))


def _drop(store: dict, key: str, value: weakref.ref) -> None:
    if store.get(key) is value():  # the user may have set the data up since
        store.pop(key, None)


def plain_registry(registry: dict) -> dict:
    """A copy of scvi-tools' registry of a model, without anything that looks into its data."""
    return {key: plain_registry(value) if isinstance(value, dict) else value for key, value in registry.items()}


def share_data(source: Any, target: Any) -> None:
    """Attach the data of a model to another one that was made from its registry."""
    target._adata, target._adata_manager = source.adata, source.adata_manager
    target._register_manager_for_instance(source.adata_manager)
    target.registry_ = source.registry_
    target.summary_stats = source.adata_manager.summary_stats


def huggingface_hub() -> ModuleType:
    """The client of the Hugging Face Hub, an optional package."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ScmambaError("The Hugging Face Hub needs its client: pip install 'scmamba-scvi[hub]'.") from error


def package_version() -> str:
    """Version of this package as installed; of a source tree on the path nothing is known."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("scmamba-scvi")
    except PackageNotFoundError:
        return "0+unknown"


def import_without_parents(name: str) -> ModuleType:
    """Import a submodule without running the ``__init__`` of the packages above it.

    ``mamba_ssm/__init__.py`` imports kernels that need packages nobody asked for; the scan's own file does not.

    Raises
    ------
    ImportError
        If a package on the way or the module itself cannot be found or imported.
    """
    parts = name.split(".")
    bare = []
    try:
        for depth in range(1, len(parts)):
            parent = ".".join(parts[:depth])
            if parent in sys.modules:
                continue
            spec = importlib.util.find_spec(parent)
            if spec is None or spec.submodule_search_locations is None:
                raise ImportError(f"No package named {parent!r}.")
            sys.modules[parent] = importlib.util.module_from_spec(spec)
            bare.append(parent)
        return importlib.import_module(name)
    finally:
        # whoever imports the package later gets the whole of it
        for parent in bare:
            sys.modules.pop(parent, None)


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Keep what these loggers say below an error to themselves, and put their levels back afterwards."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
