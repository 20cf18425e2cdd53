"""The table of scores that :func:`~scmamba_scvi.metrics.evaluate_integration` can compute."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import numpy as np

from ..errors import ScmambaError
from ._cell_types import graph_connectivity, knn_accuracy, mean_average_precision
from ._embedded import Embedded, Points
from ._matching import modality_gap
from ._matching_score import matching_score
from ._mixing import omics_entropy_mixing, seurat_alignment
from ._silhouette import cell_type_asw, omics_asw


@dataclass(frozen=True)
class Metric:
    """A score of an integration, one column of the table of :func:`~scmamba_scvi.metrics.evaluate_integration`.

    Examples
    --------
    >>> score = metrics.METRICS["FOSCTTM"]
    >>> score.group, score.higher_is_better
    ('single-cell', False)
    """

    #: Name of the column.
    name: str
    #: Block of the table that has it.
    group: Literal["bio", "omics", "single-cell", "batch"]
    #: What it measures, in one line.
    about: str
    #: Computes it. Raises a :class:`~scmamba_scvi.errors.ScmambaError` if the data lack what it needs.
    function: Callable[[Embedded], float]
    #: Whether a better integration has a higher score.
    higher_is_better: bool = True
    #: Whether it is part of the paper's mean of the group (equations 20 and 21).
    in_summary: bool = False


def _of(function: Callable[..., float], points: Points, groups: np.ndarray, **options: int | None) -> float:
    return function(points.x, groups, **options)


def _of_neighbors(function: Callable[..., float], e: Embedded, points: Points, groups: np.ndarray) -> float:
    return _of(function, points, groups, max_queries=points.max_queries, random_state=e.random_state)


def _omics_asw(e: Embedded) -> float:
    points, labels = e.labelled(e.stacked)
    return omics_asw(points.x, points.modality, labels)


def _batch_asw(e: Embedded) -> float:
    points, labels = e.labelled(e.in_batches[0])
    return omics_asw(points.x, e.batches[points.cell], labels)


def _recall(e: Embedded, k: int) -> float:
    fewest = min(ranks.n_candidates for ranks in e.ranks)
    if fewest <= k:
        raise ScmambaError(f"of {fewest} cells each is among the {k} nearest")
    return _mean(ranks.recall(k)[0] for ranks in e.ranks)


def _gap(e: Embedded) -> float:
    points = e.stacked
    parts = [points.x[points.modality == name] for name in e.modalities]
    return _mean(modality_gap(x, y) for x, y in itertools.combinations(parts, 2))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


_TABLE = (
    Metric("ARI", "bio", "adjusted Rand index of Leiden clusters with cell types, best of 20 resolutions, mean of 5 seeds",
           lambda e: e.leiden.ari, in_summary=True),
    Metric("NMI", "bio", "normalised mutual information of the same, best of 20 resolutions, mean of 5 seeds",
           lambda e: e.leiden.nmi, in_summary=True),
    Metric("MAP", "bio", "mean average precision of the cell types among the nearest 1 %, at least 10",
           lambda e: _of_neighbors(mean_average_precision, e, *e.labelled(e.cells)), in_summary=True),
    Metric("cell-type ASW", "bio", "silhouette of the cell types, (s + 1) / 2, 0.5 is chance",
           lambda e: _of(cell_type_asw, *e.labelled(e.cells)), in_summary=True),
    Metric("kNN accuracy", "bio", "fraction of cells whose type is that of most of their 15 neighbours",
           lambda e: _of_neighbors(knn_accuracy, e, *e.labelled(e.cells))),
    Metric("omics mixing", "omics", "entropy of the modalities among the nearest 1 %, at least 15",
           lambda e: _of_neighbors(omics_entropy_mixing, e, e.stacked, e.stacked.modality), in_summary=True),
    Metric("Seurat alignment", "omics", "neighbours from other modalities among the nearest 1 %, at least 15",
           lambda e: _of_neighbors(seurat_alignment, e, e.stacked, e.stacked.modality), in_summary=True),
    Metric("graph connectivity", "omics", "fraction of a type, of all modalities, in its largest connected part",
           lambda e: _of(graph_connectivity, *e.labelled(e.stacked), random_state=e.random_state), in_summary=True),
    Metric("omics ASW", "omics", "one minus the silhouette of the modalities within cell types",
           _omics_asw, in_summary=True),
    Metric("other modality", "omics", "fraction of the 15 nearest that are of the other modality, 0.5 is a perfect mix",
           lambda e: _mean(np.nanmean(of_cells) for of_cells in e.mixing)),
    Metric("FOSCTTM", "single-cell", "fraction of cells closer than the true match, 0.5 is chance",
           lambda e: _mean(np.mean(ranks.fractions) for ranks in e.ranks), higher_is_better=False),
    Metric("recall@1", "single-cell", "fraction of cells whose true match is the nearest of the other modality",
           lambda e: _recall(e, 1)),
    Metric("recall@10", "single-cell", "fraction of cells whose true match is among the 10 nearest",
           lambda e: _recall(e, 10)),
    Metric("median rank", "single-cell", "rank of the true match, 0 the nearest, 0.5 chance, 1 the farthest",
           lambda e: _mean((r.median - 1) / (r.n_candidates - 1) for r in e.ranks), higher_is_better=False),
    Metric("matching score", "single-cell", "confidence that shared neighbours lead to the true match, 1 neighbour",
           lambda e: _mean(matching_score(p.x, p.y, random_state=e.random_state) for p in e.pairs)),
    Metric("modality gap", "single-cell", "distance of the centres of the modalities on the unit sphere, 0 to 2",
           _gap, higher_is_better=False),
    Metric("batch mixing", "batch", "entropy of the batches among the nearest 1 %, at least 15",
           lambda e: _of_neighbors(omics_entropy_mixing, e, *e.in_batches)),
    Metric("batch ASW", "batch", "one minus the silhouette of the batches within cell types",
           _batch_asw),
)  # fmt: skip

#: From name to :class:`Metric`, in the order of the table's columns.
METRICS: Final = MappingProxyType({metric.name: metric for metric in _TABLE})
