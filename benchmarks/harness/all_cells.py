"""What runs on all cells: of the methods of held-out cells those that others use, and those that embed no new cells."""

from __future__ import annotations

import dataclasses

from .methods import METHODS as HELD_OUT
from .methods import OWN_VARIANTS, Limit, Method
from .methods.all_cells import METHODS as ALL_CELLS

ADDED = tuple(m.name for m in ALL_CELLS)
WITHOUT_BATCHES = "scmamba-scvi, no batch_key"
#: Simpler versions of ours that are worth a row here too.
OURS = ("linear", WITHOUT_BATCHES)
#: They are fitted to held-out cells of two sets as well.
SLOWEST = Limit(frozenset({"bmmc_multiome_5k"}), "half an hour of a CPU: all cells of bone marrow Multiome alone")
METHODS: dict[str, Method] = {
    **{name: m for name, m in HELD_OUT.items() if name not in OWN_VARIANTS or name in OURS},
    **{name: dataclasses.replace(HELD_OUT[name], limit=SLOWEST) for name in ("PairedSCGLUE", "GLUE")},
    **{m.name: m for m in ALL_CELLS},
}
