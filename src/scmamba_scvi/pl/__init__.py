"""Figures: data in, matplotlib Axes out. No function shows its figure or changes the data.

What cannot be drawn is a :class:`~scmamba_scvi.errors.ScmambaError` that names what is missing or unknown.
"""

from ._confusion import confusion
from ._integration import integration
from ._metrics_table import metrics_table
from ._modality_agreement import modality_agreement
from ._region_importance import region_importance
from ._region_links import region_links
from ._training import training

__all__ = [
    "confusion",
    "integration",
    "metrics_table",
    "modality_agreement",
    "region_importance",
    "region_links",
    "training",
]
