"""New cells in the embedding of a model that was trained on others."""

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from anndata import AnnData
from mudata import MuData

from ..._arguments import listed
from ..._compat import device_of, quiet, scvi_constants
from ..._keys import BATCH_KEY
from ...errors import ScmambaError
from .._base import ModelBase
from ..fitting.mixin import FittingMixin
from .query import MAPPING_KEY, prepare_query

_C = scvi_constants()
# below scvi-tools' logger: `scvi.settings.verbosity` is for it too
logger = logging.getLogger(f"scvi.{__name__}")


class MappingMixin(FittingMixin):
    """`prepare_query_mudata` and `load_query_data`."""

    @classmethod
    def prepare_query_mudata(
        cls,
        mdata: MuData | AnnData,
        reference_model: Self | str | Path,
        *,
        layers: Mapping[str, str | None] | None = None,
        genome: str | None = None,
        min_coverage: float = 0.5,
    ) -> MuData:
        """Bring new data to the features of a model, in a new object; the data stay as they are.

        Features are found by name. Peaks of other names are found by overlap: each counts for the peak of the model with
        which it shares most bases, so every count is used once. Features that the model does not know are ignored, those
        that the query lacks are zero and `False` in ``var["in_query"]``; where the joint embedding is corrected for
        batches, their absence is part of the query batch's offset, which `load_query_data` estimates.

        Parameters
        ----------
        mdata
            Raw counts of at least one of the model's modalities, features in any order; or an AnnData of one modality. Its
            keys are the model's, or are recognised as in :meth:`setup_mudata`.
        reference_model
            The model, or the folder of one that was saved or exported.
        layers
            From kind to layer with raw counts, `None` for ``X``. Kinds that are not named are read from the layer of the model.
        genome
            Build of the coordinates. `None`: what the data say, if they do.
        min_coverage
            Least fraction of the model's features that each modality must have. Below half, names or builds that differ are
            likelier than features that were not measured.

        Returns
        -------
        MuData with the model's keys and features, those of ``model.get_var_names()``; cells that have none of the model's
        modalities are left out, with a warning. ``uns["query_mapping"]`` says per
        modality how many of the model's features were found (``found``, as a fraction ``coverage``), how many of the query's
        were matched ``by_name`` and ``by_overlap`` or ``ignored``, and which fraction of the counts was ``counts_kept``.

        Raises
        ------
        ScmambaError
            The data have no modality of the model, too few of its features, names that occur twice, or another genome build;
            or on both sides fewer than half of the peaks overlap one of the other, so that another build is likely.

        Examples
        --------
        >>> query = SCMAMBA.prepare_query_mudata(mdata["rna"][:50, :240], model)
        >>> query["rna"].shape, int(query["rna"].var["in_query"].sum())
        ((50, 300), 240)
        """
        return prepare_query(mdata, _reference(cls, reference_model), layers, genome, min_coverage)

    @classmethod
    def load_query_data(
        cls,
        adata: MuData | AnnData,
        reference_model: Self | str | Path,
        *,
        accelerator: str = "auto",
        device: int | str = "auto",
        unfrozen: bool = False,
    ) -> Self:
        """Model of new cells, in the embedding of a model that was trained on others; no training is needed.

        Batches that the reference has not seen get an offset in the joint embedding, as training batches do: cells are
        assigned to the reference's clusters and compared with them, several times in turn. The reference's data are not
        needed for this, and its embedding does not move. A query without the batch column is taken as one batch; a batch with
        the name of one of the reference is taken for that one, and gets its offset. Both are logged.

        :meth:`train` of the result adapts the biases of the modality-specific embeddings and the network's fraction in them,
        and nothing else. Reference cells embedded by the adapted model keep a mean cosine of more than 0.99 to their joint
        embedding before, on simulated cells with strong batches (``tests/model/tools/test_mapping.py``); they moved farther
        when the head was adapted too. Their modality-specific embeddings move more, of other simulated cells to a mean
        cosine of 0.95: compare only those of one model. If held-out retrieval among the query's cells does not improve, the
        weights from before training are kept.

        An offset removes what shifts a whole batch. Other differences stay: with strong batch effects, a query lies
        farther from the reference than if both had been trained on together.

        Parameters
        ----------
        adata
            What :meth:`prepare_query_mudata` returned, or data that it takes, to which it is then applied with its defaults.
        reference_model
            The model, or the folder of one that was saved or exported.
        accelerator, device
            Where the model is put, as in scvi-tools.
        unfrozen
            Let :meth:`train` change all weights, starting from the reference's; its embedding then moves, and batches of the
            reference of which the query has no cells are no longer corrected for, with a warning.

        Returns
        -------
        A model whose ``adata`` is a MuData of its own, cells in the order of ``adata``. It has the classifier of the
        reference and the calibration of its matches.

        Raises
        ------
        ScmambaError
            As for :meth:`prepare_query_mudata`; or the reference is not trained.

        Examples
        --------
        >>> query_model = SCMAMBA.load_query_data(mdata["rna"][:50], model)
        >>> query_model.get_latent_representation().shape
        (50, 64)
        """
        reference = _reference(cls, reference_model)
        if not reference.is_trained_:
            raise ScmambaError("The reference model is not trained: reference.train() comes before queries.")
        is_prepared = isinstance(adata, MuData) and MAPPING_KEY in adata.uns
        mdata = adata if is_prepared else cls.prepare_query_mudata(adata, reference)
        registry = _registry_of_training(reference)
        with quiet("scvi"):
            cls.setup_mudata(mdata, source_registry=registry, extend_categories=True, **reference._setup_args)
        model = cls(mdata, preset=reference.preset_, layouts=reference.layouts, config=reference.config)
        _take_over(model, reference)
        model.is_query_ = not unfrozen
        model.module.to(device_of(accelerator, device)).eval()
        with model._as_trained():
            model._place_new_batches()
        _log_shared_batches(model)
        return model


def _reference(cls: type[ModelBase], model: ModelBase | str | Path) -> ModelBase:
    """The model, read from its folder if that is what was given."""
    if isinstance(model, cls):
        return model
    if not isinstance(model, str | Path):
        raise ScmambaError(f"reference_model is a model or the folder of one; got {type(model).__name__}.")
    path = Path(model)
    if not path.is_dir():
        raise ScmambaError(f"There is no folder {path} with a model.")
    return cls._from_folder(path)


def _registry_of_training(reference: ModelBase) -> dict:
    """The registry with the batches that the model was made for; data that it was loaded with may have brought others."""
    fields = dict(reference.registry_[_C._FIELD_REGISTRIES_KEY])
    state = {**reference._state_of(BATCH_KEY), "categorical_mapping": reference.batches}
    fields[BATCH_KEY] = {**fields[BATCH_KEY], _C._STATE_REGISTRY_KEY: state}
    return {**reference.registry_, _C._FIELD_REGISTRIES_KEY: fields}


def _log_shared_batches(model: ModelBase) -> None:
    """Other samples may have the same names, such as ``1`` or ``rep1``, and would get the offsets of the reference's."""
    numbers = model.adata_manager.batches if model._corrects_batches else None
    if numbers is not None and (shared := [n for n in np.unique(numbers) if n < model.reference_batches_]):
        logger.info(
            f"Batches of the query that have the name of one of the reference are taken for the same: "
            f"{listed([repr(model.batches[n]) for n in shared], 3)}. Rename those that are of other samples."
        )


def _take_over(model: ModelBase, reference: ModelBase) -> None:
    """Copy weights and all else that was learned; offsets of batches that the reference does not know stay so."""
    weights = dict(reference.module.state_dict())
    own = model.module.state_dict()
    n_known = len(reference.batches)
    for name, value in weights.items():
        if value.shape != own[name].shape:  # only the offsets of batches grow; their last row is the unknown batch
            grown = value.new_zeros(own[name].shape)
            grown[:n_known] = value[:n_known]
            weights[name] = grown
    model.module.load_state_dict(weights)
    model.is_trained_ = model.is_initialized_ = True
    model.reference_batches_ = n_known
    new = range(n_known, model.n_batches_)
    model.unknown_offsets_ = {kind: [*reference.unknown_offsets_[kind], *new] for kind in model.modalities_}
    for name in ("match_temperatures_", "classifier_", "places_", "precision_"):
        setattr(model, name, copy.deepcopy(getattr(reference, name)))
