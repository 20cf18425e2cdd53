"""Genome builds: which one data name, and which ones their coordinates allow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..errors import ScmambaError
from .coordinates import Coordinates, chromosome_key

if TYPE_CHECKING:
    import pandas as pd

#: Spellings of each build's name, in lower case; the key is the one used here.
SPELLINGS: Final = {
    "hg19": ("hg19", "grch37", "b37", "hs37d5"),
    "hg38": ("hg38", "grch38", "b38"),
    "mm9": ("mm9", "ncbim37", "mgscv37"),
    "mm10": ("mm10", "grcm38"),
    "mm39": ("mm39", "grcm39"),
}
_AUTOSOMES: Final = {"hg": range(1, 23), "mm": range(1, 20)}
#: Lengths in bases of the autosomes in their order, then X and Y (UCSC, chrom.sizes).
_LENGTHS: Final = {
    "hg19": (249250621, 243199373, 198022430, 191154276, 180915260, 171115067, 159138663, 146364022, 141213431,
             135534747, 135006516, 133851895, 115169878, 107349540, 102531392, 90354753, 81195210, 78077248, 59128983,
             63025520, 48129895, 51304566, 155270560, 59373566),
    "hg38": (248956422, 242193529, 198295559, 190214555, 181538259, 170805979, 159345973, 145138636, 138394717,
             133797422, 135086622, 133275309, 114364328, 107043718, 101991189, 90338345, 83257441, 80373285, 58617616,
             64444167, 46709983, 50818468, 156040895, 57227415),
    "mm9": (197195432, 181748087, 159599783, 155630120, 152537259, 149517037, 152524553, 131738871, 124076172,
            129993255, 121843856, 121257530, 120284312, 125194864, 103494974, 98319150, 95272651, 90772031, 61342430,
            166650296, 15902555),
    "mm10": (195471971, 182113224, 160039680, 156508116, 151834684, 149736546, 145441459, 129401213, 124595110,
             130694993, 122082543, 120129022, 120421639, 124902244, 104043685, 98207768, 94987271, 90702639, 61431566,
             171031299, 91744698),
    "mm39": (195154279, 181755017, 159745316, 156860686, 151758149, 149588044, 144995196, 130127413, 124359700,
             130530862, 121973369, 120092757, 120883175, 125139656, 104073951, 98008968, 95294699, 90720763, 61420004,
             169476592, 91455967),
}  # fmt: skip


def canonical_build(name: object) -> str:
    """One name for every spelling of a build: ``GRCh38`` and ``hg38.p13`` are ``hg38``; an unknown name is returned."""
    without_patch = re.sub(r"\.p\d+$", "", str(name).strip().lower())
    return next((build for build, known in SPELLINGS.items() if without_patch in known), str(name).strip())


def recorded_build(uns: Mapping[str, Any], var: pd.DataFrame | None, source: str) -> str | None:
    """Build named in ``uns["genome"]`` or, as 10x does, in ``var["genome"]``; `None` if in neither.

    ``source`` is what the data are called in the error.

    Raises
    ------
    ScmambaError
        Features of several builds in one matrix.
    """
    named = [uns["genome"]] if isinstance(uns.get("genome"), str) else []
    if var is not None and "genome" in var:
        named += [name for name in var["genome"].dropna().astype(str).unique() if name.strip()]
    builds = list(dict.fromkeys(canonical_build(name) for name in named))
    if len(builds) > 1:
        raise ScmambaError(
            f"{source} names several genomes, {builds}: coordinates of different builds cannot be compared. Keep the "
            f"features of one, or correct uns['genome'] and var['genome']."
        )
    return builds[0] if builds else None


def possible_builds(features: Coordinates) -> list[str]:
    """Known builds in which all of the named chromosomes exist and no feature ends beyond its chromosome."""
    chrom, end = features.chrom[features.placed], features.end[features.placed]
    last: dict[str, int] = {}  # largest end on each chromosome
    for i, name in enumerate(features.chroms):
        key = chromosome_key(name).upper()
        if (re.fullmatch(r"\d{1,2}", key) or key in ("X", "Y")) and (chrom == i).any():
            last[key] = int(np.max(end[chrom == i]))
    if not last:
        return []
    return [build for build in _LENGTHS if all(e <= _lengths_of(build).get(c, 0) for c, e in last.items())]


def _lengths_of(build: str) -> dict[str, int]:
    names = [*map(str, _AUTOSOMES[build[:2]]), "X", "Y"]
    return dict(zip(names, _LENGTHS[build], strict=True))
