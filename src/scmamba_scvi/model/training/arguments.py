"""Checks of the arguments of `train`, before anything is computed or written."""

import dataclasses
import inspect
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint, StochasticWeightAveraging, WeightAveraging
from scvi.train import Trainer
from torch.utils.data import DataLoader

from ..._arguments import check_count
from ..._columns import obs_column
from ..._compat import explained
from ...config import ModelConfig, TrainConfig
from ...errors import ScmambaError, UnknownNameError
from ...ops.backend import has_bfloat16
from .._base import ModelBase
from ..inputs.arguments import check_fraction
from ..inputs.kinds import kinds_in
from .run import as_list
from .sizes import TRAIN_SIZE
from .splitter import loader_options
from .summary import SCORES

#: What `datasplitter_kwargs` may have; the other options of a loader are set here.
OF_SPLITTER: Final = (set(inspect.signature(DataLoader).parameters) | {"external_indexing"}) - {
    "dataset", "batch_size", "shuffle", "sampler", "batch_sampler", "generator",
}  # fmt: skip
#: Names of Lightning, and what they are short for. Weights stay in float32, as statistics before and after training need it.
PRECISIONS: Final = {
    "32-true": "32-true", "bf16-mixed": "bf16-mixed", "16-mixed": "16-mixed",
    "32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed",
}  # fmt: skip
#: Arguments of the trainer that count something.
COUNTS: Final = ("accumulate_grad_batches", "check_val_every_n_epoch", "max_steps", "num_nodes")
#: Why callbacks that write checkpoints are refused.
NO_CHECKPOINTS: Final = (
    "what it writes lacks the joint embedding, which is fitted after training. Pass checkpoint_dir=... to continue a training "
    "that was stopped, and keep the trained model with save."
)
#: Options of the trainer that have no place here, and why.
REFUSED: Final = {
    "num_sanity_val_steps": "all validation cells are scored before the first step.",
    "fast_dev_run": "it keeps no history, and max_epochs=1 is a short training.",
    "enable_checkpointing": NO_CHECKPOINTS,
    "use_distributed_sampler": "every process takes its part of each minibatch by itself.",
}


def names_of(function: Callable) -> list[str]:
    """Names of its arguments, without the one that stands for any."""
    return [n for n, p in inspect.signature(function).parameters.items() if p.kind is not p.VAR_KEYWORD]


#: Further arguments that scvi-tools' or Lightning's trainer knows.
OF_TRAINER: Final = {name for trainer in (Trainer, pl.Trainer) for name in names_of(trainer)}


def check_training(
    counts: Mapping[str, int | None],
    train_size: float | None,
    validation_size: float | None,
    shuffle_set_split: bool,
    plan_kwargs: Mapping[str, Any] | None,
    datasplitter_kwargs: Mapping[str, Any] | None,
    checkpoint_dir: str | os.PathLike[str] | None,
    monitor: str,
    precision: str | int | None,
    trainer_kwargs: Mapping[str, Any],
    *,
    known: Iterable[str],
) -> None:
    """Those arguments of `train` that can be checked without the data; ``known`` are the names of all of its own."""
    for name in trainer_kwargs:
        check_place(name, known)
    if monitor not in SCORES:
        raise UnknownNameError("early_stopping_monitor", monitor, SCORES)
    if precision is not None and str(precision) not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    check_trainer(trainer_kwargs, monitor, keeps_checkpoints=checkpoint_dir is not None)
    for name, count in {**counts, **{name: trainer_kwargs.get(name) for name in COUNTS}}.items():
        if count is not None and (name, count) != ("max_steps", -1):  # as Lightning says that there is no limit
            check_count(name, count)
    if train_size is not None:
        check_fraction("train_size", train_size, zero=False)
    if validation_size is not None:
        check_fraction("validation_size", validation_size)
        default = "" if train_size is not None else " (the default)"
        fraction = TRAIN_SIZE if train_size is None else train_size
        if fraction + validation_size > 1 + 1e-9:
            raise ScmambaError(
                f"train_size={fraction}{default} and validation_size={validation_size} add up to more than all cells: lower "
                f"one of them."
            )
    if not isinstance(shuffle_set_split, bool | np.bool_):
        raise ScmambaError(f"shuffle_set_split must be True or False, got {shuffle_set_split!r}.")
    for name, options in (("plan_kwargs", plan_kwargs), ("datasplitter_kwargs", datasplitter_kwargs)):
        if options is not None and not isinstance(options, Mapping):
            raise ScmambaError(f"{name} must be a dict, got {options!r}.")
    if checkpoint_dir is not None and not isinstance(checkpoint_dir, str | os.PathLike):
        raise ScmambaError(f"checkpoint_dir must be the path of a folder, got {checkpoint_dir!r}.")
    check_loaders(datasplitter_kwargs or {}, known)


def check_trainer(options: Mapping[str, Any], monitor: str, *, keeps_checkpoints: bool) -> None:
    """Options of the trainer and of early stopping that do not go with a training in stages, or with each other."""
    mode, best = options.get("early_stopping_mode"), SCORES[monitor].mode
    if mode not in (None, best):
        raise ScmambaError(
            f"early_stopping_mode={mode!r} would wait for a worse {monitor}: leave it out, or pass {best!r}."
        )
    for name, why in REFUSED.items():
        # no number of steps is what happens
        if options.get(name) or (name == "num_sanity_val_steps" and name in options):
            raise ScmambaError(f"Leave {name} out: {why}")
    if options.get("limit_val_batches", 1) == 0:
        raise ScmambaError("limit_val_batches=0 leaves nothing to score: to hold out no cells, pass validation_size=0.")
    has_max_steps = options.get("max_steps", -1) not in (None, -1)
    if keeps_checkpoints and has_max_steps and (options.get("check_val_every_n_epoch") or 1) != 1:
        # Lightning would go on in an epoch that is over
        raise ScmambaError(
            "checkpoint_dir cannot continue exactly what has both max_steps and check_val_every_n_epoch: leave one of them out."
        )
    check_callbacks(options.get("callbacks"))
    delta = options.get("early_stopping_min_delta", 0.0)
    if isinstance(delta, bool) or not isinstance(delta, numbers.Real):
        raise ScmambaError(f"early_stopping_min_delta must be a number, got {delta!r}.")
    check_count("early_stopping_warmup_epochs", options.get("early_stopping_warmup_epochs", 0), 0)


def check_loaders(options: Mapping[str, Any], known: Iterable[str]) -> None:
    """``datasplitter_kwargs``: options of loaders that go together, and none that `train` has an argument for."""
    for name in options:
        if name in known:
            raise ScmambaError(f"datasplitter_kwargs has no entry {name!r}: pass train({name}=...).")
        if name not in OF_SPLITTER:
            raise UnknownNameError("entry of datasplitter_kwargs", name, sorted(OF_SPLITTER))
    of_loader = {name: value for name, value in options.items() if name not in ("drop_last", "external_indexing")}
    with explained("datasplitter_kwargs cannot be used"):
        DataLoader(range(1), **{**loader_options(of_loader), "batch_size": None})  # type: ignore[arg-type]


def check_callbacks(callbacks: Any) -> None:
    """One callback of Lightning, or several, none of which has weights of its own to keep."""
    for callback in as_list(callbacks):
        if not isinstance(callback, pl.Callback):
            raise ScmambaError(
                f"callbacks must be a callback of lightning.pytorch or a list of them, got {callback!r}."
            )
        if isinstance(callback, Checkpoint):
            raise ScmambaError(f"Leave {type(callback).__name__} out: {NO_CHECKPOINTS}")
        if isinstance(callback, StochasticWeightAveraging | WeightAveraging):
            raise ScmambaError(
                f"Leave {type(callback).__name__} out: the weights with the best score are kept, and its averages are not "
                f"scored."
            )


def check_place(name: str, known: Iterable[str]) -> None:
    """Answer an argument that `train` does not have with what to type instead."""
    if name in OF_TRAINER:
        return
    places = {
        f"train(plan_kwargs={{{name!r}: ...}})": [field.name for field in dataclasses.fields(TrainConfig)],
        f"train(datasplitter_kwargs={{{name!r}: ...}})": OF_SPLITTER,
        f"SCMAMBA(mdata, {name}=...)": [field.name for field in dataclasses.fields(ModelConfig)],
    }
    for place, names in places.items():
        if name in names:
            raise ScmambaError(f"train has no argument {name!r}: pass it as {place}.")
    raise UnknownNameError("argument of train", name, [*known, *OF_TRAINER])


def parts_of_cells(parts: Sequence[Sequence[int] | None], n_cells: int) -> list[np.ndarray]:
    """Positions of the cells to train on, held out and left over, as ``external_indexing`` has them: every cell once."""
    try:
        # as in scvi-tools, parts at the end may be missing, and None is an empty one
        arrays = [np.asarray([] if part is None else part, dtype=np.float64) for part in parts]
        arrays += [np.empty(0)] * (3 - len(arrays))
        whole = np.concatenate(arrays)
    except (TypeError, ValueError) as error:
        raise ScmambaError(f"external_indexing must be three lists of positions of cells: {error}.") from error
    if len(arrays) != 3 or whole.ndim != 1 or not len(arrays[0]):
        raise ScmambaError(
            "external_indexing must be three lists of positions of cells, the first of which is not empty."
        )
    if (whole != np.rint(whole)).any() or whole.min() < 0 or whole.max() >= n_cells:
        raise ScmambaError(f"external_indexing must hold positions among {n_cells:,} cells, 0 to {n_cells - 1:,}.")
    if len(np.unique(whole)) < len(whole):
        raise ScmambaError("external_indexing names some cells more than once.")
    if len(whole) < n_cells:
        raise ScmambaError(
            f"external_indexing leaves out {n_cells - len(whole):,} of {n_cells:,} cells: name in its third list those "
            f"that are neither trained on nor held out."
        )
    return [part.astype(np.int64) for part in arrays]


def check_modalities(model: ModelBase) -> None:
    """Check that the data have every modality of the model, but for a query, whose training leaves the reference as it is."""
    lacking = model.kinds.keys() - kinds_in(model.adata, model.kinds).keys()
    if lacking and not model.is_query_:
        raise ScmambaError(
            f"The data have no {' and no '.join(sorted(lacking))}, which this model knows and would forget: map the cells with "
            f"SCMAMBA.load_query_data(mdata, model), without unfrozen, or make a new model of these modalities."
        )


def check_batches(model: ModelBase) -> None:
    """Check that every cell has a batch, if the model corrects for them, and one that the model knows."""
    if not model._corrects_batches:
        return
    batches = model.adata_manager.batches
    if batches is None:
        raise ScmambaError(
            f"This model corrects for batches, and the MuData has no obs[{model.batch_key!r}]: add it, or make a model "
            f"with correct_batches=False."
        )
    unknown = batches >= len(model.batches)
    if unknown.any():
        name = obs_column(model.adata, str(model.batch_key))[unknown].iloc[0]
        raise ScmambaError(
            f"{unknown.sum():,} cells are of batches that the model does not know, such as {name!r} in {model.batch_key!r}: "
            f"make a new model, SCMAMBA(mdata), or map these cells with SCMAMBA.load_query_data(mdata, model)."
        )


def choose_precision(precision: str | int | None, device: torch.device, strategy: object = None) -> str:
    """Lightning's name of the precision asked for; by default bfloat16 where ``device`` computes in it, else float32."""
    if precision is not None:
        return PRECISIONS[str(precision)]
    on_gpu = device.type == "cuda"
    if on_gpu and isinstance(strategy, str) and any(word in strategy for word in ("fork", "notebook")):
        raise ScmambaError(
            f"strategy={strategy!r} forks its processes, before which no GPU may be asked what it can do: name the precision, "
            "precision='bf16-mixed', or '32-true' for GPUs older than A100."
        )
    return "bf16-mixed" if on_gpu and has_bfloat16(device) else "32-true"
