"""From a MuData to minibatches in which row ``i`` means one cell in every modality, and column ``j`` one feature."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from scvi import settings
from scvi.data import AnnDataManager
from scvi.dataloaders import DataSplitter
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Subset

from .._compat import mudata_wrapper, scvi_constants
from .._keys import BATCH_KEY, CELLS_KEY, KINDS, present_key, x_key
from ..errors import ScmambaError
from ._checks import check_mudata
from ._matrix import ModalityMatrix
from ._places import build_of
from ._sampler import BatchPureSampler, ShareOfRank
from ._stream import SHARE_OF_BUFFER, StreamedLoader
from ._transfer import OneAhead

_C = scvi_constants()
_MuDataField = mudata_wrapper()


class MultiModalDataset(Dataset):
    """Minibatches of the registered fields: counts and presence per modality, batch and labels per cell."""

    def __init__(self, manager: MultiModalManager, keys: Sequence[str] | None = None) -> None:
        registered = list(manager.data_registry)
        keys = registered if keys is None else list(keys)
        self._cells = np.arange(manager.adata.n_obs)  # positions in the MuData
        self.matrices = {kind: manager.matrix(kind) for kind in KINDS if x_key(kind) in keys}
        matrix_keys = {x_key(kind) for kind in KINDS}
        self._columns = {k: np.asarray(manager.get_from_registry(k)) for k in keys if k not in matrix_keys}

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def on_disk(self) -> bool:
        """Whether some counts are read from a file when they are asked for."""
        return any(matrix.on_disk for matrix in self.matrices.values())

    def cells_within(self, megabytes: float) -> int:
        """How many cells' counts take so much memory."""
        return int(megabytes * 2**20 / max(1.0, sum(matrix.bytes_per_cell for matrix in self.matrices.values())))

    def loaded(self, cells: np.ndarray) -> MultiModalDataset:
        """These cells, with their counts in memory; cell ``i`` of it is ``cells[i]``."""
        part = copy.copy(self)
        part._cells = self._cells[cells]
        part.matrices = {kind: matrix.loaded(cells) for kind, matrix in self.matrices.items()}
        part._columns = {key: column[cells] for key, column in self._columns.items()}
        return part

    def __getitem__(self, cells: int | Sequence[int]) -> dict[str, Tensor]:
        cells = np.atleast_1d(np.asarray(cells))
        batch: dict[str, Tensor] = {}
        for kind, matrix in self.matrices.items():
            batch[x_key(kind)] = matrix.read(cells)
            batch[present_key(kind)] = torch.from_numpy(matrix.present(cells))
        for key, column in self._columns.items():
            batch[key] = torch.from_numpy(column[cells].astype(np.int64)).reshape(-1, 1)
        batch[CELLS_KEY] = torch.from_numpy(self._cells[cells])
        return batch


class MultiModalManager(AnnDataManager):
    """scvi-tools' registry of a MuData, aligned by the names of cells and features.

    The stock manager takes row ``i`` of every modality for the same cell whatever their names, and compares the
    features of new data by count only.
    """

    def create_torch_dataset(self, indices=None, data_and_attributes=None, load_sparse_tensor=False):
        """Dataset of this MuData; minibatches are sparse wherever the data are, ``load_sparse_tensor`` is not read."""
        keys = None if data_and_attributes is None else list(data_and_attributes)
        dataset = MultiModalDataset(self, keys)
        return dataset if indices is None else Subset(dataset, indices)

    def matrix(self, kind: str) -> ModalityMatrix:
        """Counts of one kind of modality, by cell of the MuData."""
        modality: AnnData = self.adata.mod[self._setup_args["modalities"][kind]]
        rows = modality.obs_names.get_indexer(self.adata.obs_names)
        known = self.feature_names(kind)
        columns = None
        if not np.array_equal(known, modality.var_names):
            columns = pd.Index(known).get_indexer(modality.var_names)
        return ModalityMatrix(self.get_from_registry(x_key(kind)), rows, columns)

    @property
    def has_batches(self) -> bool:
        """Whether `SCMAMBA.setup_mudata` was told a ``batch_key``."""
        return self._setup_args["batch_key"] is not None

    def feature_names(self, kind: str) -> np.ndarray:
        """Features in the order the model knows."""
        return np.asarray(self._registry[_C._FIELD_REGISTRIES_KEY][x_key(kind)][_C._STATE_REGISTRY_KEY]["column_names"])

    def transfer_fields(self, adata_target, **kwargs) -> MultiModalManager:
        """Manager of new data with this one's setup; batches and labels not seen before are legal in a query."""
        return super().transfer_fields(adata_target, **{"extend_categories": True, **kwargs})

    @property
    def _setup_args(self) -> dict:
        return self._registry[_C._SETUP_ARGS_KEY]

    def _validate_anndata_object(self, adata) -> None:
        if not isinstance(adata, MuData):
            raise ScmambaError(
                f"A MuData is needed, got {type(adata).__name__}: mudata.MuData({{'rna': ..., 'atac': ...}})."
            )
        args = self._setup_args
        if not any(key in adata.mod for key in args["modalities"].values()):
            raise ScmambaError(
                f"None of the modalities {list(args['modalities'].values())} is in this MuData: {list(adata.mod)}."
            )
        build_of(adata, args["modalities"], args.get("genome"))  # another build than the model's is refused
        check_mudata(adata, args["modalities"], args["layers"], require_counts=args["require_counts"])
        super()._validate_anndata_object(adata)

    def _add_field(self, field, adata, source_registry=None, **transfer_kwargs) -> None:
        source = (source_registry or {}).get(_C._FIELD_REGISTRIES_KEY, {}).get(field.registry_key)
        if source is not None and self._is_absent(field, adata):
            # new data may lack a modality, and need neither batches nor labels to be embedded
            self._registry[_C._FIELD_REGISTRIES_KEY][field.registry_key] = {**source, _C._DATA_REGISTRY_KEY: {}}
            return
        names = (source or {}).get(_C._STATE_REGISTRY_KEY, {}).get("column_names")
        if names is not None:
            check_features(names, adata.mod[field.mod_key].var_names, field.mod_key)
        try:
            super()._add_field(field, adata, source_registry, **transfer_kwargs)
        except TypeError as error:  # categories are sorted together
            column = self._setup_args.get(f"{field.registry_key}_key")
            raise ScmambaError(
                f"mdata.obs[{column!r}] holds values of several types, or of another type than the model knows: make them "
                f"all text, mdata.obs[{column!r}].astype(str), or all numbers."
            ) from error
        if names is not None:
            # columns keep the model's order, `matrix` maps the data's columns to it
            self._registry[_C._FIELD_REGISTRIES_KEY][field.registry_key][_C._STATE_REGISTRY_KEY]["column_names"] = names

    def _is_absent(self, field, adata: MuData) -> bool:
        if isinstance(field, _MuDataField) and field.mod_key is not None:
            return field.mod_key not in adata.mod
        key = self._setup_args.get(f"{field.registry_key}_key")
        return key is not None and key not in adata.obs


def check_features(known: Sequence[str], names: pd.Index, key: str) -> None:
    """New data must have the features the model was trained on, in any order."""
    known = pd.Index(known)
    missing, extra = known.difference(names), names.difference(known)
    if not len(missing) and not len(extra):
        return
    parts = [
        f"{len(found):,} {what} (such as {', '.join(map(repr, found[:3]))})"
        for what, found in (("are missing", missing), ("are not known to the model", extra))
        if len(found)
    ]
    raise ScmambaError(
        f"The features of mdata[{key!r}] are not those of the model: of {len(known):,} features "
        f"{' and '.join(parts)}. Names are compared exactly; their order does not matter. "
        f"SCMAMBA.prepare_query_mudata(mdata, model) fits new data to a model."
    )


class PairedSplitter(DataSplitter):
    """Training and validation cells; validation cells have at least two modalities, so that retrieval can be scored.

    Parameters
    ----------
    max_validation_cells
        Enough to tell 0.08 from 0.09 FOSCTTM; more only cost training cells and time.
    batch_pure
        Fill each training minibatch from one batch.
    cells_per_step
        Cells of a training step on all ranks together; `None`: ``batch_size``.
    buffer_mb
        Memory for counts that are read from a file.
    """

    def __init__(
        self,
        adata_manager: MultiModalManager,
        *,
        max_validation_cells: int,
        batch_pure: bool = False,
        cells_per_step: int | None = None,
        buffer_mb: float = 1024,
        **kwargs,
    ) -> None:
        self.batch_pure, self.cells_per_step, self.buffer_mb = batch_pure, cells_per_step, buffer_mb
        #: Of the order of cells; `None`: torch's own, which the seed of a run sets.
        self.order: torch.Generator | None = None
        super().__init__(adata_manager, load_sparse_tensor=True, **{"drop_last": True, **kwargs})
        self._dataset = adata_manager.create_torch_dataset()
        if self._dataset.on_disk:
            max_validation_cells = min(max_validation_cells, self._check_buffer())
        if self.external_indexing is None:
            self.train_idx, self.val_idx, self.test_idx = self._split(max_validation_cells)
        else:
            self.train_idx, self.val_idx, self.test_idx = (
                np.asarray(i, dtype=np.int64) for i in self.external_indexing
            )
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)

    def setup(self, stage: str | None = None) -> None:
        """Nothing: cells were split when this object was made, the model needs them before Lightning calls."""

    def train_dataloader(self):
        """Loader of the training cells, in a new order each epoch; of several ranks each reads its part of a step."""
        rank, n_ranks = self._ranks()
        batch_size = self.data_loader_kwargs["batch_size"]
        size = self.cells_per_step or batch_size
        # ranks share their minibatches, so they must draw the same ones
        generator = torch.Generator().manual_seed(settings.seed or 0) if n_ranks > 1 else self.order
        if self._dataset.on_disk:
            return self._ahead(
                StreamedLoader(self._dataset, self.train_idx, size, self.buffer_mb, generator, rank, n_ranks)
            )
        if not self.batch_pure and n_ranks == 1 and size == batch_size and self.order is None:
            return self._ahead(super().train_dataloader())
        if self.batch_pure:
            batches = np.asarray(self.adata_manager.get_from_registry(BATCH_KEY)).ravel()[self.train_idx]
            sampler = BatchPureSampler(batches, size, generator)
        else:
            sampler = BatchSampler(RandomSampler(range(self.n_train), generator=generator), size, self.drop_last)
        return self._ahead(
            self._loader(self.train_idx, ShareOfRank(sampler, rank, n_ranks) if n_ranks > 1 else sampler)
        )

    def val_dataloader(self):
        """Loader of the validation cells; no loader, rather than `None`, if there are none."""
        if not self.n_val:
            return []
        rank, n_ranks = self._ranks()
        if n_ranks == 1 and not self._dataset.on_disk:
            return self._ahead(super().val_dataloader())
        # every rank has minibatches: the scores of all are waited for
        size = min(self.data_loader_kwargs["batch_size"], self.n_val // n_ranks)
        if size < 2:
            raise ScmambaError(f"{self.n_val} held-out cells are too few for {n_ranks} devices: raise validation_size.")
        minibatches = list(BatchSampler(range(self.n_val), size, drop_last=False))[rank::n_ranks]
        return (
            self._ahead(self._loader(self.val_idx, minibatches))
            if n_ranks == 1
            else self._loader(self.val_idx, minibatches)
        )

    @property
    def n_cells_per_step(self) -> int:
        """Cells that one rank reads per step, at most."""
        return -(-(self.cells_per_step or self.data_loader_kwargs["batch_size"]) // self._ranks()[1])

    def _loader(self, cells: np.ndarray, sampler) -> DataLoader:
        """Loader whose ``sampler`` yields the positions in ``cells`` of a whole minibatch."""
        # scvi-tools' loader would put what the sampler yields into minibatches once more
        options = {name: value for name, value in self.data_loader_kwargs.items() if name != "batch_size"}
        # cells of a file that are read in every epoch, in no order a disk likes, are few: they stay in memory
        dataset = self._dataset.loaded(cells) if self._dataset.on_disk else Subset(self._dataset, cells)
        if self.order is not None:  # the loader's own draw, a seed for its workers, must not move the random state
            options["generator"] = torch.Generator()
        return DataLoader(dataset, sampler=sampler, batch_size=None, pin_memory=self.pin_memory, **options)

    def _check_buffer(self) -> int:
        """How many cells the part of the buffer for validation holds."""
        if self.batch_pure:
            raise ScmambaError("batch_pure=True needs the counts in memory: cells of a batch are far apart in a file.")
        n_cells = self._dataset.cells_within(SHARE_OF_BUFFER * self.buffer_mb)
        size = self.cells_per_step or self.data_loader_kwargs["batch_size"]
        if n_cells < size:
            needed = size / max(1, self._dataset.cells_within(SHARE_OF_BUFFER * 1024)) * 1024
            raise ScmambaError(
                f"A buffer of {self.buffer_mb:,} MB holds {n_cells:,} cells at a time, fewer than the {size:,} of a "
                f"minibatch: choose plan_kwargs={{'buffer_mb': {needed:,.0f}}} or more, or a smaller batch_size."
            )
        return n_cells

    def _ranks(self) -> tuple[int, int]:
        """Number of this rank, and of all."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _ahead(self, loader):
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        return OneAhead(loader, device) if device.type == "cuda" else loader

    def on_after_batch_transfer(self, batch, dataloader_idx):
        """Keep sparse minibatches sparse: the encoder reads stored values."""
        return batch

    def _split(self, max_validation_cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n_cells = self.adata_manager.adata.n_obs
        order = np.arange(n_cells)
        if self.shuffle_set_split:
            order = np.random.RandomState(settings.seed or 0).permutation(n_cells)
        order = order[n_modalities_of_cells(self.adata_manager)[order] > 0]
        paired = order[n_modalities_of_cells(self.adata_manager)[order] > 1]
        share = 1 - self.train_size if self.validation_size is None else self.validation_size
        n_val = min(round(share * len(paired)), max_validation_cells)
        val = paired[:n_val]
        rest = order[~np.isin(order, val)]
        n_train = len(rest) if self.validation_size is None else round(self.train_size * len(order))
        return rest[:n_train], val, rest[n_train:]


def n_modalities_of_cells(manager: MultiModalManager) -> np.ndarray:
    """How many of the model's modalities each cell of the MuData has."""
    mdata = manager.adata
    keys = [key for key in manager._setup_args["modalities"].values() if key in mdata.mod]
    return sum(mdata.obs_names.isin(mdata.mod[key].obs_names).astype(int) for key in keys)
