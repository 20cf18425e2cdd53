"""Training on several devices, each with a process (rank) of its own: what Lightning's trainer is told."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies import DDPStrategy, Strategy, StrategyRegistry
from lightning.pytorch.utilities import rank_zero_only

from .._compat import n_devices
from ..errors import ScmambaError


def count_ranks(
    accelerator: str, devices: int | list[int] | str, num_nodes: int = 1, strategy: str | Strategy = "auto"
) -> int:
    """Devices that train together.

    Raises
    ------
    ScmambaError
        For several devices with a strategy that does not give each of them the whole model, or whose processes start
        empty: scvi-tools' registry of a MuData cannot be sent to them.
    """
    n_ranks = n_devices(accelerator, devices) * num_nodes
    if n_ranks > 1 and strategy != "auto" and not isinstance(strategy, DDPStrategy) and strategy not in _strategies():
        raise ScmambaError(
            f"strategy={strategy!r} is not one for several devices of this model: leave it out, or choose among "
            f"{_strategies()}."
        )
    return n_ranks


def _strategies() -> list[str]:
    return [n for n in StrategyRegistry.available_strategies() if n.startswith("ddp") and "spawn" not in n]


def is_first_rank() -> bool:
    """Whether this process speaks for all."""
    return rank_zero_only.rank == 0


@contextmanager
def ranks_trainer(n_ranks: int, trainer: dict) -> Iterator[tuple[dict, Path | None]]:
    """Arguments of the trainer for ``n_ranks`` devices, and a file through which the first rank can report.

    scvi-tools switches early stopping off on several devices, as its scores are those of a part of the cells there; here
    they are of all cells on every rank. It also writes the history into the working directory.
    """
    if n_ranks == 1:
        yield trainer, None
        return
    trainer = dict(trainer)
    if trainer.pop("early_stopping"):
        stopping = EarlyStopping(
            trainer["early_stopping_monitor"], trainer.pop("early_stopping_min_delta", 0.0),
            trainer["early_stopping_patience"], mode=trainer["early_stopping_mode"],
        )  # fmt: skip
        trainer["callbacks"] = [*trainer["callbacks"], stopping]
    trainer["strategy"] = _ddp(trainer.get("strategy", "auto"))
    trainer["use_distributed_sampler"] = False  # cells are shared out by the sampler
    with TemporaryDirectory() as folder:
        trainer.setdefault("log_save_dir", folder)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "early_stopping was automatically disabled")
            yield trainer, Path(folder) / "best.json"


def _ddp(strategy: str | Strategy) -> DDPStrategy:
    """A strategy that does not send buffers around in every step: `EqualStart` does once."""
    if isinstance(strategy, DDPStrategy):
        return copy.deepcopy(strategy)  # every phase of training takes a new one
    entry = StrategyRegistry["ddp" if strategy == "auto" else strategy]
    return entry["strategy"](**{**entry["init_params"], "broadcast_buffers": False})
