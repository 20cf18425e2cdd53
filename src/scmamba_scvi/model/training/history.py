"""The history of a model over stages and trainings: every epoch has a number of its own."""

from collections.abc import Mapping
from typing import TypeAlias

import pandas as pd
from scvi.train import TrainRunner

#: A column for each name that was logged, by epoch, or by step where a callback logs so.
History: TypeAlias = Mapping[str, pd.DataFrame]


def n_before(history: History | None, unit: str = "epoch") -> int:
    """How many epochs, or steps, a history has: the number of the next one."""
    ends = (int(frame.index[-1]) + 1 for frame in (history or {}).values() if frame.index.name == unit and len(frame))
    return max(ends, default=0)


def continued(history: History, later: History) -> dict[str, pd.DataFrame]:
    """The columns of both; ``later`` is numbered from where ``history`` ends."""
    columns = dict(history)
    for name, frame in later.items():
        unit = frame.index.name
        numbers = pd.Index(frame.index.astype(int) + n_before(history, unit), name=unit)
        parts = [history[name]] if name in history else []
        columns[name] = pd.concat([*parts, frame.set_axis(numbers)])
    return columns


class StageRunner(TrainRunner):
    """That of scvi-tools, with the history of each stage after that of what was trained before.

    scvi-tools numbers each column by its own length, which is too few where not every epoch was scored, and keeps only the
    columns that both trainings have.
    """

    def _update_history(self) -> None:
        model, before = self.model, self.model.history_ if self.model.is_trained_ else None
        was_trained = model.is_trained_
        model.history_, model.is_trained_ = None, False  # scvi-tools then hands over what this stage logged
        try:
            super()._update_history()
        finally:
            model.is_trained_, model.history_ = was_trained, continued(before or {}, model.history_ or {})
