"""Values of a modality that a cell lacks, averaged over its nearest cells that were measured in it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import torch
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from scipy.special import softmax
from torch import Tensor

from ..._arguments import check_count
from ..._compat import warn
from ...errors import ScmambaError, UnknownNameError
from ...ops.csr import is_csr, stored
from ...pp import value_transform
from ..fitting.calibration import match_temperature
from ..fitting.initialization import check_logarithms
from ..inputs.arguments import feature_positions
from ..inputs.kinds import kinds_in
from ..inputs.manager import MultiModalManager
from ..inputs.matrices import ModalityMatrix, in_parts
from .cells import check_reference, kind_of, only_kind, other_kind, registered, warn_of_unread
from .embedding import EmbeddingMixin, ModalityEmbedding
from .matching import check_k
from .retrieval import nearest_references

#: What can be averaged: transforms that read each cell by itself, so that nothing has to be learned for them.
CHOICES: Final = ("log1p", "binary", "clr", "raw")
#: What is averaged unless the user chooses, or the model reads the values as they are: the usual values of each kind.
DEFAULT_VALUES: Final = {"rna": "log1p", "atac": "binary", "protein": "clr"}
#: Weights are `exp(cosine / (SOFTNESS * t))`, with the temperature of matches: an average gains from more cells than the
#: likely matches; 2 was best or within a hundredth of it on two real and two simulated sets.
SOFTNESS: Final = 2.0


class ImputationMixin(EmbeddingMixin):
    """`impute` and `impute_blocks`."""

    def impute(
        self,
        adata: MuData | AnnData | None = None,
        *,
        modality: str | None = None,
        features: Sequence[str] | None = None,
        k: int = 50,
        reference: MuData | AnnData | None = None,
        values: str | None = None,
        batch_size: int | None = None,
    ) -> AnnData:
        """Values of another modality for chosen features, averaged over a cell's neighbours that were measured in it.

        The mean of a cell's embeddings of its other modalities is compared with the reference cells' embeddings of
        ``modality``, so references need no other modality. Neighbours are weighted by ``exp(cosine / 2 t)``, with the
        temperature ``t`` of :meth:`match_cells`. A cell is never its own neighbour: a reference cell of the same name is
        left out.

        Parameters
        ----------
        adata
            Cells to impute for: MuData, or AnnData of another modality. `None`: those of the model.
        modality
            What to impute: kind, or key of ``mdata.mod``. `None`: the only one of ``reference``, as of an AnnData, else the one
            that ``adata`` lacks; of two that it has, the later of RNA, accessibility, protein. Of three, name it.
        features
            Names from ``var`` of that modality, in the order wanted. `None`: all, for proteins only; for all genes or
            peaks there is :meth:`impute_blocks`, as cells times peaks would not fit into memory.
        k
            Neighbours per cell; with fewer, values follow the cell's state more closely and are noisier.
        reference
            Measured cells to average: MuData, or AnnData of ``modality``. `None`: those of the model.
        values
            What is averaged: ``"log1p"`` (counts per 10,000, ``log(1 + x)``; default of RNA), ``"binary"`` (1 where
            something was counted, so the result is a fraction of cells; default of accessibility), ``"clr"`` (centred
            log-ratio; default of protein) or ``"raw"`` (as they are; default of what the model was made to read so,
            ``SCMAMBA(mdata, values={"rna": "raw"})``).
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
            Features are missing, unknown or repeated; the model or the data lack the modality; there are fewer than ``k``
            reference cells besides the cell itself; ``values`` are logarithms and the reference has negative values; or the
            model is not trained.

        Examples
        --------
        >>> rna, wanted = mdata["rna"][:5], mdata["atac"].var_names[:4]
        >>> peaks = model.impute(rna, modality="atac", features=wanted)
        >>> peaks.shape
        (5, 4)
        """
        data = self._data_to_impute(adata, reference, modality)
        kind = data[-1]
        known = self.feature_names(kind)
        if features is None:
            if kind != "protein":
                passed = [*([] if adata is None else ["adata"]), f"modality={kind!r}"]
                passed += [] if reference is None else ["reference=reference"]
                raise ScmambaError(
                    f"Name the features of {kind} to impute, features=[...], or take all {len(known):,} in parts: "
                    f"for part in model.impute_blocks({', '.join(passed)}): ..."
                )
            columns = np.arange(len(known))
        else:
            columns = feature_positions(known, features, f"feature of {kind}", "features")
        return self._imputer(*data, k, values, batch_size)(columns)

    def impute_blocks(
        self,
        adata: MuData | AnnData | None = None,
        *,
        block_size: int = 1000,
        modality: str | None = None,
        k: int = 50,
        reference: MuData | AnnData | None = None,
        values: str | None = None,
        batch_size: int | None = None,
    ) -> Iterator[AnnData]:
        """As :meth:`impute` for all features, ``block_size`` of them at a time, in the order of the model.

        Arguments are checked and neighbours are searched when it is called; the counts of the reference are read once per
        block.

        Parameters
        ----------
        adata, modality, k, reference, values, batch_size
            As in :meth:`impute`.
        block_size
            Features of a block. Cells times features of one block are in memory at a time: 400 MB for 100,000 cells and
            1,000 features, less where they are sparse.

        Returns
        -------
        Iterator of AnnData ``(n_cells, block_size)``, as :meth:`impute` returns; the last one has the remaining features.

        Raises
        ------
        ScmambaError
            As :meth:`impute`, or ``block_size`` is not a whole number above 0.

        Examples
        --------
        >>> rna = mdata["rna"][:5]
        >>> blocks = model.impute_blocks(rna, block_size=600, modality="atac")
        >>> [part.shape for part in blocks]
        [(5, 600), (5, 400)]
        """
        check_count("block_size", block_size)
        data = self._data_to_impute(adata, reference, modality)
        impute = self._imputer(*data, k, values, batch_size)
        return (impute(columns) for columns in in_parts(np.arange(len(self.feature_names(data[-1]))), block_size))

    def _data_to_impute(
        self, adata: MuData | AnnData | None, reference: MuData | AnnData | None, modality: str | None
    ) -> tuple[MultiModalManager, MultiModalManager, str]:
        """Cells to impute for, measured ones, and the kind: as named, as the reference is, or what the cells lack."""
        kind = kind_of(self, modality)
        data, measured = registered(self, adata), registered(self, reference, kind, "reference")
        if reference is not None:
            kind = kind or only_kind(self, measured)
        kind = kind or other_kind(self, kinds_in(data.adata, self.kinds), "modality")
        check_reference(self, measured, kind)
        return data, measured, kind

    def _imputer(
        self,
        data: MultiModalManager,
        measured: MultiModalManager,
        kind: str,
        k: int,
        values: str | None,
        batch_size: int | None,
    ) -> Callable[[np.ndarray], AnnData]:
        """Function from positions of features to their imputed values; everything is checked and neighbours are found."""
        if values is None:
            values = "raw" if self.config.of_kind("values", kind) == "raw" else DEFAULT_VALUES[kind]
        if values not in CHOICES:
            raise UnknownNameError("values", values, CHOICES)
        queries, temperature = self._embed_others(data, kind, batch_size)
        obs = data.adata.obs[[]].copy()
        references = self._embed_modality(measured, kind, batch_size)
        matrix, var = measured.matrix(kind), measured.modality(kind).var.loc[self.feature_names(kind)]
        weights, used = _weights(queries, references, k, kind, SOFTNESS * temperature, self.module.device)
        if not measured.requires_counts:
            check_logarithms(
                matrix, used, kind, values, "average those of the reference as they are, pass values='raw'"
            )
        transform = value_transform(values, matrix.n_features)
        seen: set[tuple[float, ...]] = set()

        def impute(columns: np.ndarray) -> AnnData:
            chosen, sums = _read(matrix, used, columns, transform)
            seen.add(sums)
            if len(seen) > 1:
                raise ScmambaError(
                    f"The values of {kind} in the reference were changed between two blocks, which do not fit each other. "
                    f"Begin again, impute_blocks(...), and change them after the last block."
                )
            averaged = weights @ chosen
            return AnnData(_with_missing(averaged, queries.has), obs=obs.copy(), var=var.iloc[columns].copy())

        return impute

    def _embed_others(
        self, data: MultiModalManager, kind: str, batch_size: int | None
    ) -> tuple[ModalityEmbedding, float]:
        """Mean of each cell's embeddings of all modalities but ``kind``, of length 1; the temperature to match with."""
        mdata = data.adata
        warn_of_unread(self, mdata, but=[kind])
        others = [other for other in kinds_in(mdata, self.kinds) if other != kind]
        if not others:
            raise ScmambaError(
                f"The cells have nothing but {kind} to impute {kind} from; the model knows {list(self.kinds)}."
            )
        total, has = np.zeros((mdata.n_obs, self.config.n_latent), dtype=np.float32), np.zeros(mdata.n_obs, dtype=bool)
        for other in others:
            found = self._embed_modality(data, other, batch_size)
            total[found.has] += found.z
            has |= found.has
        if not has.all():
            warn(f"{int((~has).sum()):,} of {len(has):,} cells have none of {others}: their imputed {kind} is NaN.")
        z = total[has] / np.maximum(np.linalg.norm(total[has], axis=1, keepdims=True), 1e-12)
        temperature = float(np.mean([match_temperature(self, other, kind) for other in others]))
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
    row_starts = np.arange(0, best.indices.size + 1, k)
    matrix = sparse.csr_matrix((weight.ravel(), column.ravel(), row_starts), shape=(len(queries.z), len(used)))
    return matrix, np.flatnonzero(references.has)[used]


def _read(
    matrix: ModalityMatrix, cells: np.ndarray, columns: np.ndarray, transform: Callable[[Tensor], Tensor]
) -> tuple[sparse.csr_matrix | np.ndarray, tuple[float, ...]]:
    """Values ``(u, f)`` of some features, and sums over all features as stored, which tell whether these were changed."""
    parts, sums = [], []
    for part in np.array_split(cells, len(cells) // 1024 + 1):  # one part at least; in memory with all features
        x = matrix.read(part)
        sums.append(float(stored(x).numpy().sum(dtype=np.float64)))
        x = transform(x)
        if is_csr(x):
            arrays = (x.values().numpy(), x.col_indices().numpy(), x.crow_indices().numpy())
            parts.append(sparse.csr_matrix(arrays, shape=x.shape)[:, columns])
        else:
            parts.append(x.numpy()[:, columns])
    return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts), tuple(sums)


def _with_missing(values: sparse.csr_matrix | np.ndarray, has: np.ndarray) -> sparse.csr_matrix | np.ndarray:
    """``values (m, f)`` at the ``m`` cells that have any, NaN at the others: ``(n, f)`` in float32."""
    values = values.astype(np.float32)
    if has.all():
        return values
    missing = np.full((1, values.shape[1]), np.nan, dtype=np.float32)
    is_sparse = sparse.issparse(values)
    padded = sparse.vstack([values, sparse.csr_matrix(missing)], "csr") if is_sparse else np.vstack([values, missing])
    return padded[np.where(has, np.cumsum(has) - 1, values.shape[0])]
