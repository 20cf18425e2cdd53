"""What the capabilities of a model may rely on: its network, names, keys and coordinates, each declared once."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from scvi.model.base import BaseModelClass

from .._compat import attach_data, scvi_constants
from .._keys import BATCH_KEY, x_key
from ..config import ModelConfig
from ..errors import ScmambaError, UnknownNameError
from ..ops.backend import has_bfloat16
from ..pp import FeatureLayout
from ..pp.coordinates import Coordinates, parse_coordinates
from ._module import SCMAMBAModule
from .inputs.genome import PARTS
from .inputs.manager import MultiModalManager

_C = scvi_constants()


def digest(parts: Iterable[object]) -> str:
    """Short digest of arrays and texts."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        is_array = isinstance(part, np.ndarray)
        found.update(np.ascontiguousarray(part).data if is_array else f"{part}\0".encode("utf-8", "surrogatepass"))
    return found.hexdigest()


class OtherCellsError(ScmambaError, AttributeError):
    """Positions of cells refer to other data. As an `AttributeError`, it does not keep scvi-tools from saving the model."""


def _of_training(name: str) -> property:
    """Positions of cells as the last training left them; raises where the model's data have become others."""

    def get(model: "ModelBase") -> np.ndarray | None:
        if model.adata is not None:
            model._check_cells_of_training(model.adata, name)
        return getattr(model, f"{name}_")

    def put(model: "ModelBase", cells: np.ndarray | None) -> None:
        setattr(model, f"{name}_", cells)
        model.cells_of_training_ = None if model.adata is None else digest(model.adata.obs_names)

    return property(
        get, put, doc=f"Positions in ``adata.obs`` of the {name.removesuffix('_indices')} cells of the last training."
    )


class ModelBase(BaseModelClass):
    """State and names that every mixin of `SCMAMBA` shares; the mixins know each other only through it."""

    module: SCMAMBAModule
    modalities_: dict[str, str]  # from kind of modality to key of mdata.mod
    preset_: str
    is_initialized_: bool = False  # whether value transforms and linear branch were fitted to training cells
    match_temperatures_: dict[str, float]  # of a match's confidence, per pair of kinds
    classifier_: dict[str, Any] | None = None  # what `train_classifier` learned, as plain values
    is_query_: bool = False  # made by `load_query_data`: training leaves the reference as it is
    n_batches_: int  # that the model has been sized for; its data may have others besides
    reference_batches_: int = 0  # number of batches that the reference of a query was trained on
    unknown_offsets_: dict[str, list[int]]  # per kind, the batches whose offset in the joint embedding is not known
    places_: dict[str, dict[str, Any] | None]  # coordinates per kind, None where names say the same
    training_summary_: dict[str, Any]  # what the last training chose and found
    precision_: str = ""  # of the last training, as Lightning names it; empty before the first
    cells_of_training_: str | None = None  # digest of the names, in the order to which `train_indices` refers
    history_: dict[str, pd.DataFrame] | None
    registry_: dict[str, Any]
    init_params_: dict[str, Any]
    is_trained_: bool
    adata_manager: MultiModalManager
    _layouts: dict[str, FeatureLayout]

    train_indices = _of_training("train_indices")
    validation_indices = _of_training("validation_indices")
    test_indices = _of_training("test_indices")

    @property
    def kinds(self) -> dict[str, str]:
        """From kind of modality to key of ``mdata.mod``."""
        return dict(self.modalities_)

    @property
    def layouts(self) -> dict[str, FeatureLayout]:
        """Order and patches of the features, per kind of modality."""
        return dict(self._layouts)

    @property
    def config(self) -> ModelConfig:
        """Options of the network, its initialization and its loss, as the preset and the overrides give them."""
        return self.module.config

    @property
    def _setup_args(self) -> dict[str, Any]:
        """Arguments of `setup_mudata`."""
        return self.registry_[_C._SETUP_ARGS_KEY]

    def _state_of(self, key: str) -> dict[str, Any]:
        """What scvi-tools' registry keeps of the field with this key."""
        return self.registry_[_C._FIELD_REGISTRIES_KEY][key][_C._STATE_REGISTRY_KEY]

    @property
    def batch_key(self) -> str | None:
        """Column of ``mdata.obs`` that holds the batch, as named in ``setup_mudata``."""
        return self._setup_args["batch_key"]

    def _as_trained(self) -> torch.autocast:
        """Within the block, networks on a GPU compute in the precision that they were trained in."""
        name = self.precision_
        dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(name, torch.bfloat16)
        on_gpu = self.module.device.type == "cuda"
        can = on_gpu and (dtype != torch.bfloat16 or has_bfloat16(self.module.device))
        return torch.autocast("cuda" if on_gpu else "cpu", dtype, enabled=can and name.endswith("-mixed"))

    @property
    def _corrects_batches(self) -> bool:
        """Whether the joint embedding reads the batch of a cell."""
        return self.config.correct_batches and self.module.joint is not None and self.batch_key is not None

    def get_var_names(self, legacy_mudata_format: bool = False) -> dict[str, np.ndarray]:
        """Features the model knows, per key of ``mdata.mod``, in its order; ``legacy_mudata_format`` is not read."""
        return {key: self.feature_names(kind) for kind, key in self.modalities_.items()}

    def feature_names(self, kind: str) -> np.ndarray:
        """Features of one kind of modality, in the order the model knows.

        Parameters
        ----------
        kind
            ``"rna"``, ``"atac"`` or ``"protein"``.

        Returns
        -------
        ``(f,)`` names, as in ``var_names`` of the data that the model was set up with.

        Raises
        ------
        UnknownNameError
            The model has no modality of this kind.

        Examples
        --------
        >>> names = model.feature_names("rna")
        >>> bool((names == mdata["rna"].var_names).all())
        True
        """
        if kind not in self.modalities_:  # to ask the registry would write it there
            raise UnknownNameError("kind of modality", kind, self.modalities_)
        return np.asarray(self._state_of(x_key(kind))["column_names"])

    def _check_cells_of_training(self, mdata: MuData, what: str) -> None:
        """Raise unless ``mdata`` has the cells of the last training in their order, to which positions refer."""
        if self.cells_of_training_ not in (None, digest(mdata.obs_names)):
            raise OtherCellsError(
                f"{what} are positions among the cells of the training, and the data have other cells, or the same in another "
                f"order. Pass the data of the training, in its order."
            )

    @property
    def adata(self) -> MuData | None:
        """The MuData of the model; `None` if it was loaded without data. What it is set to is judged as at setup."""
        return self._adata

    @adata.setter
    def adata(self, adata: MuData) -> None:
        attach_data(self, self.adata_manager.transfer_fields(adata, extend_categories=True))

    @property
    def history(self) -> dict[str, pd.DataFrame] | Any:  # or None, for which no type checker is to ask at every use
        """What training logged, a table for each name; `None` before the first training."""
        return self.history_

    @property
    def batches(self) -> np.ndarray:
        """Names of the batches the model knows, in their order."""
        return self._batch_categories[: self.n_batches_]

    def _knows_offset(self, kind: str) -> np.ndarray:
        """Which batches have an offset in a kind of modality, ``(n_batches + 1,)``; the last stands for those of no number."""
        known = np.arange(self.n_batches_ + 1) < self.n_batches_
        known[self.unknown_offsets_[kind]] = False
        return known

    @property
    def _batch_categories(self) -> np.ndarray:
        """Names of the batches the model knows, and then of those that its data have besides."""
        return np.asarray(self._state_of(BATCH_KEY)["categorical_mapping"])

    def coordinates(self, kind: str) -> Coordinates:
        """Genomic coordinates of the features of one kind of modality, in the order the model knows.

        Parameters
        ----------
        kind
            ``"rna"``, ``"atac"`` or ``"protein"``.

        Returns
        -------
        An object with ``chroms``, the names of the chromosomes, and int64 ``(f,)``: ``chrom``, the position in ``chroms``, -1
        for features without coordinates; ``start`` and ``end`` in base pairs; ``strand``, 1 forward, -1 reverse, 0 not known.

        Raises
        ------
        UnknownNameError
            The model has no modality of this kind.

        Examples
        --------
        >>> where = model.coordinates("atac")
        >>> len(where.start) == mdata["atac"].n_vars
        True
        """
        kept = self.places_.get(kind)
        if kept is None:
            return parse_coordinates(pd.DataFrame(index=pd.Index(self.feature_names(kind)).astype(str)))
        arrays = (np.asarray(kept[part], dtype=np.int64) for part in PARTS)
        return Coordinates(tuple(kept["chroms"]), *arrays)
