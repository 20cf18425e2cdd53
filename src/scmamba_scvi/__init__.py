"""One embedding for cells measured in several modalities, from all features."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import config, data, errors, metrics, nn, ops, pl, pp, report, workflow
    from .data import read
    from .model import SCMAMBA

    __version__: str

__all__ = [
    "SCMAMBA",
    "__version__",
    "config",
    "data",
    "errors",
    "metrics",
    "nn",
    "ops",
    "pl",
    "pp",
    "read",
    "report",
    "workflow",
]


def __getattr__(name: str) -> object:
    # PEP 562: names are imported on first use, so that `--help`, nn and metrics do not wait 15 s for scvi-tools
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = {"SCMAMBA": "model", "read": "data", "__version__": "_compat"}.get(name)
    module = importlib.import_module(f"{__name__}.{home or name}")
    value = module if home is None else module.package_version() if name == "__version__" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
