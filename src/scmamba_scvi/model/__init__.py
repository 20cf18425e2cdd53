"""The room that knows scvi-tools, Lightning and MuData; `docs/architecture.md` says what each file is for."""

from __future__ import annotations

from ._matching import CellMatches
from ._model import SCMAMBA
from ._module import SCMAMBAModule

__all__ = ["SCMAMBA", "CellMatches", "SCMAMBAModule"]
