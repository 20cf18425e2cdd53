"""Steps before the network: features to patches along the genome, counts to the values that the network reads."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._genome import AnnotationCoverage, annotate_genome
    from ._layout import FeatureLayout, feature_layout
    from .values import VALUE_TRANSFORMS, ValueTransform, value_transform

__all__ = [
    "VALUE_TRANSFORMS",
    "AnnotationCoverage",
    "FeatureLayout",
    "ValueTransform",
    "annotate_genome",
    "feature_layout",
    "value_transform",
]

_HOME = {
    "AnnotationCoverage": "_genome",
    "annotate_genome": "_genome",
    "FeatureLayout": "_layout",
    "feature_layout": "_layout",
    "VALUE_TRANSFORMS": "values",
    "ValueTransform": "values",
    "value_transform": "values",
}


def __getattr__(name: str) -> object:
    # on first use (PEP 562), since a layout needs neither torch nor anndata
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
