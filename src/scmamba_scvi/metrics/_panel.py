"""The scores that :func:`~scmamba_scvi.metrics.evaluate_integration` knows, and what each is computed on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, TypedDict

import numpy as np
import pandas as pd
import torch

from ..errors import ScmambaError
from ._cell_types import graph_connectivity, knn_accuracy, mean_average_precision
from ._clusters import LeidenScores, leiden_ari_nmi
from ._matching import PartnerRanks, modality_gap, partner_ranks
from ._matching_score import matching_score
from ._mixing import omics_entropy_mixing, seurat_alignment
from ._silhouette import cell_type_asw, omics_asw

#: What the data must have for a score.
Need: TypeAlias = Literal["labels", "batches", "views", "pairs"]
BioOn: TypeAlias = Literal["joint", "views"]

#: Up to this many rows the neighbours of all of them are searched; above, those of `N_QUERIES` drawn at random, still
#: among all. This estimates the same number in a time that does not grow with the square of the rows.
ALL_QUERIES_UP_TO: Final = 50_000
N_QUERIES: Final = 20_000


class Common(TypedDict):
    """Arguments common to nearly all scores."""

    random_state: int
    device: str | torch.device | None


@dataclass(frozen=True)
class Points:
    """Rows of an embedding and the cell that each belongs to.

    ``x`` is ``(m, z)``, all finite; ``cell`` ``(m,)`` the position of each row's cell; ``layer`` ``(m,)`` its modality.
    """

    x: np.ndarray
    cell: np.ndarray
    layer: np.ndarray

    def where(self, known: np.ndarray) -> Points:
        """The rows of the cells for which ``known`` ``(n,)`` is true."""
        kept = known[self.cell]
        return Points(self.x[kept], self.cell[kept], self.layer[kept])

    @property
    def max_queries(self) -> int | None:
        """Rows whose neighbours are searched; ``None`` for all."""
        return _max_queries(len(self.x))


class Embedded:
    """One method's embeddings of ``n`` cells, with what several scores share computed once.

    Parameters
    ----------
    joint
        ``(n, z)``, a row of NaN for a cell without embedding; ``None`` if there is none.
    views
        The same for each modality.
    labels, batches
        Objects ``(n,)``, ``None`` where missing, which may be everywhere.
    paired
        Whether row ``i`` of two views is the same cell.
    bio_on
        Embedding for scores of cell types and batches, if there are both.
    """

    def __init__(
        self,
        joint: np.ndarray | None,
        views: dict[str, np.ndarray],
        labels: np.ndarray,
        batches: np.ndarray,
        *,
        paired: bool = True,
        bio_on: BioOn = "joint",
        random_state: int = 0,
        device: str | torch.device | None = None,
    ) -> None:
        self._joint, self._views, self._paired, self._bio_on = joint, views, paired, bio_on
        self.labels, self.batches = labels, batches
        self._has_label, self._has_batch = pd.notna(labels), pd.notna(batches)
        self.common = Common(random_state=random_state, device=device)

    @property
    def has(self) -> set[Need]:
        """Which of the things that scores may need are there."""
        there: dict[Need, bool] = {
            "labels": bool(self._has_label.any()),
            "batches": bool(self._has_batch.any()),
            "views": len(self._views) > 1,
            "pairs": self._paired and bool(self.pairs),
        }
        return {need for need, is_there in there.items() if is_there}

    @cached_property
    def stacked(self) -> Points:
        """The embeddings of all modalities, one below the other."""
        rows = {name: _finite(x) for name, x in self._views.items()}
        return Points(
            np.concatenate([x[rows[name]] for name, x in self._views.items()]),
            np.concatenate(list(rows.values())),
            np.repeat(np.array(list(rows), dtype=object), [len(r) for r in rows.values()]),
        )

    @cached_property
    def cells(self) -> Points:
        """The embedding for scores of cell types and batches: joint or stacked, see ``bio_on``."""
        if self._joint is None or (self._bio_on == "views" and self._views):
            return self.stacked
        rows = _finite(self._joint)
        return Points(self._joint[rows], rows, np.full(len(rows), "joint", dtype=object))

    def labelled(self, points: Points) -> tuple[Points, np.ndarray]:
        """The points whose cell has a label, and their labels."""
        points = points.where(self._has_label)
        return points, self.labels[points.cell]

    @cached_property
    def in_batches(self) -> tuple[Points, np.ndarray]:
        """The cells whose batch is known, and their batches."""
        points = self.cells.where(self._has_batch)
        return points, self.batches[points.cell]

    @cached_property
    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each two modalities that share at least two cells, their embeddings of these cells."""
        both = []
        for x, y in itertools.combinations(self._views.values(), 2):
            rows = np.intersect1d(_finite(x), _finite(y), assume_unique=True)
            both += [(x[rows], y[rows])] if len(rows) > 1 else []
        return both

    @cached_property
    def gaps(self) -> list[float]:
        """Distance between the centres of every two modalities."""
        parts = [x[_finite(x)] for x in self._views.values()]
        return [modality_gap(x, y) for x, y in itertools.combinations(parts, 2)]

    @cached_property
    def ranks(self) -> list[PartnerRanks]:
        """One pass over the distances of every two modalities, from which all scores of partners follow."""
        found = []
        for x, y in self.pairs:
            found.append(partner_ranks(x, y, max_queries=_max_queries(len(x)), **self.common))
        return found

    @cached_property
    def leiden(self) -> LeidenScores:
        """One graph and one sweep over resolutions for both ARI and NMI."""
        points, labels = self.labelled(self.cells)
        return leiden_ari_nmi(points.x, labels, **self.common)


def _max_queries(n: int) -> int | None:
    return None if n <= ALL_QUERIES_UP_TO else N_QUERIES


def _finite(x: np.ndarray) -> np.ndarray:
    """Positions of the rows that hold an embedding."""
    return np.flatnonzero(np.isfinite(x).all(axis=1))


# -- the scores that need more than a line ------------------------------------------------------------------------


def _of_cell_types(function: Callable[..., float]) -> Callable[[Embedded], float]:
    """Apply a function of an embedding and its cell types to the labelled cells."""

    def score(e: Embedded) -> float:
        points, labels = e.labelled(e.cells)
        return function(points.x, labels, max_queries=points.max_queries, **e.common)

    return score


def _graph_connectivity(e: Embedded) -> float:
    points, labels = e.labelled(e.stacked)
    return graph_connectivity(points.x, labels, **e.common)


def _omics_asw(e: Embedded) -> float:
    points, labels = e.labelled(e.stacked)
    return omics_asw(points.x, points.layer, labels, device=e.common["device"])


def _mixing(e: Embedded, points: Points, layer: np.ndarray) -> float:
    """Entropy among 100 neighbours, or among a tenth of few rows, since neighbours must be near."""
    k = min(100, len(points.x) // 10)
    if k < 1:
        raise ScmambaError(f"{len(points.x)} rows are too few for neighbourhoods; at least 10 are needed.")
    return omics_entropy_mixing(points.x, layer, n_neighbors=k, n_samples=points.max_queries, n_pools=1, **e.common)


def _alignment(e: Embedded) -> float:
    points = e.stacked
    return seurat_alignment(points.x, points.layer, max_queries=points.max_queries, **e.common)


def _batch_asw(e: Embedded) -> float:
    points, labels = e.labelled(e.in_batches[0])
    return omics_asw(points.x, e.batches[points.cell], labels, device=e.common["device"])


def _recall(k: int) -> Callable[[Embedded], float]:
    def score(e: Embedded) -> float:
        fewest = min(ranks.n_candidates for ranks in e.ranks)
        if fewest <= k:
            raise ScmambaError(f"of {fewest} cells each is among the {k} nearest")
        return float(np.mean([ranks.recall(k)[0] for ranks in e.ranks]))

    return score


def _foscttm(e: Embedded) -> float:
    return float(np.mean([np.mean(ranks.fractions) for ranks in e.ranks]))


def _median_rank(e: Embedded) -> float:
    return float(np.mean([(ranks.median - 1) / (ranks.n_candidates - 1) for ranks in e.ranks]))


def _matching_score(e: Embedded) -> float:
    return float(np.mean([matching_score(x, y, **e.common) for x, y in e.pairs]))


@dataclass(frozen=True)
class Metric:
    """A score of an integration.

    Attributes
    ----------
    name
        Column of the table.
    group
        Block of columns: ``"bio"``, ``"omics"``, ``"single-cell"`` or ``"batch"``.
    about
        What it measures, in one line.
    needs
        What the data must have: ``"labels"``, ``"batches"``, ``"views"`` (embeddings of two modalities), ``"pairs"``
        (of the same cells).
    function
        From one method's embeddings to the value.
    higher_is_better
        Whether a higher value is better.
    in_summary
        Whether it is part of the paper's mean of the group (equations 20 and 21).

    Examples
    --------
    >>> metrics.METRICS["FOSCTTM"].group, metrics.METRICS["FOSCTTM"].higher_is_better
    ('single-cell', False)
    """

    name: str
    group: Literal["bio", "omics", "single-cell", "batch"]
    about: str
    needs: frozenset[Need]
    function: Callable[[Embedded], float]
    higher_is_better: bool = True
    in_summary: bool = False


def _needs(*what: Need) -> frozenset[Need]:
    return frozenset(what)


_TABLE = (
    Metric("ARI", "bio", "adjusted Rand index of Leiden clusters with cell types, best of 20 resolutions",
           _needs("labels"), lambda e: e.leiden.ari, in_summary=True),
    Metric("NMI", "bio", "normalised mutual information of the same, best of 20 resolutions",
           _needs("labels"), lambda e: e.leiden.nmi, in_summary=True),
    Metric("MAP", "bio", "mean average precision of the cell types among the nearest 1 %",
           _needs("labels"), _of_cell_types(mean_average_precision), in_summary=True),
    Metric("cell-type ASW", "bio", "silhouette of the cell types, (s + 1) / 2, 0.5 is chance",
           _needs("labels"), _of_cell_types(cell_type_asw), in_summary=True),
    Metric("kNN accuracy", "bio", "share of cells whose type is that of most of their 15 neighbours",
           _needs("labels"), _of_cell_types(knn_accuracy)),
    Metric("omics mixing", "omics", "entropy of the modalities among 100 neighbours",
           _needs("views"), lambda e: _mixing(e, e.stacked, e.stacked.layer), in_summary=True),
    Metric("Seurat alignment", "omics", "neighbours from other modalities among the nearest 1 %",
           _needs("views"), _alignment, in_summary=True),
    Metric("graph connectivity", "omics", "share of a type, of all modalities, in its largest connected part",
           _needs("labels", "views"), _graph_connectivity, in_summary=True),
    Metric("omics ASW", "omics", "one minus the silhouette of the modalities within cell types",
           _needs("labels", "views"), _omics_asw, in_summary=True),
    Metric("FOSCTTM", "single-cell", "share of cells closer than the true partner, 0.5 is chance",
           _needs("views", "pairs"), _foscttm, higher_is_better=False),
    Metric("recall@1", "single-cell", "share of cells whose partner is the nearest of the other modality",
           _needs("views", "pairs"), _recall(1)),
    Metric("recall@10", "single-cell", "share of cells whose partner is among the 10 nearest",
           _needs("views", "pairs"), _recall(10)),
    Metric("median rank", "single-cell", "rank of the partner, 0 the nearest, 0.5 chance, 1 the farthest",
           _needs("views", "pairs"), _median_rank, higher_is_better=False),
    Metric("matching score", "single-cell", "confidence that shared neighbours lead to the partner, 1 neighbour",
           _needs("views", "pairs"), _matching_score),
    Metric("modality gap", "single-cell", "distance of the centres of the modalities on the unit sphere, 0 to 2",
           _needs("views"), lambda e: float(np.mean(e.gaps)), higher_is_better=False),
    Metric("batch mixing", "batch", "entropy of the batches among 100 neighbours",
           _needs("batches"), lambda e: _mixing(e, *e.in_batches)),
    Metric("batch ASW", "batch", "one minus the silhouette of the batches within cell types",
           _needs("labels", "batches"), _batch_asw),
)  # fmt: skip

#: From name to :class:`Metric`, in the order of the table's columns.
METRICS: Final = MappingProxyType({metric.name: metric for metric in _TABLE})
