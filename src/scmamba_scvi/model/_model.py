"""SCMAMBA: what the user holds."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mudata import MuData
from scvi import settings
from scvi.data.fields import MuDataCategoricalObsField, MuDataLayerField
from scvi.model.base import BaseModelClass
from scvi.train import TrainRunner
from scvi.utils import setup_anndata_dsp
from torch import Tensor

from .._compat import devices_docstring, quiet, scvi_constants, validation_check
from .._keys import BATCH_KEY, LABELS_KEY, present_key, x_key
from ..config import ModelConfig, resolve_config, resolve_train_config
from ..errors import ScmambaError, UnknownNameError
from ..pp import FeatureLayout, feature_layout
from ._checks import check_obs_column, check_shared_cells
from ._data import MultiModalManager, PairedSplitter, in_parts, n_modalities_of_cells, resolve_cells
from ._export import read_export, write_export
from ._modalities import resolve_modalities
from ._module import SCMAMBAModule
from ._plan import ContrastivePlan, KeepBest, StopOnInterrupt
from ._sizes import choose_preset, choose_training, patch_size_for
from ._start import fit_values, start_spectrally

_C = scvi_constants()


class SCMAMBA(BaseModelClass):
    """One embedding for cells measured in several modalities, from all features (arXiv 2506.20697).

    Features are ordered along the genome and cut into patches; each modality has an encoder of Mamba2 blocks beside a
    linear map that starts at the correlation-weighted CCA of the training cells; a contrastive loss with a cosine term
    pulls the views of a cell together.

    Parameters
    ----------
    adata
        MuData registered with :meth:`setup_mudata`. `None` for a model without data, made by :meth:`load`.
    n_latent
        Dimensions of the embedding.
    preset
        Size of the network: ``"small"``, ``"base"``, ``"large"``, ``"paper"`` (the published shape), or ``"auto"``:
        ``"base"`` where a GPU is, ``"small"`` elsewhere.
    layouts
        Order and patches of the features per kind of modality, as :func:`scmamba_scvi.pp.feature_layout` makes them;
        `None` computes them from ``var``.
    registry
        Of a saved model; passed by :meth:`load`.
    **overrides
        Any entry of :class:`scmamba_scvi.config.ModelConfig`.

    Examples
    --------
    >>> scmamba_scvi.SCMAMBA.setup_mudata(mdata, batch_key="donor")
    >>> model = scmamba_scvi.SCMAMBA(mdata)
    >>> model.train()
    >>> mdata.obsm["X_scmamba"] = model.get_latent_representation()
    """

    _module_cls = SCMAMBAModule
    _training_plan_cls = ContrastivePlan
    _data_splitter_cls = PairedSplitter
    _train_runner_cls = TrainRunner

    def __init__(
        self,
        adata: MuData | None = None,  # scvi-tools' loader drops an argument of this name only
        n_latent: int = 64,
        preset: str = "auto",
        layouts: Mapping[str, FeatureLayout | Mapping] | None = None,
        registry: dict | None = None,
        **overrides,
    ) -> None:
        super().__init__(adata, registry)
        preset = choose_preset() if preset == "auto" else preset
        config = resolve_config(preset, n_latent=n_latent, **overrides)
        self.modalities_: dict[str, str] = dict(self.registry_[_C._SETUP_ARGS_KEY]["modalities"])
        self.preset_ = preset
        self._layouts = self._resolve_layouts(config, layouts)
        self.module = self._module_cls(config, self._layouts)
        # what a preset means may change between releases, so the resolved network is saved, not its name
        arguments = {
            "n_latent": n_latent,
            "preset": preset,
            "layouts": {k: v.to_dict() | {"slots": v.slots} for k, v in self._layouts.items()},
        }
        resolved = {name: value for name, value in config.to_dict().items() if name != "n_latent"}
        self.init_params_ = {"non_kwargs": arguments, "kwargs": {"overrides": resolved}}

    # -- data ---------------------------------------------------------------------------------------------------------

    @classmethod
    def setup_anndata(cls, adata, **kwargs):
        """Not for this model: one AnnData holds one modality. See :meth:`setup_mudata`."""
        raise ScmambaError(
            "SCMAMBA needs several modalities: put them in a MuData, mudata.MuData({'rna': ..., 'atac': ...}), and call setup_mudata."
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
        unlabeled_category: str = "Unknown",
        require_counts: bool = True,
        **kwargs,
    ) -> None:
        """%(summary_mdata)s.

        Cells are aligned by name: the modalities may list them in any order, and cells that lack a modality are
        welcome as long as some have two.

        Parameters
        ----------
        %(param_mdata)s
        modalities
            From kind (``"rna"``, ``"atac"``, ``"protein"``) to key of ``mdata.mod``. `None` recognises them by key
            (rna, gex, expression; atac, peaks, accessibility; protein, prot, adt) or by ``var["feature_types"]``.
        layers
            From kind to the layer with raw counts; a kind that is not named uses ``.X``.
        %(param_batch_key)s
        %(param_labels_key)s
        unlabeled_category
            Value of ``labels_key`` that stands for "not known".
        require_counts
            Refuse values that are negative or not whole numbers. `False` for corrected counts.

        Raises
        ------
        ScmambaError
            Before anything is registered; the message names what is wrong, where, and what to do.
        """
        source = kwargs.get("source_registry")
        if not isinstance(mdata, MuData):
            raise ScmambaError(f"setup_mudata needs a MuData, got {type(mdata).__name__}.")
        if source is None:
            modalities = resolve_modalities(mdata, modalities)
        layers = dict(layers or {})
        for kind in layers:
            if kind not in modalities:
                raise UnknownNameError("kind of modality in layers", kind, modalities)
        setup_method_args = cls._get_setup_method_args(
            cls=cls, mdata=mdata, modalities=dict(modalities), layers=layers, batch_key=batch_key, labels_key=labels_key,
            unlabeled_category=unlabeled_category, require_counts=require_counts,
        )  # fmt: skip
        if source is None:
            check_obs_column(mdata, "batch_key", batch_key)
            check_obs_column(mdata, "labels_key", labels_key)
            check_shared_cells(mdata, modalities)
        fields = [
            MuDataLayerField(x_key(kind), layers.get(kind), mod_key=key, is_count_data=False, correct_data_format=False)
            for kind, key in modalities.items()
        ]
        fields.append(MuDataCategoricalObsField(BATCH_KEY, batch_key, mod_key=None))
        fields.append(MuDataCategoricalObsField(LABELS_KEY, labels_key, mod_key=None))
        manager = MultiModalManager(
            fields=fields, setup_method_args=setup_method_args,
            validation_checks=validation_check(check_fully_paired_mudata=False),
        )  # fmt: skip
        if source is not None:
            kwargs.setdefault("extend_categories", True)
        manager.register_fields(mdata, **kwargs)
        cls.register_manager(manager)

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
        """The resolved network."""
        return self.module.config

    def get_var_names(self, legacy_mudata_format: bool = False) -> dict[str, np.ndarray]:
        """Features the model knows, per key of ``mdata.mod``, in its order."""
        return {key: self.feature_names(kind) for kind, key in self.modalities_.items()}

    def feature_names(self, kind: str) -> np.ndarray:
        """Features of one kind of modality, in the order the model knows."""
        return np.asarray(self.registry_[_C._FIELD_REGISTRIES_KEY][x_key(kind)][_C._STATE_REGISTRY_KEY]["column_names"])

    def _resolve_layouts(self, config: ModelConfig, layouts: Mapping | None) -> dict[str, FeatureLayout]:
        if layouts is not None:
            return {k: v if isinstance(v, FeatureLayout) else FeatureLayout.from_dict(v) for k, v in layouts.items()}
        if self.adata is None:
            raise ScmambaError("A model without data needs the layouts of a saved one.")
        found = {}
        for kind, key in self.modalities_.items():
            var = self.adata.mod[key].var
            found[kind] = feature_layout(var, patch_size_for(config, kind, len(var)), ordered=kind != "protein")
        return found

    # -- training -----------------------------------------------------------------------------------------------------

    @devices_docstring()
    def train(
        self,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        early_stopping: bool = True,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        precision: str | None = None,
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        datasplitter_kwargs: dict | None = None,
        plan_kwargs: dict | None = None,
        **trainer_kwargs,
    ) -> None:
        """Train, keep the weights with the best held-out retrieval, and say in one line what was chosen.

        Parameters
        ----------
        max_epochs
            `None`: enough for about 300 steps, at least 3 and at most 100 epochs.
        batch_size
            Cells of a minibatch, each other cell of which is a negative. `None`: 512, a quarter of the training cells
            where there are fewer than 2,048.
        early_stopping
            Stop when held-out FOSCTTM has not improved for a while. The best weights are kept in any case.
        %(param_accelerator)s
        %(param_devices)s
        precision
            `None`: bf16 on a GPU that has it, float32 elsewhere.
        train_size, validation_size
            Shares of the cells; by default 0.9 and the rest, of which at most 5,000.
        shuffle_set_split
            Draw validation cells at random (by `scvi.settings.seed`), or take the first ones.
        datasplitter_kwargs
            For the loaders; ``external_indexing`` gives the cells of each part.
        plan_kwargs
            Entries of :class:`scmamba_scvi.config.TrainConfig`.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`.

        Raises
        ------
        ScmambaError
            Too few cells, or a loss that is not finite; the model then keeps its last good weights.
        """
        if self.adata is None:
            raise ScmambaError("This model was loaded without data: SCMAMBA.load(dir, adata=mdata).")
        config = resolve_train_config(**(plan_kwargs or {}))
        chosen = choose_training(
            int((n_modalities_of_cells(self.adata_manager) > 1).sum()),
            self.adata.n_obs,
            batch_size,
            max_epochs,
            train_size,
            config,
        )
        splitter = self._data_splitter_cls(
            self.adata_manager, max_validation_cells=config.max_validation_cells, train_size=train_size,
            validation_size=validation_size, shuffle_set_split=shuffle_set_split, batch_size=chosen.batch_size,
            **(datasplitter_kwargs or {}),
        )  # fmt: skip
        self._start_from(splitter.train_idx)
        keep_best, on_interrupt = KeepBest(config.monitor, config.monitor_mode), StopOnInterrupt()
        has_validation = splitter.n_val > 0
        runner = self._train_runner_cls(
            self, training_plan=self._training_plan_cls(self.module, config=config), data_splitter=splitter,
            max_epochs=chosen.max_epochs, accelerator=accelerator, devices=devices,
            early_stopping=early_stopping and has_validation, early_stopping_monitor=config.monitor,
            early_stopping_patience=chosen.patience, early_stopping_mode=config.monitor_mode,
            check_val_every_n_epoch=trainer_kwargs.pop("check_val_every_n_epoch", 1) if has_validation else None,
            precision=precision or _default_precision(accelerator),
            gradient_clip_val=trainer_kwargs.pop("gradient_clip_val", config.gradient_clip),
            callbacks=[*trainer_kwargs.pop("callbacks", []), *([keep_best] if has_validation else []), on_interrupt],
            **trainer_kwargs,
        )  # fmt: skip
        talks = trainer_kwargs.get("enable_progress_bar", True)
        if talks:
            print(chosen.describe(self.preset_, runner.device, splitter.n_train, splitter.n_val))
        self.module.train()  # a trained model comes back in eval mode
        # what is left out names devices that are not there and advertises a logger
        with quiet("lightning.pytorch.utilities.rank_zero"):
            runner()
        self.training_summary_ = {
            "best_epoch": keep_best.best_epoch, "best": keep_best.best, "start": keep_best.start,
            "monitor": config.monitor, "interrupted": on_interrupt.interrupted, "batch_size": chosen.batch_size,
            "max_epochs": chosen.max_epochs,
        }  # fmt: skip
        if on_interrupt.interrupted:
            warnings.warn(
                "Training was interrupted. The model keeps its best weights so far and can be used.",
                UserWarning,
                stacklevel=2,
            )
        if talks and has_validation:
            print(_describe_result(self.training_summary_))

    def _start_from(self, cells: np.ndarray) -> None:
        """Learn from the training cells what must be known before the first step; once in the life of a model."""
        if getattr(self, "is_started_", False):
            return
        matrices = {kind: self.adata_manager.matrix(kind) for kind in self.modalities_}
        fit_values(self.module, matrices, cells)
        if self.config.spectral and self.config.skip:
            start_spectrally(self.module, matrices, cells, seed=settings.seed or 0)
        self.is_started_ = True

    # -- embedding ----------------------------------------------------------------------------------------------------

    def get_latent_representation(
        self,
        adata: MuData | None = None,
        modality: str | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Embedding of each cell.

        A cell's embedding depends on its own counts only: not on other cells, their order, or the batch size.

        Parameters
        ----------
        adata
            MuData with the model's features in any order; it may lack modalities, and needs neither batches nor labels.
            `None`: the MuData the model was made with.
        modality
            Kind, or key of ``mdata.mod``. `None`: joint, the normalised mean over the modalities a cell has.
        indices
            Cells to embed, positions in ``mdata.obs``. `None`: all.
        batch_size
            Cells of a minibatch; changes speed and memory only.

        Returns
        -------
        float32 ``(n_cells, n_latent)`` of unit length, in the order of ``mdata.obs`` (or of ``indices``). Cells without
        the modality asked for are NaN, with one warning.
        """
        self._check_if_trained(warn=False, message="Train the model first: model.train().")
        mdata = self._validate_anndata(adata)
        manager = self.get_anndata_manager(mdata, required=True)
        kinds = self._kinds_to_read(manager, modality)
        dataset = manager.create_torch_dataset(data_and_attributes=[x_key(k) for k in kinds])
        cells = resolve_cells(indices, len(dataset))
        self.module.eval()
        # no DataLoader: it would draw from torch's global generator, and has nothing to shuffle or collate here
        with torch.inference_mode():
            parts = [self._embed(dataset[part], kinds) for part in in_parts(cells, batch_size or 512)]
        z = torch.cat(parts).numpy() if parts else np.zeros((0, self.config.n_latent), dtype=np.float32)
        n_missing = int(np.isnan(z[:, 0]).sum())
        if n_missing:
            what = modality or f"any of {list(self.modalities_.values())}"
            warnings.warn(
                f"{n_missing:,} of {len(z):,} cells lack {what}: their embedding is NaN.", UserWarning, stacklevel=2
            )
        return z

    def _kinds_to_read(self, manager: MultiModalManager, modality: str | None) -> list[str]:
        have = [kind for kind in self.modalities_ if x_key(kind) in manager.data_registry]
        if modality is None:
            return have
        kind = {key: kind for kind, key in self.modalities_.items()}.get(modality, modality)
        if kind not in self.modalities_:
            raise UnknownNameError("modality", modality, [*self.modalities_, *self.modalities_.values()])
        if kind not in have:
            raise ScmambaError(
                f"This MuData has no modality {self.modalities_[kind]!r}; it has {list(manager.adata.mod)}."
            )
        return [kind]

    def _embed(self, batch: Mapping[str, Tensor], kinds: Sequence[str]) -> Tensor:
        """Joint embedding over ``kinds`` of one minibatch, NaN for cells that have none of them."""
        device = self.module.device
        z = sum(self.module.encode(batch[x_key(k)].to(device), k, batch[present_key(k)].to(device)) for k in kinds)
        none = ~torch.stack([batch[present_key(k)] for k in kinds]).any(0)
        z = torch.nn.functional.normalize(z, dim=-1).float().cpu()
        z[none] = torch.nan
        return z

    # -- files --------------------------------------------------------------------------------------------------------

    def export(self, directory: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model as safetensors and JSON, the format for files that go to others: reading it runs no code.

        Parameters
        ----------
        directory
            Folder to make; afterwards it is whole, or as it was.
        overwrite
            Replace a folder that exists.
        """
        write_export(self, directory, overwrite=overwrite)

    @classmethod
    def from_export(cls, directory: str | os.PathLike[str], mdata: MuData | None = None) -> SCMAMBA:
        """Model from a folder that :meth:`export` made.

        Parameters
        ----------
        directory
            The folder.
        mdata
            Data to attach, as in :meth:`load`. `None`: pass data to the methods that need them.

        Raises
        ------
        ScmambaError
            A file is missing, damaged, of another format or version, or does not fit the network it describes.
        """
        return read_export(cls, directory, mdata)

    # -- representation -----------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        lines = [
            f"SCMAMBA, preset {self.preset_!r}, {self.config.n_latent} latent dimensions, "
            f"{sum(p.numel() for p in self.module.parameters()):,} parameters, {'trained' if self.is_trained_ else 'not trained'}"
        ]
        for kind, key in self.modalities_.items():
            lines.append(f"  {kind} (mdata[{key!r}], {self.config.of_kind('values', kind)}): {self._layouts[kind]}")
        return "\n".join(lines)


def _default_precision(accelerator: str) -> str:
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32-true"


def _describe_result(summary: Mapping) -> str:
    if summary["best"] is None:
        return f"Kept the last weights: {summary['monitor']} was never finite."
    start = summary["start"].get(summary["monitor"])
    when = "before the first step" if summary["best_epoch"] is None else f"of epoch {summary['best_epoch']}"
    before = "" if start is None else f" ({start:.4f} before training)"
    return f"Kept the weights {when}: {summary['monitor'].replace('_', ' ')} {summary['best']:.4f}{before}."
