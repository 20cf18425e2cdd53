"""From a MuData to minibatches: row ``i`` is the same cell in every modality, column ``j`` a feature the model knows."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from scvi.data import AnnDataManager, AnnDataManagerValidationCheck
from scvi.data.fields import MuDataLayerField
from torch import Tensor
from torch.utils.data import Dataset, Subset

from ..._columns import has_obs_column
from ..._compat import scvi_constants
from ..._keys import BATCH_KEY, CELLS_KEY, KINDS, LABELS_KEY, present_key, x_key
from ...errors import ScmambaError
from ...nn.memory import free_bytes
from .checks import check_mudata, check_pairs, check_still_counts
from .columns import ColumnField
from .genome import build_of
from .kinds import check_is_mudata, kinds_in
from .matrices import FRACTION_OF_MEMORY, ModalityMatrix

_C = scvi_constants()
#: What to do about data that were changed.
AGAIN = "Call SCMAMBA.setup_mudata again, and make a new model if features changed."


class MultiModalDataset(Dataset):
    """Minibatches of the registered fields: counts and presence per modality, batch and labels per cell."""

    def __init__(self, manager: MultiModalManager, keys: Iterable[str] | None = None) -> None:
        keys = list(manager.data_registry if keys is None else keys)
        self._cells = np.arange(manager.adata.n_obs)  # positions in the MuData
        self.matrices: dict[str, ModalityMatrix] = {kind: manager.matrix(kind) for kind in KINDS if x_key(kind) in keys}
        columns = [key for key in (BATCH_KEY, LABELS_KEY) if key in keys]
        self._columns = {key: np.asarray(manager.get_from_registry(key)) for key in columns}

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def on_disk(self) -> bool:
        """Whether some counts are read from a file when they are asked for."""
        return any(matrix.on_disk for matrix in self.matrices.values())

    @property
    def on_gpu(self) -> bool:
        """Whether all counts are on a GPU, and minibatches are made there."""
        return all(matrix.is_kept for matrix in self.matrices.values())

    def cells_within(self, megabytes: float) -> int:
        """How many cells' counts fit into so much memory."""
        return int(megabytes * 2**20 / max(1.0, sum(matrix.bytes_per_cell for matrix in self.matrices.values())))

    def loaded(self, cells: np.ndarray) -> MultiModalDataset:
        """These cells, with their counts in memory; cell ``i`` of it is ``cells[i]``."""
        part = copy.copy(self)
        part._cells = self._cells[cells]
        part.matrices = {kind: matrix.loaded(cells) for kind, matrix in self.matrices.items()}
        part._columns = {key: column[cells] for key, column in self._columns.items()}
        return part

    def __getitem__(self, cells: int | Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        # an empty list, a rank's part of few cells, would be of floats
        cells = np.atleast_1d(np.asarray(cells, dtype=np.int64))
        batch: dict[str, Tensor] = {}
        for kind, matrix in self.matrices.items():
            batch[x_key(kind)] = matrix.read(cells)
            present = matrix.present(cells)
            if not present.all():  # without a mask nothing has to wait for a GPU to know that all cells have it
                batch[present_key(kind)] = torch.from_numpy(present)
        for key, column in self._columns.items():
            batch[key] = torch.from_numpy(column[cells].astype(np.int64)).reshape(-1, 1)
        batch[CELLS_KEY] = torch.from_numpy(self._cells[cells])
        return batch


class MultiModalManager(AnnDataManager):
    """scvi-tools' registry of a MuData, aligned by the names of cells and features.

    The stock manager takes row ``i`` of every modality for the same cell whatever their names, and compares the
    features of new data by count only.
    """

    _kept: Mapping[str, ModalityMatrix] = MappingProxyType({})  # see `kept_on`

    def create_torch_dataset(self, indices=None, data_and_attributes=None, load_sparse_tensor=False):
        """Dataset of this MuData; minibatches are sparse where the data are, whatever ``load_sparse_tensor`` says."""
        dataset = MultiModalDataset(self, data_and_attributes)
        return dataset if indices is None else Subset(dataset, indices)

    def register_fields(self, adata, source_registry=None, **transfer_kwargs) -> None:
        """Register ``adata``; every fault of it is an error before anything is written."""
        known = (source_registry or {}).get(_C._FIELD_REGISTRIES_KEY, {})
        self._check(adata, known, **transfer_kwargs)
        super().register_fields(adata, source_registry, **transfer_kwargs)
        self._remember_cells(adata)

    def validate(self) -> None:
        """Write the batches and labels of this setup again, if another setup of the same MuData has written its own since.

        Features and categories stay those that the model learned: scvi-tools would take them anew from the data.
        """
        self._assert_anndata_registered()
        mdata = self.adata
        gone = [key for key in self._cells_at_setup if key and key not in mdata.mod]
        if gone:
            raise ScmambaError(
                f"mdata was changed after setup_mudata: {gone[0]!r} is not among its modalities {list(mdata.mod)}. {AGAIN}"
            )
        if mdata.uns[_C._MANAGER_UUID_KEY] == self.id:
            return
        known = self._registry[_C._FIELD_REGISTRIES_KEY]
        self._check(mdata, known, **self._transfer_kwargs)
        for field in self.fields:
            if isinstance(field, ColumnField) and known[field.registry_key][_C._DATA_REGISTRY_KEY]:
                state = known[field.registry_key][_C._STATE_REGISTRY_KEY]
                field.transfer_field(state, mdata, **self._transfer_kwargs)
        self._remember_cells(mdata)
        self._assign_most_recent_manager_uuid()

    def _remember_cells(self, mdata: MuData) -> None:
        """Names of the cells of each modality and, under the empty key, of all."""
        names = {key: mdata.mod[key].obs_names for key in self._keys(mdata).values()}
        self._cells_at_setup = {"": mdata.obs_names, **names}

    @contextmanager
    def kept_on(self, device: torch.device) -> Iterator[None]:
        """Within the block, counts are looked up once, and copied to ``device`` if that is a GPU and has the memory."""
        matrices = {kind: self.matrix(kind) for kind in self._keys(self.adata)}
        n_bytes = sum(matrix.bytes_of_copy for matrix in matrices.values())
        try:
            if device.type == "cuda" and n_bytes <= FRACTION_OF_MEMORY * free_bytes(device):
                for matrix in matrices.values():
                    matrix.keep_on(device)
            self._kept = matrices
            yield
        finally:
            self._kept = {}
            for matrix in matrices.values():  # which datasets may still hold
                matrix.release()

    def modality(self, kind: str) -> AnnData:
        """The data of one kind of modality; raises if features or cells are not those at setup."""
        key = self._setup_args["modalities"][kind]
        modality = self.adata.mod[key]
        for where, names, before in (
            ("mdata", self.adata.obs_names, self._cells_at_setup[""]),
            (f"mdata[{key!r}]", modality.obs_names, self._cells_at_setup[key]),
        ):
            if differences := _differences(before, names):
                raise ScmambaError(
                    f"{where} was changed after setup_mudata: of {len(before):,} cells {differences}. {AGAIN}"
                )
        known = self.feature_names(kind)
        if differences := _differences(pd.Index(known), modality.var_names):
            raise ScmambaError(
                f"mdata[{key!r}] was changed after setup_mudata: of {len(known):,} features {differences}. {AGAIN}"
            )
        return modality

    def matrix(self, kind: str) -> ModalityMatrix:
        """Counts of one kind of modality, by cell of the MuData; raises as `modality` does."""
        modality, known = self.modality(kind), pd.Index(self.feature_names(kind))
        if kind in self._kept:
            return self._kept[kind]
        x = self.get_from_registry(x_key(kind))
        if self.requires_counts:
            check_still_counts(x, kind, self._setup_args["modalities"][kind], self._setup_args["layers"].get(kind))
        rows = modality.obs_names.get_indexer(self.adata.obs_names)
        columns = None if modality.var_names.equals(known) else known.get_indexer(modality.var_names)
        return ModalityMatrix(x, rows, columns)

    @property
    def batches(self) -> np.ndarray | None:
        """Number of the batch of each cell, int64 ``(n_cells,)``; `None` of data that are registered without batches."""
        return np.asarray(self.get_from_registry(BATCH_KEY)).ravel() if BATCH_KEY in self.data_registry else None

    @property
    def requires_counts(self) -> bool:
        """Whether all values were checked to be counts."""
        return self._setup_args["require_counts"]

    def feature_names(self, kind: str) -> np.ndarray:
        """Features in the order the model knows."""
        return np.asarray(self._registry[_C._FIELD_REGISTRIES_KEY][x_key(kind)][_C._STATE_REGISTRY_KEY]["column_names"])

    def transfer_fields(self, adata_target, **kwargs) -> MultiModalManager:
        """Manager of new data with this one's setup, which needs no data itself; batches that are not known stay so."""
        # with the name of the method too, by which scvi-tools sets up data for a model that it loads
        begun = (_C._MODEL_NAME_KEY, _C._SETUP_METHOD_NAME, _C._SETUP_ARGS_KEY)
        manager = manager_of({key: self._registry[key] for key in begun})
        manager.register_fields(adata_target, self._registry, **{"extend_categories": False, **kwargs})
        return manager

    @property
    def adata_uuid(self) -> str | None:
        """scvi-tools' name of the data; `None` for the manager of a model without data."""
        return None if self.adata is None else super().adata_uuid

    @property
    def _setup_args(self) -> dict:
        return self._registry[_C._SETUP_ARGS_KEY]

    def _keys(self, mdata: MuData) -> dict[str, str]:
        """The model's modalities that ``mdata`` has."""
        return kinds_in(mdata, self._setup_args["modalities"])

    def _check(self, adata: MuData, known: Mapping, *, extend_categories: bool = True, **_: object) -> None:
        """Raise if ``adata`` cannot be used, or does not fit the fields that a model knows."""
        check_is_mudata(adata)
        args = self._setup_args
        keys = self._keys(adata) if known else args["modalities"]
        if not keys:
            raise ScmambaError(
                f"None of the modalities of the data, {list(adata.mod)}, has cells and is one of the model's, "
                f"{list(args['modalities'].values())}: rename them, or see prepare_query_mudata."
            )
        build_of(adata, args["modalities"], args.get("genome"))  # raises if the genome build is not the model's
        check_mudata(adata, keys, args["layers"], require_counts=args["require_counts"], of_query=bool(known))
        check_pairs(adata, keys, needed=not known)
        for kind, key in keys.items() if known else ():
            features = pd.Index(known[x_key(kind)][_C._STATE_REGISTRY_KEY]["column_names"])
            if differences := _differences(features, adata.mod[key].var_names):
                raise ScmambaError(
                    f"The features of mdata[{key!r}] are not those of the model: of {len(features):,} features {differences}. "
                    f"Names are compared exactly; their order does not matter. SCMAMBA.prepare_query_mudata(mdata, model) fits "
                    f"new data to a model."
                )
        if not extend_categories:  # columns of data that nobody set up may hold anything
            return
        for field in self.fields:
            if isinstance(field, ColumnField) and not (known and self._is_absent(field, adata)):
                of_model = known[field.registry_key][_C._STATE_REGISTRY_KEY]["categorical_mapping"] if known else []
                field.categories(adata, of_model)

    def _add_field(self, field, adata, source_registry=None, **transfer_kwargs) -> None:
        source = (source_registry or {}).get(_C._FIELD_REGISTRIES_KEY, {}).get(field.registry_key)
        if source is not None and self._is_absent(field, adata):
            # new data may lack a modality, and can be embedded without batches and labels
            self._registry[_C._FIELD_REGISTRIES_KEY][field.registry_key] = {**source, _C._DATA_REGISTRY_KEY: {}}
            return
        super()._add_field(field, adata, source_registry, **transfer_kwargs)
        names = (source or {}).get(_C._STATE_REGISTRY_KEY, {}).get("column_names")
        if names is not None:
            # the registry keeps the model's order of features; `matrix` maps the data's columns to it
            self._registry[_C._FIELD_REGISTRIES_KEY][field.registry_key][_C._STATE_REGISTRY_KEY]["column_names"] = names

    def _is_absent(self, field, adata: MuData) -> bool:
        """Whether new data are registered without this field of the model."""
        if not isinstance(field, ColumnField):
            return field.mod_key not in self._keys(adata).values()
        # labels of new data are not needed, and may be unknown
        return field.registry_key == LABELS_KEY or (
            field.column is not None and not has_obs_column(adata, field.column)
        )


def manager_of(registry: Mapping[str, Any]) -> MultiModalManager:
    """Manager of no data yet, by scvi-tools' registry or the arguments of `setup_mudata` that begin one."""
    args = registry[_C._SETUP_ARGS_KEY]
    fields = [
        MuDataLayerField(
            x_key(kind), args["layers"].get(kind), mod_key=key, is_count_data=False, correct_data_format=False
        )
        for kind, key in args["modalities"].items()
    ]
    fields += [
        ColumnField(BATCH_KEY, args["batch_key"]),
        ColumnField(LABELS_KEY, args["labels_key"], missing=args["unlabeled_category"]),
    ]
    checks = AnnDataManagerValidationCheck(check_fully_paired_mudata=False)
    return MultiModalManager(fields=fields, setup_method_args=dict(registry), validation_checks=checks)


def _differences(known: pd.Index, names: pd.Index) -> str:
    """How many names are missing or new, with examples; empty if the names are the same in any order."""
    if known is names or known.equals(names):
        return ""
    found = {"are missing": known.difference(names), "are not known": names.difference(known)}
    return " and ".join(
        f"{len(some):,} {what} (such as {', '.join(map(repr, some[:3]))})" for what, some in found.items() if len(some)
    )
