"""The embedding of cells: of one modality, or the joint one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from torch import Tensor

from ..._arguments import check_count
from ..._compat import limited_threads, warn
from ..._keys import BATCH_KEY, JOINT, present_key, x_key
from .._base import ModelBase
from ..inputs.manager import MultiModalDataset, MultiModalManager
from ..inputs.matrices import in_parts
from ..training.prefetch import sent_to
from .cells import key_of, kind_of, registered, resolve_cells, warn_of_unread


@dataclass(frozen=True)
class ModalityEmbedding:
    """Embedding of one modality, for the cells that have it."""

    names: pd.Index  # (n,) every cell of the data, in their order
    has: np.ndarray  # (n,) bool, the cells that have the modality
    z: np.ndarray  # (m, z) float32 unit vectors of these, in the order of names[has]


class EmbeddingMixin(ModelBase):
    """`get_latent_representation` of a model whose module is an `SCMAMBAModule`."""

    def get_latent_representation(
        self,
        adata: MuData | AnnData | None = None,
        indices: Sequence[int] | Sequence[bool] | np.ndarray | None = None,
        *,
        modality: str | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Embedding of each cell.

        A cell's embedding depends on its own counts only, the joint one also on its batch if the model has a
        ``batch_key``: not on other cells, their order, or the batch size.

        Parameters
        ----------
        adata
            MuData with the model's features in any order, which may lack modalities, or AnnData of one modality; neither
            batches nor labels are needed. `None`: the MuData the model was made with.
        indices
            Cells to embed, positions in ``obs`` or a mask. `None`: all.
        modality
            Kind, or key of ``mdata.mod``: the embedding of this modality, in the space that all modalities share; use it to
            compare modalities. Distances mean the same within a modality and between two, as far as validation cells
            allowed to bring them together (:class:`scmamba_scvi.nn.Alignment`). `None` or ``"joint"``: the joint embedding
            of what the modalities share and what each shows alone, in another space; use it for cell types and states. For
            cells that lack modalities it is predicted from those they have.
        batch_size
            Cells of a minibatch; changes speed and memory only.

        Returns
        -------
        float32 ``(n_cells, n_latent)`` of unit length, in the order of ``obs`` (or of ``indices``). Cells without the
        modality asked for are NaN, with one warning. The joint embedding of cells of batches that the model was not
        trained on, or that are missing, is not corrected for them, with one warning; `load_query_data` corrects for new ones.

        Raises
        ------
        ScmambaError
            The model is not trained, the data lack the modality, or their features are not those of the model.

        Examples
        --------
        >>> # of all modalities
        >>> mdata.obsm["X_scmamba"] = model.get_latent_representation()
        >>> # of RNA alone, in the space that modalities share
        >>> model.get_latent_representation(mdata["rna"], modality="rna").shape
        (300, 64)
        """
        kind = None if modality == JOINT else kind_of(self, modality)
        data = registered(self, adata, kind)
        z = self._embed(data, kind, resolve_cells(indices, data.adata.obs_names), batch_size)
        n_missing = int(np.isnan(z[:, 0]).sum())
        if n_missing:
            what = kind or f"any of {list(self.kinds.values())}"
            warn(f"{n_missing:,} of {len(z):,} cells lack {what}: their embedding is NaN.")
        return z

    def _embed_modality(self, data: MultiModalManager, kind: str, batch_size: int | None = None) -> ModalityEmbedding:
        """Embedding of ``kind``, and which cells have it."""
        names = data.adata.obs_names
        has = np.asarray(names.isin(data.adata.mod[key_of(self, data.adata, kind)].obs_names))
        return ModalityEmbedding(names, has, self._embed(data, kind, np.flatnonzero(has), batch_size))

    def _embed(
        self,
        data: MultiModalManager,
        kind: str | None,
        cells: np.ndarray,
        batch_size: int | None,
        reads: Collection[str] | None = None,
    ) -> np.ndarray:
        """Embedding ``(n, z)`` of ``cells`` in one kind of modality, for `None` the joint one; NaN where they lack it.

        The joint one is made as if nothing but ``reads`` had been measured.
        """
        if batch_size is not None:
            check_count("batch_size", batch_size)
        if kind is not None:
            key_of(self, data.adata, kind)
        elif reads is None:
            warn_of_unread(self, data.adata)
        kinds = [k for k in self.kinds if k in (reads or self.kinds) and x_key(k) in data.data_registry]
        kinds = kinds if kind is None else [kind]
        keys = [x_key(k) for k in kinds]
        corrects = kind is None and self._corrects_batches
        if corrects and BATCH_KEY in data.data_registry:
            keys.append(BATCH_KEY)
        dataset = data.create_torch_dataset(data_and_attributes=keys)
        if corrects:
            self._warn_of_uncorrected(data, dataset, cells)
        self.module.eval()
        # no DataLoader: it would draw from torch's global generator, and has nothing to shuffle or collate here
        minibatches = (dataset[part] for part in in_parts(cells, batch_size or 512))
        with torch.inference_mode(), limited_threads(), self._as_trained():
            sent = sent_to(self.module.device, minibatches, ahead=not dataset.on_gpu)
            parts = [self._embed_minibatch(minibatch, kinds, kind is None) for minibatch in sent]
        return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, self.config.n_latent), dtype=np.float32)

    def _warn_of_uncorrected(self, manager: MultiModalManager, dataset: MultiModalDataset, cells: np.ndarray) -> None:
        """Say how many of the ``cells`` have a modality in which the offset of their batch is not known."""
        batches = manager.batches
        if batches is None:
            n_unknown, why = len(cells), f"the data have no obs[{self.batch_key!r}]"
        else:
            batches = batches[cells].clip(max=self.n_batches_)
            unknown = [m.present(cells) & ~self._knows_offset(kind)[batches] for kind, m in dataset.matrices.items()]
            n_unknown, why = int(np.any(unknown, axis=0).sum()), "it was not trained on their batches"
        if n_unknown:
            warn(f"The joint embedding of {n_unknown:,} of {len(cells):,} cells is not corrected for batches: {why}.")

    def _embed_minibatch(self, batch: Mapping[str, Tensor], kinds: Sequence[str], jointly: bool) -> Tensor:
        """Embedding of one minibatch, NaN for cells that have none of ``kinds``."""
        counts = {k: batch[x_key(k)] for k in kinds}
        present = {k: batch.get(present_key(k)) for k in kinds}
        if jointly:
            of_batch = batch[BATCH_KEY].ravel() if BATCH_KEY in batch else None
            z = self.module.embed_jointly(counts, present, of_batch).float()
        else:
            z = self.module.embed_modality(counts[kinds[0]], kinds[0], present[kinds[0]]).float()
        masks = [mask for mask in present.values() if mask is not None]
        if len(masks) == len(kinds):  # else every cell has the modality without a mask
            z = z.masked_fill(~torch.stack(masks).any(0)[:, None], torch.nan)
        return z
