"""Which cells are trained on and which are held out, and the loaders of their minibatches."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch
from scvi import settings
from scvi.dataloaders import DataSplitter
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, Subset

from ..._keys import BATCH_KEY, LABELS_KEY
from ...errors import ScmambaError
from ..inputs.manager import MultiModalManager
from ..inputs.sampling import is_paired, modalities_of
from .prefetch import Loader, LoaderOnDevice
from .streaming import FRACTION_OF_BUFFER, StreamedLoader

#: Options of a `DataLoader` that are for its worker processes.
OF_WORKERS: Final = (
    "num_workers", "persistent_workers", "prefetch_factor", "multiprocessing_context", "worker_init_fn", "timeout", "in_order",
)  # fmt: skip


def loader_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a `DataLoader`: those given, else scvi-tools' settings."""
    return {"num_workers": settings.dl_num_workers, "persistent_workers": settings.dl_persistent_workers, **given}


class PartOfMinibatch(Sampler[list[int]]):
    """One process's part of every minibatch, if all draw the same ``minibatches``: equally many steps, no cell read by two."""

    def __init__(self, minibatches: BatchSampler, rank: int, world_size: int) -> None:
        self._minibatches, self._rank, self._world_size = minibatches, rank, world_size

    def __len__(self) -> int:
        return len(self._minibatches)

    def __iter__(self) -> Iterator[list[int]]:
        for cells in self._minibatches:
            yield np.array_split(np.asarray(cells), self._world_size)[self._rank].tolist()


class PairedSplitter(DataSplitter):
    """Training and validation cells; validation cells have at least two modalities, so that retrieval can be scored.

    ``batch_size`` counts the cells that one process reads together, ``cells_per_step`` those of a training step of all
    processes. ``seed`` is drawn by torch's own generator; the order of the cells follows from it.
    """

    def __init__(
        self,
        adata_manager: MultiModalManager,
        *,
        max_validation_cells: int,
        batch_size: int,
        cells_per_step: int,
        buffer_mb: float,
        **kwargs,
    ) -> None:
        self.buffer_mb, self.cells_per_step = buffer_mb, cells_per_step
        self.seed = int(torch.randint(2**31, ()))
        drop_last = kwargs.pop("drop_last", True)
        # scvi-tools warns of last minibatches that it would make, and of cells that it would move
        super().__init__(adata_manager, batch_size=batch_size, drop_last=True, **kwargs)
        self.drop_last = drop_last
        # neither the loss nor the network reads batches or labels
        keys = [key for key in adata_manager.data_registry if key not in (BATCH_KEY, LABELS_KEY)]
        self._dataset = adata_manager.create_torch_dataset(data_and_attributes=keys)
        if self._dataset.on_disk:
            if not self.drop_last:
                raise ScmambaError(
                    "drop_last=False is for counts in memory: of those in a file, cells that fill no minibatch wait for the "
                    "next epoch. Leave it out."
                )
            max_validation_cells = min(max_validation_cells, self._cells_of_buffer())
        parts = self._split(max_validation_cells) if self.external_indexing is None else self.external_indexing
        self.train_idx, self.val_idx, self.test_idx = (np.asarray(part, dtype=np.int64) for part in parts)
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)

    def setup(self, stage: str | None = None) -> None:
        """Nothing: cells were split when this object was made, the model needs them before Lightning calls."""

    @property
    def max_cells_of_process(self) -> int:
        """Cells that one process reads in a training step, at most."""
        return -(-self.cells_per_step // self._rank_and_world_size()[1])

    def train_dataloader(self) -> Loader:
        """Loader of the training cells, in a new order each epoch of a stage; each of several processes reads its part."""
        rank, world_size = self._rank_and_world_size()
        generator = torch.Generator()
        loader: Loader
        if self._dataset.on_disk:
            loader = StreamedLoader(
                self._dataset, self.train_idx, self.cells_per_step, self.buffer_mb, generator, rank, world_size
            )
        else:
            order = RandomSampler(range(self.n_train), generator=generator)
            minibatches = BatchSampler(order, self.cells_per_step, self.drop_last)
            loader = self._loader(self.train_idx, PartOfMinibatch(minibatches, rank, world_size))

        def begin() -> None:
            """Seed the order by the epoch: however often it was begun before, a resumed training needs only ``seed``."""
            # processes share their minibatches, so they must draw the same ones
            seed = self.seed if world_size == 1 else settings.seed or 0
            generator.manual_seed(seed + (0 if self.trainer is None else self.trainer.current_epoch))

        return LoaderOnDevice(loader, self._device(), ahead=not self._dataset.on_gpu, begin=begin)

    def val_dataloader(self) -> Loader | list:
        """Loader of the validation cells; no loader, rather than `None`, if there are none."""
        if not self.n_val:
            return []
        rank, world_size = self._rank_and_world_size()
        # each process needs a minibatch: the scores are computed when all have embedded theirs
        size = min(self.data_loader_kwargs["batch_size"], self.n_val // world_size)
        if size < 2 and world_size > 1:
            raise ScmambaError(
                f"{self.n_val} validation cells are too few for {world_size} devices: raise validation_size."
            )
        minibatches = list(BatchSampler(range(self.n_val), size, drop_last=False))[rank::world_size]
        loader = self._loader(self.val_idx, minibatches)
        return LoaderOnDevice(loader, self._device(), ahead=not self._dataset.on_gpu)

    @property
    def n_paired(self) -> int:
        """Training cells with several modalities, which alone tell the loss what belongs together."""
        return int(is_paired(self._dataset.matrices, self.train_idx).sum())

    @property
    def matches(self) -> list[int]:
        """Validation cells with both, of each two modalities that two or more have; if there are none, nothing is scored."""
        present = [matrix.present(self.val_idx) for matrix in self._dataset.matrices.values()]
        counts = (int((a & b).sum()) for a, b in itertools.combinations(present, 2))
        return [n for n in counts if n > 1]

    @property
    def n_of_modalities(self) -> dict[str, int]:
        """Training cells that have each kind of modality."""
        return {kind: int(matrix.present(self.train_idx).sum()) for kind, matrix in self._dataset.matrices.items()}

    def _split(self, max_validation_cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cells to train on, held out and left over."""
        order = np.arange(len(self._dataset))
        n_modalities = modalities_of(self._dataset.matrices, order).sum(axis=1)
        if self.shuffle_set_split:
            order = np.random.RandomState(settings.seed or 0).permutation(len(n_modalities))
        order = order[n_modalities[order] > 0]
        paired = order[n_modalities[order] > 1]
        fraction = 1 - self.train_size if self.validation_size is None else self.validation_size
        n_val = min(round(fraction * len(paired)), max_validation_cells)
        val = paired[:n_val]
        rest = order[~np.isin(order, val)]
        if self.train_size_is_none and self.validation_size is None:  # whom validation does not need is trained on
            return rest, val, rest[:0]
        n_train = round(self.train_size * len(order))
        return rest[:n_train], val, rest[n_train:]

    def _cells_of_buffer(self) -> int:
        """How many cells of a file are in memory together; raises if the minibatch of a step does not fit."""
        n_cells = self._dataset.cells_within(FRACTION_OF_BUFFER * self.buffer_mb)
        if n_cells < self.cells_per_step:
            needed = self.cells_per_step / max(1, self._dataset.cells_within(FRACTION_OF_BUFFER * 1024)) * 1024
            raise ScmambaError(
                f"A buffer of {self.buffer_mb:,} MB holds {n_cells:,} cells at a time, fewer than the "
                f"{self.cells_per_step:,} of a minibatch: choose plan_kwargs={{'buffer_mb': {needed:,.0f}}} or more, or a "
                f"smaller batch_size."
            )
        return n_cells

    def _loader(self, cells: np.ndarray, sampler: Iterable[list[int]]) -> DataLoader:
        """Loader of ``cells``; ``sampler`` yields the positions in them of one minibatch at a time."""
        # validation cells of a file are few and are read in every epoch, in an order that is slow on disk: keep them
        dataset = self._dataset.loaded(cells) if self._dataset.on_disk else Subset(self._dataset, cells.tolist())
        options = {**loader_options(self.data_loader_kwargs), "batch_size": None}
        if self._dataset.on_gpu:  # workers would have nothing to read, and cannot be forked any more
            options = {name: value for name, value in options.items() if name not in OF_WORKERS}
        # a plain DataLoader: that of scvi-tools would group what the sampler yields into minibatches once more. It draws a
        # seed for its workers, which must not move the random state
        generator = torch.Generator()
        return DataLoader(
            dataset,
            sampler=sampler,
            pin_memory=self.pin_memory and not self._dataset.on_gpu,
            generator=generator,
            **options,
        )

    def _rank_and_world_size(self) -> tuple[int, int]:
        """Number of this process, and how many there are."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
