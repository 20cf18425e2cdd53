"""The table of scores that :func:`~scmamba_scvi.metrics.evaluate_integration` can compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import numpy as np

from ..errors import ScmambaError
from ._cell_types import graph_connectivity, knn_accuracy, mean_average_precision
from ._embedded import Embedded, Need, Points
from ._matching_score import matching_score
from ._mixing import omics_entropy_mixing, seurat_alignment
from ._silhouette import cell_type_asw, omics_asw


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
