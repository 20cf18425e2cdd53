"""Methods that are compared, each a small adapter with one protocol: fit on some cells, embed them and others."""

from __future__ import annotations

from ._method import Embeddings, Fitted, Method
from .harmony import METHODS as _HARMONY
from .linear import METHODS as _LINEAR
from .ours import METHODS as _OURS
from .variational import METHODS as _VARIATIONAL

METHODS: dict[str, Method] = {m.name: m for m in (*_OURS, *_LINEAR, *_HARMONY, *_VARIATIONAL)}

__all__ = ["METHODS", "Embeddings", "Fitted", "Method"]
