"""Figures: data in, matplotlib Axes out. Nothing here computes, shows, or changes what it is given."""

from __future__ import annotations

from ._integration import integration
from ._training import training

__all__ = ["integration", "training"]
