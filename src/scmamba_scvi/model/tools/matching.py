"""Which cell of another modality is the true match of a cell, or the nearest to it?"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy.optimize import linear_sum_assignment

from ..._arguments import check_count
from ..._compat import warn
from ...errors import ScmambaError
from ..fitting.calibration import match_temperature, warn_of_uncalibrated
from ..inputs.manager import MultiModalManager
from .cells import check_reference, kind_of, only_kind, other_kind, registered, warn_of_unread
from .embedding import EmbeddingMixin, ModalityEmbedding
from .retrieval import nearest_references

#: Pairs that an assignment is made among: scipy takes 20 bytes for each, 2 GB for 10,000 cells on each side.
MAX_PAIRS: Final = 10_000**2


@dataclass(frozen=True, repr=False)
class CellMatches:
    """The ``k`` best references of each query cell, best first; ``n`` query cells, ``m`` reference cells.

    Examples
    --------
    >>> found = model.match_cells(k=2)
    >>> found.scores.shape
    (300, 2)
    >>> bool((found.scores[:, 0] >= found.scores[:, 1]).all())
    True
    """

    #: ``(n,)`` names of all query cells, in their order.
    query_names: pd.Index
    #: ``(m,)`` names of all reference cells, in their order.
    reference_names: pd.Index
    #: ``(n, k)`` int64 positions in ``reference_names``; -1 for query cells that lack the modality.
    indices: np.ndarray
    #: ``(n, k)`` float32 cosines of the two embeddings, NaN for query cells that lack the modality.
    scores: np.ndarray
    #: ``(n, k)`` float32 probability that this is the true match, given that the true match is among the references.
    confidence: np.ndarray
    #: ``(n,)`` int64 positions of a one-to-one assignment, -1 for cells that got none; `None` if it was not asked for.
    assignment: np.ndarray | None = None

    def __repr__(self) -> str:
        n, k = self.indices.shape
        one_to_one = "" if self.assignment is None else ", and one-to-one by to_series()"
        return f"CellMatches: the {k} best of {len(self.reference_names):,} cells for each of {n:,}, by to_frame(){one_to_one}"

    def to_frame(self) -> pd.DataFrame:
        """All matches as a table.

        Returns
        -------
        One row per query cell and rank, ``n * k`` rows: the names ``query`` and ``reference`` (`None` if the query cell
        lacks the modality), ``rank`` from 1, ``score`` and ``confidence``.

        Examples
        --------
        >>> model.match_cells(k=2).to_frame()["rank"].tolist()[:4]
        [1, 2, 1, 2]
        """
        n, k = self.indices.shape
        return pd.DataFrame({
            "query": np.repeat(self.query_names.to_numpy(), k), "rank": np.tile(np.arange(1, k + 1), n),
            "reference": self._names_at(self.indices).ravel(), "score": self.scores.ravel(),
            "confidence": self.confidence.ravel(),
        })  # fmt: skip

    def to_series(self) -> pd.Series:
        """Reference that the one-to-one assignment gives each query cell.

        Returns
        -------
        ``(n,)`` names of references, `None` where the assignment gives none, indexed by the names of the query cells.

        Raises
        ------
        ScmambaError
            The cells were matched without ``one_to_one=True``.

        Examples
        --------
        >>> model.match_cells(one_to_one=True).to_series().is_unique
        True
        """
        if self.assignment is None:
            raise ScmambaError("No one-to-one assignment was asked for: match_cells(..., one_to_one=True).")
        return pd.Series(self._names_at(self.assignment), index=self.query_names, name="assignment", dtype=object)

    def _names_at(self, positions: np.ndarray) -> np.ndarray:
        """Names of references, `None` at position -1."""
        return np.array([*self.reference_names, None], dtype=object)[positions]


class MatchingMixin(EmbeddingMixin):
    """`match_cells`."""

    def match_cells(
        self,
        adata: MuData | AnnData | None = None,
        reference: MuData | AnnData | None = None,
        *,
        query_modality: str | None = None,
        reference_modality: str | None = None,
        k: int = 10,
        one_to_one: bool = False,
        batch_size: int | None = None,
    ) -> CellMatches:
        """Find for each cell of one modality the nearest cells of another, in the space that modalities share.

        The search is exact. Memory is that of the embeddings, of the result and of a block of a million cosines: a laptop
        can search for 100,000 cells among 100,000.

        Parameters
        ----------
        adata, reference
            Query cells and the cells to search: MuData, or AnnData of the modality in question. `None`: the MuData of the
            model. Cells may come in any order, and the two need not share a cell.
        query_modality, reference_modality
            Kind, or key of ``mdata.mod``. `None`: the only one that these cells have, as of an AnnData, and of a model of two
            modalities the other one; if both are open, the earlier of RNA, accessibility, protein is the query. Of a model
            of three, name them.
        k
            References per query cell; 10, as in the recall that training reports.
        one_to_one
            Also give each query cell one reference that no other query cell gets, ``CellMatches.assignment``: the
            assignment with the largest sum of cosines [Crouse16]_. With more queries than references, some queries get
            none. It needs all cosines at once: 10,000 cells on each side take 2 GB, and more pairs are refused.
        batch_size
            Cells of a minibatch while embedding; changes speed only.

        Returns
        -------
        Names, positions, cosines and confidence for all query cells, in their order. Query cells without the modality
        have index -1 and NaN, with one warning. The confidence is ``exp(cosine / t)`` divided by its sum over all
        references, with the ``t`` that is most likely for the pairs that training held out: the probability that this
        reference is the true match *if the true match is among the references at all*. Its sum over the ``k`` ranks
        estimates the recall at ``k``, most often a little below it. A model that held out fewer than 10 pairs takes the
        temperature of its loss, with a warning.

        Raises
        ------
        ScmambaError
            A modality is unknown, missing, named twice or has to be named; ``k`` is not between 1 and the reference cells;
            there are too many pairs for ``one_to_one``; the model is not trained.

        References
        ----------
        .. [Crouse16] Crouse, On implementing 2D rectangular assignment algorithms, IEEE Transactions on Aerospace and
           Electronic Systems 2016.

        Examples
        --------
        >>> found = model.match_cells(mdata["rna"][:5], mdata["atac"], k=3)
        >>> found.to_frame().columns.tolist()
        ['query', 'rank', 'reference', 'score', 'confidence']
        """
        data, query_kind, searched, reference_kind = self._data_to_match(
            adata, reference, query_modality, reference_modality
        )
        if query_modality is None:
            warn_of_unread(self, data.adata)
        queries = self._embed_modality(data, query_kind, batch_size)
        if reference_modality is None:
            warn_of_unread(self, searched.adata)
        references = self._embed_modality(searched, reference_kind, batch_size)
        check_k(k, references, reference_kind)
        temperature = match_temperature(self, query_kind, reference_kind)
        warn_of_uncalibrated(self, [(query_kind, reference_kind)], "confidence")
        if not queries.has.all():
            warn(f"{(~queries.has).sum():,} of {len(queries.has):,} cells lack {query_kind}: they have no match.")
        assignment = assign(queries.z, references.z) if one_to_one else None  # refuses too many pairs before the search
        best = nearest_references(queries.z, references.z, k, temperature, device=self.module.device)
        # the search counts only cells that have the modality, results count all of them; the last entry is for -1
        position = np.append(np.flatnonzero(references.has), -1)
        row = np.where(queries.has, np.cumsum(queries.has) - 1, -1)

        def of_all(values: np.ndarray, fill: float) -> np.ndarray:
            return np.concatenate([values, np.full((1, *values.shape[1:]), fill, values.dtype)])[row]

        return CellMatches(
            queries.names, references.names, of_all(position[best.indices], -1), of_all(best.cosine, np.nan),
            of_all(best.confidence, np.nan),
            None if assignment is None else of_all(position[assignment], -1),
        )  # fmt: skip

    def _data_to_match(
        self,
        adata: MuData | AnnData | None,
        reference: MuData | AnnData | None,
        query_modality: str | None,
        reference_modality: str | None,
    ) -> tuple[MultiModalManager, str, MultiModalManager, str]:
        """Query cells and cells to search, each with their kind: as named, the only one that they have, or the other one."""
        query_kind = kind_of(self, query_modality, "query_modality")
        reference_kind = kind_of(self, reference_modality, "reference_modality")
        data = registered(self, adata, query_kind)
        searched = data if reference is adata else registered(self, reference, reference_kind, "reference")
        query_kind, reference_kind = query_kind or only_kind(self, data), reference_kind or only_kind(self, searched)
        if query_kind is None and reference_kind is None and len(self.kinds) > 2:
            raise ScmambaError(
                f"Which modalities? Name two of {[*self.kinds]}: match_cells(query_modality=..., reference_modality=...)."
            )
        reference_kind = reference_kind or other_kind(self, [query_kind], "reference_modality")
        query_kind = query_kind or other_kind(self, [reference_kind], "query_modality")
        check_reference(self, searched, reference_kind)
        if query_kind == reference_kind:
            if len(self.kinds) == 2:
                check_reference(self, searched, other_kind(self, [query_kind], "reference_modality"))
            raise ScmambaError(
                f"Cells are matched across modalities, and both are {query_kind}: name two of {[*self.kinds]}."
            )
        return data, query_kind, searched, reference_kind


def check_k(k: int, references: ModalityEmbedding, kind: str) -> None:
    """At most as many neighbours as there are references."""
    check_count("k", k)
    if k > len(references.z):
        raise ScmambaError(
            f"k must be between 1 and the {len(references.z):,} reference cells that have {kind}; got {k}."
        )


def assign(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Reference of each query, none twice, with the largest sum of cosines: ``(n,)`` int64, -1 where none is left."""
    if len(queries) * len(references) > MAX_PAIRS:
        raise ScmambaError(
            f"one_to_one=True compares all cells at once, at most {MAX_PAIRS:,} pairs, and {len(queries):,} times "
            f"{len(references):,} are more: match the cells of one type or sample at a time, or take the nearest, to_frame()."
        )
    out = np.full(len(queries), -1, dtype=np.int64)
    of_query, of_reference = linear_sum_assignment(queries @ references.T, maximize=True)
    out[of_query] = of_reference
    return out
