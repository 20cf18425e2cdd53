"""The methods compared. Each is a function that fits on the training cells and embeds those and the held-out cells."""

from __future__ import annotations

from ._method import Embeddings, Fitted, Limit, Method
from .gene_activity import METHODS as _GENE_ACTIVITY
from .harmony import METHODS as _HARMONY
from .linear import METHODS as _LINEAR
from .ours import METHODS as _OURS
from .variational import METHODS as _VARIATIONAL
from .vector_quantized import METHODS as _QUANTIZED

METHODS: dict[str, Method] = {
    m.name: m for m in (*_OURS, *_LINEAR, *_GENE_ACTIVITY, *_HARMONY, *_VARIATIONAL, *_QUANTIZED)
}
#: Ours but for the defaults: no one else would pick them, so scores over the methods of a set leave them out.
OWN_VARIANTS = frozenset(m.name for m in _OURS[1:])

__all__ = ["METHODS", "OWN_VARIANTS", "Embeddings", "Fitted", "Limit", "Method"]
