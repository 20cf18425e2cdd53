"""Training on several devices, one process for each: how Lightning's trainer is set up."""

import copy
import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, Strategy, StrategyRegistry
from lightning.pytorch.utilities import rank_zero_only
from torch.nn.parallel import DistributedDataParallel

from ..._compat import n_devices
from ...errors import ScmambaError


def count_devices(
    accelerator: str, devices: int | list[int] | str, num_nodes: int = 1, strategy: str | Strategy = "auto"
) -> int:
    """Number of devices that train together, on all machines.

    Of several, each has the whole model (DDP); a strategy that spawns its processes is refused, since scvi-tools' registry
    of a MuData cannot be sent to them.
    """
    total = n_devices(accelerator, devices) * num_nodes
    if total == 1 or strategy == "auto" or isinstance(strategy, DDPStrategy):
        return total
    usable = [
        name for name in StrategyRegistry.available_strategies() if name.startswith("ddp") and "spawn" not in name
    ]
    if strategy not in usable:
        raise ScmambaError(
            f"strategy={strategy!r} cannot train this model on several devices: leave it out, or choose among {usable}."
        )
    return total


def is_first_process() -> bool:
    """Whether this is the process that prints and reports for all."""
    return rank_zero_only.rank == 0  # type: ignore[attr-defined]


@contextmanager
def distributed_trainer(world_size: int, given: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], Path | None]]:
    """Arguments of the trainer that follow from the devices, and a temporary file for what the first of several found.

    Every stage needs a fresh strategy. With several devices, scvi-tools would write the history into the working directory;
    here it goes into a temporary folder, unless the user named one among the arguments ``given``. Its warning that early
    stopping is off is not true of ours: every process has the scores of all cells.
    """
    strategy = given.get("strategy", "auto")
    if world_size == 1:
        # there is nobody to share the work of a minibatch with, and no group of processes to leave behind
        is_ddp = isinstance(strategy, DDPStrategy) or str(strategy).startswith("ddp")
        yield {"strategy": "auto" if is_ddp else copy.deepcopy(strategy)}, None
        return
    with warnings.catch_warnings(), TemporaryDirectory() as folder:
        warnings.filterwarnings("ignore", "early_stopping was automatically disabled")
        trainer = {
            "strategy": _ddp(strategy), "log_save_dir": given.get("log_save_dir") or folder,
            "use_distributed_sampler": False,  # our own sampler divides the cells among processes
        }  # fmt: skip
        yield trainer, Path(folder) / "best.json"


def _ddp(strategy: str | Strategy) -> DDPStrategy:
    """A strategy that does not send buffers between processes in every step: `EqualInitialization` sends them once."""
    if isinstance(strategy, DDPStrategy):
        return copy.deepcopy(strategy)
    entry = StrategyRegistry["ddp" if strategy == "auto" else strategy]
    # torch 2.13 has another name for it, and deprecates the one before
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return entry["strategy"](**{**entry["init_params"], name: False})
