"""Coordinates of a model's features and their genome build: kept with the model, to be compared with new data."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from mudata import MuData

from ...errors import ScmambaError, written
from ...pp.builds import canonical_build, recorded_build
from ...pp.coordinates import parse_coordinates

#: What is kept of each feature, as in `Coordinates`.
PARTS = ("chrom", "start", "end", "strand")
#: Modalities whose features have coordinates.
PLACED_KINDS = ("rna", "atac")


def places_to_keep(var: pd.DataFrame) -> dict[str, Any] | None:
    """Coordinates as plain values, to be saved; `None` if the names of the features say the same, or there are none."""
    where = parse_coordinates(var)
    named = parse_coordinates(pd.DataFrame(index=var.index))
    same = where.chroms == named.chroms and all(
        np.array_equal(getattr(where, part), getattr(named, part)) for part in PARTS
    )
    if same:
        return None
    return {"chroms": list(where.chroms), **{part: getattr(where, part).tolist() for part in PARTS}}


def build_of(mdata: MuData, modalities: Mapping[str, str], genome: str | None) -> str | None:
    """Genome build of the data: the one that ``genome`` names, else the one that the data name; raises if they differ."""
    stated = None if genome is None else canonical_build(genome)
    found = {} if stated is None else {written("genome"): stated}
    if (build := recorded_build(mdata.uns, None, "mdata.uns", stated)) is not None:
        found["mdata.uns['genome']"] = build
    for kind, key in modalities.items():
        if kind in PLACED_KINDS and key in mdata.mod:
            where = f"mdata[{key!r}]"
            if (build := recorded_build(mdata.mod[key].uns, mdata.mod[key].var, where, stated)) is not None:
                found[where] = build
    if len(set(found.values())) > 1:
        raise ScmambaError(
            f"Genome builds differ: {', '.join(f'{what} is {build}' for what, build in found.items())}. Coordinates of "
            f"two builds cannot be compared: count the data on one of them, or lift their features over; if only a name "
            f"is wrong, correct uns['genome'] or var['genome']."
        )
    return next(iter(found.values()), None)
