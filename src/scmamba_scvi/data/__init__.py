"""Data sets of raw counts as MuData: simulated with known truth, downloaded once, or left in a file on disk."""

from ._download import fetch_bone_marrow
from ._on_disk import convert_mudata, open_mudata, write_obsm
from ._read import read
from ._simulate import simulate_multiome

__all__ = [
    "convert_mudata",
    "fetch_bone_marrow",
    "open_mudata",
    "read",
    "simulate_multiome",
    "write_obsm",
]
