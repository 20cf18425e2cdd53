"""SCMAMBA, the model that the user holds: setup and construction. Its other methods come from mixins."""

from collections.abc import Mapping
from typing import Any, Final, NoReturn

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from scvi.utils import setup_anndata_dsp

from .._compat import drop_managers_with, scvi_constants
from ..config import ModelConfig, name_of_preset, resolve_config
from ..errors import ScmambaError, UnknownNameError, written
from ..pp import FeatureLayout, feature_layout
from ._module import SCMAMBAModule
from .inputs.arguments import check_layers
from .inputs.columns import as_plain
from .inputs.genome import PLACED_KINDS, build_of, places_to_keep
from .inputs.kinds import check_is_mudata, how_to_make_mudata, resolve_modalities
from .inputs.manager import manager_of
from .io.copies import CopyMixin
from .io.model_json import SETUP_ARGUMENTS
from .io.saving import SavingMixin
from .tools.agreement import AgreementMixin
from .tools.classifier import ClassifierMixin
from .tools.embedding import EmbeddingMixin
from .tools.importance import ImportanceMixin
from .tools.imputation import ImputationMixin
from .tools.links import LinksMixin
from .tools.mapping import MappingMixin
from .tools.matching import MatchingMixin
from .tools.trajectory import TrajectoryMixin
from .training.mixin import ContrastiveTrainingMixin

_C = scvi_constants()
#: Arguments that scvi-tools adds when it registers new data for an existing model.
PASSED_ON: Final = ("source_registry", "extend_categories")


class SCMAMBA(
    MatchingMixin,
    ImputationMixin,
    AgreementMixin,
    ClassifierMixin,
    MappingMixin,
    ImportanceMixin,
    LinksMixin,
    TrajectoryMixin,
    EmbeddingMixin,
    ContrastiveTrainingMixin,
    SavingMixin,
    CopyMixin,
):
    """One embedding for cells measured in several modalities, from all features (arXiv 2506.20697).

    Features are ordered along the genome and cut into patches; each modality has an encoder of Mamba2 blocks beside a
    linear map that starts at the correlation-weighted CCA of the training cells; a contrastive loss pulls the embeddings of
    a cell together, and after training the modalities are brought to one distribution.

    Parameters
    ----------
    adata
        MuData registered with :meth:`setup_mudata`. `None` for a model without data, made by :meth:`load`.
    n_latent
        Dimensions of the embedding.
    preset
        Size of the network: ``"small"``, ``"base"``, ``"large"`` or ``"paper"`` (the published shape). ``"auto"`` is
        ``"small"`` on every machine; the larger ones are to be tried by name, on a GPU.
    layouts
        Order and patches of the features per kind of modality, as :func:`scmamba_scvi.pp.feature_layout` makes them;
        `None` computes them from ``var``.
    registry, config, n_batches
        Of a saved model; passed by :meth:`load`. ``preset`` is only a label then, and ``n_latent`` is not read.
    **overrides
        Any entry of :class:`scmamba_scvi.config.ModelConfig`.

    Raises
    ------
    ScmambaError
        The data were not set up, or a value cannot be used.
    UnknownNameError
        For a preset or an option that does not exist.

    Examples
    --------
    >>> scmamba_scvi.SCMAMBA.setup_mudata(mdata, batch_key="batch")
    >>> model = scmamba_scvi.SCMAMBA(mdata)
    >>> model.train()
    >>> mdata.obsm["X_scmamba"] = model.get_latent_representation()
    """

    _module_cls = SCMAMBAModule

    def __init__(
        self,
        adata: MuData | None = None,  # scvi-tools' loader drops an argument of this name only
        n_latent: int = 64,
        preset: str = "auto",
        layouts: Mapping[str, FeatureLayout | Mapping[str, Any]] | None = None,
        registry: dict[str, Any] | None = None,
        config: ModelConfig | Mapping[str, Any] | None = None,
        n_batches: int | None = None,
        **overrides: Any,
    ) -> None:
        if adata is not None:
            self._check_is_set_up(adata)
        super().__init__(adata, registry)
        drop_managers_with(self)
        if adata is None:
            # from it new data are registered
            self._adata_manager = manager_of(self.registry_)
        is_new = config is None
        if config is None:
            preset = name_of_preset(preset)
            config = resolve_config(preset, n_latent=n_latent, **overrides)
        elif not isinstance(config, ModelConfig):
            config = ModelConfig(**config)
        self.modalities_ = dict(self._setup_args["modalities"])
        self.preset_ = preset
        self.match_temperatures_ = {}
        self.training_summary_ = {}
        self.places_ = {}
        if is_new and adata is not None:  # a saved model brings those of its own data
            self.places_ = {kind: places_to_keep(self._var(kind)) for kind in self.modalities_ if kind in PLACED_KINDS}
        self._layouts = self._resolve_layouts(config, layouts)
        # data of a saved model may bring batches that it was not trained on
        self.n_batches_ = len(self._batch_categories) if n_batches is None else n_batches
        self.unknown_offsets_ = {kind: list(range(self.n_batches_)) for kind in self.modalities_}
        # the weights that a saved model draws are replaced: others must not see the draw
        with torch.random.fork_rng(devices=[], enabled=not is_new):
            self.module = self._module_cls(config, self._layouts, self.n_batches_)
        # the whole configuration is saved with the model: presets may change, and be gone, in another release
        arguments = {
            "preset": preset,
            "config": config.architecture(),
            "layouts": {k: v.to_dict() | {"slots": v.slots} for k, v in self._layouts.items()},
            "n_batches": self.n_batches_,
        }
        self.init_params_ = {"non_kwargs": arguments, "kwargs": {}}

    @classmethod
    def setup_anndata(cls, adata: AnnData, **kwargs: Any) -> NoReturn:
        """Raise an error: an AnnData holds one modality, and this model needs several. See :meth:`setup_mudata`."""
        raise ScmambaError(
            f"SCMAMBA needs a MuData of several modalities, and then setup_mudata. {how_to_make_mudata(adata)}"
        )

    @classmethod
    def setup_annbatch(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise an error, as it reads AnnData. See :func:`scmamba_scvi.data.open_mudata` for counts that stay in a file."""
        raise ScmambaError(
            "SCMAMBA needs a MuData of several modalities. To leave its counts in the file, "
            "mdata = scmamba_scvi.data.open_mudata(path), and then setup_mudata."
        )

    @classmethod
    @setup_anndata_dsp.dedent
    def setup_mudata(
        cls,
        mdata: MuData,
        modalities: Mapping[str, str] | None = None,
        layers: Mapping[str, str | None] | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        unlabeled_category: str | float = "Unknown",
        require_counts: bool = True,
        genome: str | None = None,
        **kwargs: Any,
    ) -> None:
        """%(summary_mdata)s.

        Cells are aligned by name: the modalities may list them in any order, and cells may lack modalities as long as
        some have two.

        Parameters
        ----------
        %(param_mdata)s
        modalities
            From kind (``"rna"``, ``"atac"``, ``"protein"``; ``"rna_layer"`` as in other models is understood) to key of
            ``mdata.mod``. `None` recognises them by key
            (rna, gex, expression; atac, peaks, accessibility; protein, prot, adt, antibody) or by ``var["feature_types"]``;
            one whose kind is not known is named in a warning.
        layers
            From kind to the layer with raw counts; a kind that is not named uses ``.X``.
        batch_key
            Column with the batch of each cell, in ``mdata.obs``, else in the modalities' ``obs``. ``"rna:batch"`` takes the
            one of one modality. Every cell needs a batch.
        labels_key
            Column with the label of each cell, found like that of the batch.
        unlabeled_category
            Value of ``labels_key`` that stands for "not known", as a missing value does.
        require_counts
            Refuse values that are negative or not whole numbers. `False` for corrected counts.
        genome
            Build of the coordinates, such as ``"hg38"`` or ``"GRCm38"``. `None`: the one in ``uns["genome"]`` or, as 10x
            writes it, ``var["genome"]``, if there is one. From then on, data of another build are refused. It also says
            what names of references mean that are not known.
        **kwargs
            scvi-tools' own, such as ``source_registry``, which it passes when it loads a model.

        Raises
        ------
        ScmambaError
            Before anything is registered; the message says what is wrong, where, and what to do.
        UnknownNameError
            No such argument, modality, kind, layer or column.

        Examples
        --------
        >>> SCMAMBA.setup_mudata(
        ...     mdata,
        ...     modalities={"rna": "rna", "atac": "atac"},
        ...     batch_key="batch",
        ...     labels_key="cell_type",
        ... )
        """
        for name, value in kwargs.items():
            if name not in PASSED_ON:
                kind, is_layer, _ = name.partition("_layer")  # as in other models
                advice = f"A layer is passed as {written('layers', {kind: value})}." if is_layer else ""
                raise UnknownNameError("argument of setup_mudata", name, [*SETUP_ARGUMENTS, *PASSED_ON], advice)
        source = kwargs.get("source_registry")
        check_is_mudata(mdata)
        modalities = resolve_modalities(mdata, modalities) if source is None else dict(modalities or {})
        layers = check_layers(layers, modalities)
        if unlabeled_category is None or not isinstance(require_counts, bool | np.bool_):
            raise ScmambaError(
                "unlabeled_category must be a value of the column of labels, such as 'Unknown', and require_counts True or "
                f"False; got {unlabeled_category!r} and {require_counts!r}."
            )
        setup_method_args = cls._get_setup_method_args(
            cls=cls, mdata=mdata, modalities=dict(modalities), layers=layers, batch_key=batch_key, labels_key=labels_key,
            unlabeled_category=as_plain(unlabeled_category), require_counts=bool(require_counts),
            genome=genome if source is not None else build_of(mdata, modalities, genome),
        )  # fmt: skip
        manager = manager_of(setup_method_args)
        if source is not None:
            kwargs.setdefault("extend_categories", True)
        known = cls._setup_adata_manager_store.get(mdata.uns.get(_C._SCVI_UUID_KEY))
        if known is not None and known.adata is not mdata:
            # a copy, which needs a name of its own: with that of the original it would take its place
            del mdata.uns[_C._SCVI_UUID_KEY]
        manager.register_fields(mdata, **kwargs)
        cls.register_manager(manager)

    @classmethod
    def _check_is_set_up(cls, mdata: MuData) -> None:
        """Raise unless `setup_mudata` was called with this object."""
        call = f"{cls.__name__}.setup_mudata(mdata, batch_key=...)"
        check_is_mudata(mdata, f" Then call {call}.")
        manager = cls._setup_adata_manager_store.get(mdata.uns.get(_C._SCVI_UUID_KEY))
        if manager is None:
            raise ScmambaError(
                f"This MuData was not set up: call {call} first, without batch_key if there are no batches."
            )
        if manager.adata is not mdata:
            raise ScmambaError(f"This MuData is a copy of one that was set up: call {call} with the copy.")

    def _resolve_layouts(self, config: ModelConfig, layouts: Mapping | None) -> dict[str, FeatureLayout]:
        if layouts is not None:
            if not isinstance(layouts, Mapping):
                raise ScmambaError(f"layouts must be a dict from kind to FeatureLayout, got {type(layouts).__name__}.")
            found = {k: v if isinstance(v, FeatureLayout) else FeatureLayout.from_dict(v) for k, v in layouts.items()}
            needed = {kind: len(self.feature_names(kind)) for kind in self.modalities_}
            if needed != (given := {kind: layout.n_features for kind, layout in found.items()}):
                raise ScmambaError(f"layouts are of so many features: {given}; the modalities have {needed}.")
            return {kind: found[kind] for kind in self.modalities_}
        return {
            kind: feature_layout(
                self._var(kind),
                config.of_kind("patch_size", kind),
                max_patches=config.max_patches,
                ordered=kind != "protein",
            )
            for kind in self.modalities_
        }

    def _var(self, kind: str) -> pd.DataFrame:
        """Table of the features in the order that the model knows, which may no longer be that of the data."""
        return self.adata_manager.modality(kind).var.loc[self.feature_names(kind)]

    @property
    def summary_string(self) -> str:
        """What a model prints, with its size, whether it is trained, and its modalities."""
        lines = [
            f"SCMAMBA, preset {self.preset_!r}, {self.config.n_latent} latent dimensions, "
            f"{sum(p.numel() for p in self.module.parameters()):,} parameters, "
            f"{'trained' if self.is_trained_ else 'not trained'}"
        ]
        for kind, key in self.modalities_.items():
            lines.append(
                f"  {kind} (mdata[{key!r}], {self.config.of_kind('values', kind)}): {self._layouts[kind].summary()}"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.summary_string
