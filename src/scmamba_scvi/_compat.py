"""What depends on the inside of other packages: their private names, optional packages, versions, and loggers."""

import contextlib
import copy
import logging
import re
import sys
import warnings
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType, ModuleType
from typing import Any

from .errors import ScmambaError, written


def scanpy_module() -> Any:
    """scanpy, which takes long to import, and cannot be imported where numba finds no folder for what it compiles."""
    try:
        import scanpy
    except RuntimeError as error:
        raise ScmambaError(
            f"scanpy cannot be imported: {reason_of(error)}. If neither its folder nor the home folder can be written, as in "
            f"many containers, set the environment variable NUMBA_CACHE_DIR to a folder that can be."
        ) from error
    return scanpy


def scvi_constants() -> ModuleType:
    """Names under which scvi-tools keeps the parts of its registry."""
    # imported for scvi-tools 1.4, whose `AnnDataManager.view_registry` uses it without importing it
    import rich.pretty  # noqa: F401
    from scvi.data import _constants

    return _constants


def without_pulling() -> contextlib.AbstractContextManager:
    """Within the block, MuData that are made or updated copy no columns of ``obs`` and ``var`` from their modalities."""
    import mudata

    # the default from mudata 0.4 on; 0.3, which calls it `set_options`, warns that copies could come to differ
    override = mudata.settings.override if hasattr(mudata, "settings") else mudata.set_options
    return override(pull_on_update=False)


def mudata_of(modalities: Mapping[str, Any], shared: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """MuData of the modalities and the parts beside them, as `without_pulling` has it.

    mudata 0.3 puts NaN or -1 where a matrix has no row, and fails with whole numbers even where none is missing.
    """
    from mudata import MuData

    matrices = ("obsm", "varm", "obsp", "varp")
    with without_pulling(), _allowing_shared_names(modalities):
        # copies, as a MuData fills the maps it is given
        mdata = MuData(modalities, **{name: copy.copy(part) for name, part in shared.items() if name not in matrices})
        if any(name in shared and not shared[name].index.equals(getattr(mdata, name).index) for name in ("obs", "var")):
            # cells or features were changed without an update: mudata puts the rows in order
            return MuData(modalities, **shared)
    for name in matrices:
        # of each modality mudata has made its own mask
        getattr(mdata, name).update({key: x for key, x in shared.get(name, {}).items() if key not in modalities})
    return mdata


@contextlib.contextmanager
def _allowing_shared_names(modalities: Mapping[str, Any]) -> Iterator[None]:
    """Within the block, mudata does not warn of a name in two modalities; it does of one that repeats within a modality."""
    # a gene and its protein often share their name, and what mudata advises then puts the modality before every name
    with warnings.catch_warnings():
        if all(part.var_names.is_unique for part in modalities.values()):
            warnings.filterwarnings("ignore", "var_names are not unique", UserWarning)
        yield


def device_of(accelerator: str, devices: int | list[int] | str) -> Any:
    """The `torch.device` that scvi-tools' trainer will take for these arguments."""
    return _parse_devices(accelerator, devices)[2]


def n_devices(accelerator: str, devices: int | list[int] | str) -> int:
    """How many devices of a machine scvi-tools' trainer will take for these arguments; ``"auto"`` is one."""
    found = _parse_devices(accelerator, devices)[1]
    return len(found) if isinstance(found, list) else int(found)


def _parse_devices(accelerator: str, devices: int | list[int] | str) -> tuple:
    from scvi.model._utils import parse_device_args

    those = "" if devices == "auto" else f" with devices={devices!r}"
    asked = f"{written('accelerator', accelerator)}{those} cannot be used on this machine"
    with explained(f"{asked}, leave it out to take what is there"), _without_advice_on_gpus():
        found = parse_device_args(accelerator=accelerator, devices=devices, return_device="torch")
    if found[2].type == "mps":
        raise ScmambaError(
            f"{asked}: Apple's GPU has no float64, in which statistics are computed before and after training. Pass "
            f"{written('accelerator', 'cpu')}."
        )
    return found


@contextlib.contextmanager
def _without_advice_on_gpus() -> Iterator[None]:
    """Within the block, nobody is advised to ask for a GPU: ``"auto"`` takes those that can be used."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`accelerator` has been automatically set to `cpu`")
        warnings.filterwarnings("ignore", "GPU available but not used")
        yield


def drop_managers_with(model: Any) -> None:
    """Make scvi-tools drop all that it registered for ``model`` when the model is garbage-collected."""
    store = type(model)._per_instance_manager_store
    store.setdefault(model.id, {})  # of a model without data too: scvi-tools' `deregister_manager` asks for it
    weakref.finalize(model, store.pop, model.id, None)


@contextlib.contextmanager
def restoring_setup(model_class: Any, data: Any) -> Iterator[None]:
    """After an error in the block, what scvi-tools keeps in ``uns`` and in ``model_class`` of the setup of ``data`` is as before.

    The columns that a setup writes into ``obs`` are not put back.
    """
    store, uuid_key = model_class._setup_adata_manager_store, scvi_constants()._SCVI_UUID_KEY
    before = {name: value for name, value in data.uns.items() if str(name).startswith("_scvi")}
    managers = {uuid: store[uuid] for uuid in [before.get(uuid_key)] if uuid in store}
    try:
        yield
    except BaseException:
        store.pop(data.uns.get(uuid_key), None)  # it would keep the data in memory
        store.update(managers)
        for name in [name for name in data.uns if str(name).startswith("_scvi") and name not in before]:
            del data.uns[name]
        data.uns.update(before)
        raise


def attach_data(model: Any, manager: Any) -> None:
    """Make the data that ``manager`` has registered the model's own; those before, which scvi-tools would keep, are let go."""
    model._adata, model._adata_manager = manager.adata, manager
    type(model)._per_instance_manager_store[model.id] = {manager.adata_uuid: manager}
    model.registry_, model.summary_stats = manager.registry, manager.summary_stats


def package_version() -> str:
    """Version of this package as installed, or ``"0+unknown"`` for a source tree that is only on the path."""
    try:
        return version("scmamba-scvi")
    except PackageNotFoundError:
        return "0+unknown"


def warn(message: str) -> None:
    """Warn, at the line of the user that led here: outside of this package, but its commands, and of those that call it back."""
    frame, level = sys._getframe(1), 2
    inner = re.compile(r"(scmamba_scvi\.(?!cli\.)|scvi\.|lightning\.)")
    while frame.f_back and inner.match(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Within the block, errors of other packages become a `ScmambaError` that says ``what`` and quotes them."""
    try:
        yield
    except ScmambaError:
        raise
    except Exception as error:  # of files and arguments they raise a dozen types
        raise ScmambaError(f"{what}: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """What an error says, on one line."""
    said = " ".join(str(error).split())[:300] or type(error).__name__
    if "unable to lock file" in said and not isinstance(error, BlockingIOError):  # which another program has locked
        said += "; some network drives lock no files: set the environment variable HDF5_USE_FILE_LOCKING=FALSE"
    return said


def for_scipy(values: Any) -> Any:
    """An array or a sparse matrix of values that scipy can compute with: it has no float16."""
    return values.astype("float32") if values.dtype == "float16" else values


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Within the block, these loggers pass on errors only; their levels are restored afterwards."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Within the block, Lightning lists no devices and advertises no logger, and nobody is warned how torch is used here."""
    loggers = "lightning.pytorch.utilities.rank_zero", "scvi.train._progress"
    with warnings.catch_warnings(), _without_advice_on_gpus(), quiet(*loggers):
        warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)")
        # of minibatches that worker processes send
        warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly disabled")
        # a graph's parameters were first read in the stream that it was recorded in; torch makes the streams wait
        warnings.filterwarnings("ignore", "The AccumulateGrad node's stream does not match")
        yield


def scvi_progress_bar() -> type[Any]:
    """scvi-tools' progress bar over the epochs of a training."""
    from scvi.train._progress import ProgressBar

    return ProgressBar


@contextlib.contextmanager
def limited_threads() -> Iterator[None]:
    """Within the block, torch uses as many threads as the user set, by ``OMP_NUM_THREADS`` or a call, if there are CPUs for them.

    numba, which scanpy's neighbors use, raises the number of OpenMP threads of the thread that calls it, and torch
    shares that number. A new thread has what the user set. Without a setting torch takes all cores of the machine, also in a
    container that may use two of them.
    """
    import joblib  # scikit-learn needs both
    import torch
    from threadpoolctl import threadpool_limits

    with ThreadPoolExecutor(1) as pool:
        limit = pool.submit(torch.get_num_threads).result()
    with threadpool_limits(min(limit, joblib.cpu_count()), user_api="openmp"):
        yield
