"""The subpackage that knows scvi-tools, Lightning and MuData; `docs/architecture.md` says what each part is for."""

from ._model import SCMAMBA
from ._module import SCMAMBAModule
from .tools.matching import CellMatches

__all__ = ["SCMAMBA", "CellMatches", "SCMAMBAModule"]
