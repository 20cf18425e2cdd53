"""Data sets of raw counts as MuData: simulated with known truth, downloaded once, or left in a file on disk."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._differentiation import simulate_differentiation
    from ._download import fetch_pbmc_multiome
    from ._on_disk import convert_mudata, open_mudata, write_obsm
    from ._read import read
    from ._simulate import simulate_citeseq, simulate_multiome

__all__ = [
    "convert_mudata",
    "fetch_pbmc_multiome",
    "open_mudata",
    "read",
    "simulate_citeseq",
    "simulate_differentiation",
    "simulate_multiome",
    "write_obsm",
]

_HOME = {
    "convert_mudata": "_on_disk",
    "open_mudata": "_on_disk",
    "write_obsm": "_on_disk",
    "fetch_pbmc_multiome": "_download",
    "read": "_read",
    "simulate_citeseq": "_simulate",
    "simulate_differentiation": "_differentiation",
    "simulate_multiome": "_simulate",
}


def __getattr__(name: str) -> object:
    # on first use (PEP 562), since mudata and anndata take seconds to import
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
