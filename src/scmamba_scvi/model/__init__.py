"""The room that knows scvi-tools, Lightning and MuData."""

from __future__ import annotations

from ._matching import CellMatches
from ._model import SCMAMBA
from ._module import SCMAMBAModule

__all__ = ["SCMAMBA", "CellMatches", "SCMAMBAModule"]
