"""Data sets of raw counts as MuData: simulated with known truth, downloaded once, or left in a file on disk."""

from __future__ import annotations

from ._differentiation import simulate_differentiation
from ._download import fetch_pbmc_multiome, read_10x_multiome
from ._on_disk import convert_mudata, open_mudata, write_obsm
from ._simulate import simulate_citeseq, simulate_multiome

__all__ = [
    "convert_mudata",
    "fetch_pbmc_multiome",
    "open_mudata",
    "read_10x_multiome",
    "simulate_citeseq",
    "simulate_differentiation",
    "simulate_multiome",
    "write_obsm",
]
