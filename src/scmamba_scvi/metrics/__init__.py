"""Scores of an integration: arrays in, floats out. Nothing here needs scvi-tools.

Embeddings are ``(n, z)``, labels ``(n,)``. Every score raises :class:`~scmamba_scvi.errors.ScmambaError` for an embedding
that is empty or not finite, for labels that are missing, of another number than the rows or, unless one is enough, all
the same, and for a number of neighbours that is not 1 to ``n - 1``. What a function says under "Raises" comes on top.
"""

from ._cell_types import graph_connectivity, knn_accuracy, mean_average_precision
from ._clusters import LeidenScores, leiden_ari_nmi
from ._evaluate import evaluate_integration
from ._matching import TrueMatchRanks, foscttm, modality_gap, true_match_ranks
from ._matching_score import matching_score
from ._mixing import omics_entropy_mixing, other_modality, seurat_alignment
from ._panel import METRICS, Metric
from ._silhouette import cell_type_asw, omics_asw
from ._summary import overall_scores
from ._trajectory import diffusion_pseudotime, pseudotime_consistency, trajectory_conservation
from .by_type import mixing_by_type

__all__ = [
    "METRICS",
    "LeidenScores",
    "Metric",
    "TrueMatchRanks",
    "cell_type_asw",
    "diffusion_pseudotime",
    "evaluate_integration",
    "foscttm",
    "graph_connectivity",
    "knn_accuracy",
    "leiden_ari_nmi",
    "matching_score",
    "mean_average_precision",
    "mixing_by_type",
    "modality_gap",
    "omics_asw",
    "omics_entropy_mixing",
    "other_modality",
    "overall_scores",
    "true_match_ranks",
    "pseudotime_consistency",
    "seurat_alignment",
    "trajectory_conservation",
]
