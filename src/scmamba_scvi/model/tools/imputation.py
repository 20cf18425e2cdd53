"""Values of a modality that a cell lacks, averaged over its nearest cells that were measured in it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from scipy.special import softmax

from ...errors import ScmambaError, UnknownNameError
from ...ops.csr import is_csr
from ...pp import value_transform
from ..fitting.calibration import match_temperature
from ..inputs.arguments import check_count, near
from ..inputs.manager import MultiModalManager
from ..inputs.matrices import in_parts
from .cells import ModalityEmbedding, as_mudata, embed_modality, kind_of
from .embedding import EmbeddingMixin
from .matching import check_k
from .retrieval import nearest_references

#: What can be averaged: transforms that read each cell by itself, so that nothing has to be learned for them.
CHOICES: Final = ("log1p", "binary", "clr", "raw")
#: What is averaged unless the user chooses: the usual values of each kind.
DEFAULT_VALUES: Final = {"rna": "log1p", "atac": "binary", "protein": "clr"}
#: Weights are `exp(cosine / (SOFTNESS * t))`, with the temperature of matches: an average gains from more cells than the
#: likely partners; 2 was best or within a hundredth of it on two real and two simulated sets.
SOFTNESS: Final = 2.0


class ImputationMixin(EmbeddingMixin):
    """`impute` and `impute_blocks`."""

    def impute(
        self,
        adata: MuData | AnnData | None = None,
        modality: str = "atac",
        features: Sequence[str] | None = None,
        k: int = 50,
        *,
        reference: MuData | AnnData | None = None,
        values: str | None = None,
        batch_size: int | None = None,
    ) -> AnnData:
        """Values of another modality for chosen features, averaged over a cell's neighbours that were measured in it.

        The mean of a cell's views, without that of ``modality``, is compared with the reference cells' views of
        ``modality``, so references need no other modality. Neighbours are weighted by ``exp(cosine / 2 t)``, with the
        temperature ``t`` of :meth:`match_cells`. A cell is never its own neighbour: a reference cell of the same name is
        left out.

        Parameters
        ----------
        adata
            Cells to impute for. `None`: those of the model.
        modality
            What to impute: kind, or key of ``mdata.mod``.
        features
            Names from ``var`` of that modality, in the order wanted. `None`: all, for proteins only; for all genes or
            peaks there is :meth:`impute_blocks`, as cells times peaks would not fit into memory.
        k
            Neighbours per cell; with fewer, values follow the cell's state more closely and are noisier.
        reference
            Measured cells to average. `None`: those of the model.
        values
            What is averaged: ``"log1p"`` (counts per 10,000, ``log(1 + x)``; default of RNA), ``"binary"`` (1 where
            something was counted, so the result is a share of cells; default of accessibility), ``"clr"`` (centred
            log-ratio; default of protein) or ``"raw"`` (counts).
        batch_size
            Cells of a minibatch; changes speed only.

        Returns
        -------
        AnnData ``(n_cells, n_features)`` in float32, CSR where the reference is sparse (dense for ``"clr"``), cells in
        the order of ``adata`` and ``var`` as in the reference. Cells that have no other modality are NaN, with one
        warning.

        Raises
        ------
        ScmambaError
            Names of features are missing, unknown or repeated; the model or the data lack the modality; ``values`` is
            unknown; or there are fewer than ``k`` reference cells besides the cell itself.

        Examples
        --------
        >>> peaks = model.impute(mdata["rna"][:5], modality="atac", features=mdata["atac"].var_names[:4])
        >>> peaks.shape
        (5, 4)
        """
        kind = kind_of(self, modality)
        names = self._features_to_impute(kind, features)
        (found,) = self._imputed(adata, kind, [names], k, reference, values, batch_size)
        return found

    def impute_blocks(
        self,
        block_size: int,
        adata: MuData | AnnData | None = None,
        modality: str = "atac",
        k: int = 50,
        *,
        reference: MuData | AnnData | None = None,
        values: str | None = None,
        batch_size: int | None = None,
    ) -> Iterator[AnnData]:
        """As :meth:`impute` for all features, ``block_size`` of them at a time, in the order of the model.

        Neighbours are searched once; the counts of the reference are read once per block.

        Yields
        ------
        AnnData ``(n_cells, block_size)``; the last one has the remaining features.

        Examples
        --------
        >>> [part.shape for part in model.impute_blocks(600, mdata["rna"][:5], modality="atac")]
        [(5, 600), (5, 400)]
        """
        kind = kind_of(self, modality)
        check_count("block_size", block_size)
        blocks = list(in_parts(self.feature_names(kind), block_size))
        yield from self._imputed(adata, kind, blocks, k, reference, values, batch_size)

    def _features_to_impute(self, kind: str, features: Sequence[str] | None) -> np.ndarray:
        known = pd.Index(self.feature_names(kind))
        if features is None:
            if kind == "protein":
                return known.to_numpy()
            raise ScmambaError(
                f"Name the features of {kind} to impute, features=[...], or take all {len(known):,} in parts: "
                f"for part in model.impute_blocks(1000, modality={kind!r}): ..."
            )
        names = pd.Index([features] if isinstance(features, str) else features)
        unknown = names.difference(known, sort=False)
        if len(unknown):
            raise UnknownNameError(
                f"feature of {kind} ({len(unknown):,} of {len(names):,})", unknown[0], near(unknown[0], known)
            )
        if not len(names):
            raise ScmambaError("features is empty: name the features to impute.")
        if names.has_duplicates:
            raise ScmambaError(f"features names {names[names.duplicated()][0]!r} twice: name each feature once.")
        return names.to_numpy()

    def _imputed(
        self,
        adata: MuData | AnnData | None,
        kind: str,
        blocks: Sequence[np.ndarray],
        k: int,
        reference: MuData | AnnData | None,
        values: str | None,
        batch_size: int | None,
    ) -> Iterator[AnnData]:
        """One AnnData for each block of feature names; the neighbours are those of all blocks."""
        values = DEFAULT_VALUES[kind] if values is None else values
        if values not in CHOICES:
            raise UnknownNameError("values", values, CHOICES)
        with as_mudata(self, adata) as mdata:
            queries, temperature = self._views_of_others(mdata, kind, batch_size)
            obs = mdata.obs[[]].copy()
        with as_mudata(self, reference, kind, "reference") as mdata:
            references = embed_modality(self, mdata, kind, batch_size)
            weights, used = _weights(queries, references, k, kind, SOFTNESS * temperature, self.module.device)
            manager = self.get_anndata_manager(mdata, required=True)
            var = mdata.mod[self.kinds[kind]].var
            for names in blocks:
                averaged = weights @ _values(manager, kind, used, names, values)
                yield AnnData(_with_missing(averaged, queries.has), obs=obs.copy(), var=var.loc[names].copy())

    def _views_of_others(self, mdata: MuData, kind: str, batch_size: int | None) -> tuple[ModalityEmbedding, float]:
        """Mean of each cell's views of all modalities but ``kind``, as a unit vector, and the temperature to match with."""
        others = [other for other in self.kinds if other != kind and self.kinds[other] in mdata.mod]
        if not others:
            raise ScmambaError(
                f"The cells have nothing but {kind} to impute {kind} from; the model knows {list(self.kinds)}."
            )
        found = [embed_modality(self, mdata, other, batch_size) for other in others]
        total = np.zeros((mdata.n_obs, self.config.n_latent), dtype=np.float32)
        for view in found:
            total[view.has] += view.z
        has = np.any([view.has for view in found], axis=0)
        if not has.all():
            warnings.warn(
                f"{int((~has).sum()):,} of {len(has):,} cells have none of {others}: their imputed {kind} is NaN.",
                UserWarning, stacklevel=4,
            )  # fmt: skip
        z = total[has] / np.maximum(np.linalg.norm(total[has], axis=1, keepdims=True), 1e-12)
        temperature = float(np.mean([match_temperature(self, other, kind)[0] for other in others]))
        return ModalityEmbedding(mdata.obs_names, has, z), temperature


def _weights(
    queries: ModalityEmbedding,
    references: ModalityEmbedding,
    k: int,
    kind: str,
    temperature: float,
    device: str | torch.device,
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Weights ``(n, u)`` of the ``u`` reference cells that are a neighbour of any cell, 1 in sum per cell; their positions."""
    check_k(k, references, kind)
    names = references.names[references.has]
    itself = names.get_indexer(queries.names[queries.has])
    if k == len(names) and (itself >= 0).any():
        raise ScmambaError(
            f"k={k} neighbours besides the cell itself need {k + 1:,} cells with {kind}: choose a smaller k."
        )
    best = nearest_references(queries.z, references.z, k, temperature, itself, device)
    weight = softmax(best.cosine / temperature, axis=1)
    used, column = np.unique(best.indices, return_inverse=True)
    start = np.arange(0, best.indices.size + 1, k)
    shape = (len(best.indices), len(used))
    matrix = sparse.csr_matrix((weight.ravel(), column.ravel(), start), shape=shape)
    return matrix, np.flatnonzero(references.has)[used]


def _values(
    manager: MultiModalManager, kind: str, cells: np.ndarray, names: np.ndarray, values: str
) -> sparse.csr_matrix | np.ndarray:
    """Values ``(u, f)`` of the features ``names``; 1,024 cells at a time are in memory with all their features."""
    matrix = manager.matrix(kind)
    transform = value_transform(values, matrix.n_features)
    columns = pd.Index(manager.feature_names(kind)).get_indexer(names)
    parts = []
    for part in in_parts(cells, 1024):
        x = transform(matrix.read(part))
        if is_csr(x):
            arrays = (x.values().numpy(), x.col_indices().numpy(), x.crow_indices().numpy())
            parts.append(sparse.csr_matrix(arrays, shape=x.shape)[:, columns])
        else:
            parts.append(x.numpy()[:, columns])
    return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)


def _with_missing(values: sparse.csr_matrix | np.ndarray, has: np.ndarray) -> sparse.csr_matrix | np.ndarray:
    """``values (m, f)`` at the ``m`` cells that have any, NaN at the others: ``(n, f)`` in float32."""
    if not sparse.issparse(values):
        out = np.full((len(has), values.shape[1]), np.nan, dtype=np.float32)
        out[has] = values
        return out
    values = values.astype(np.float32).tocsr()
    if has.all():
        return values
    nan = sparse.csr_matrix(np.full((1, values.shape[1]), np.nan, dtype=np.float32))
    return sparse.vstack([values, nan], format="csr")[np.where(has, np.cumsum(has) - 1, values.shape[0])]
