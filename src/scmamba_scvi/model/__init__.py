"""The room that knows scvi-tools, Lightning and MuData."""

from __future__ import annotations

from ._model import SCMAMBA
from ._module import SCMAMBAModule

__all__ = ["SCMAMBA", "SCMAMBAModule"]
