"""Scores of an integration: arrays in, floats out. Nothing here knows AnnData or scvi-tools."""

from __future__ import annotations

from ._matching import foscttm, recall_at_k

__all__ = ["foscttm", "recall_at_k"]
