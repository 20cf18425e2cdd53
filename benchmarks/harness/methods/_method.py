"""What a method is: an adapter from a task to embeddings, and what it needs."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable

import numpy as np

from ..sets import SETS, DataSet, Task

#: Of training and of held-out cells, ``(cells, dimensions)``. Keys: kinds of modality, and "joint".
Embeddings = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Embeddings, and what is worth saying about the fit, such as its epochs."""

    embeddings: Embeddings
    notes: dict[str, object] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Limit:
    """Sets to which a method is limited without a GPU, by name, and why: a page says it in place of a row."""

    sets: frozenset[str]
    reason: str


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of the tables."""

    name: str
    about: str
    fit: Callable[[Task, int], Fitted]  # of a task and a seed; a Task holds no labels
    kinds: frozenset[str] | None = None  # modalities it is made for; None is any two
    packages: tuple[str, ...] = ()  # names of modules it imports beside those of this package
    n_seeds: int = 3  # 1 where a fit is deterministic, or takes long
    limit: Limit | None = None
    batches: bool = False  # made for data with batches

    def missing(self, dataset: DataSet, keys: dict[str, str]) -> str | None:
        """The reason why it is not run on a set whose modalities are ``keys``, or None."""
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                return f"needs the package {package}"
        if self.kinds is not None and set(keys) != self.kinds:
            return f"made for {' + '.join(sorted(self.kinds))}"
        if self.batches and dataset.batch_key is None:
            return "made for data with batches"
        is_ours = dataset.path is None or dataset.name in SETS  # on a file that someone asks for, everything runs
        if self.limit is not None and is_ours and dataset.name not in self.limit.sets and not _has_gpu():
            return self.limit.reason
        return None


def epochs_within(full: int, cell_passes: int, n_cells: int) -> int:
    """``full`` epochs on a GPU; on a CPU as many as ``cell_passes`` allow (cells times epochs), 10 at least.

    The defaults of the deep peers take hours on two cores. The notes of each result have both numbers.
    """
    return full if _has_gpu() else min(full, max(10, cell_passes // n_cells))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
