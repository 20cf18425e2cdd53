"""Genome builds that data name."""

import re
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from ..errors import ScmambaError, written

#: Spellings of each build's name, in lower case; the key is the one used here.
SPELLINGS: Final = {
    "hg19": ("hg19", "grch37", "b37", "hs37d5"),
    "hg38": ("hg38", "grch38", "b38"),
    "mm9": ("mm9", "ncbim37", "mgscv37"),
    "mm10": ("mm10", "grcm38"),
    "mm39": ("mm39", "grcm39"),
}


def canonical_build(name: object) -> str:
    """One name for every spelling of a build: ``GRCh38``, ``hg38.p13`` and ``refdata-gex-GRCh38-2020-A`` are ``hg38``.

    A name without a known build, or with several, is returned.
    """
    words = re.split(r"[^a-z0-9]+", str(name).lower())
    found = [build for build, known in SPELLINGS.items() if not set(words).isdisjoint(known)]
    return found[0] if len(found) == 1 else str(name).strip()


def recorded_build(
    uns: Mapping[str, Any], var: pd.DataFrame | None, source: str, stated: str | None = None
) -> str | None:
    """Build named in ``uns["genome"]`` or, as 10x does, in ``var["genome"]``; `None` if in neither.

    A reference may hold more than a build, such as the genome of a virus: a known build stands for the whole. The build that
    the user ``stated`` settles what names that are not known mean. Features of several builds in one matrix, called
    ``source`` in the error, are refused.
    """
    named = [uns["genome"]] if isinstance(uns.get("genome"), str) else []
    if var is not None and "genome" in var:
        named += [name for name in var["genome"].dropna().astype(str).unique() if name.strip()]
    builds = list(dict.fromkeys(canonical_build(name) for name in named))
    known = [build for build in builds if build in SPELLINGS]
    if not known and stated is not None:
        return stated
    if len(known or builds) > 1:
        raise ScmambaError(
            f"{source} names several genomes, {known or builds}: coordinates of different builds cannot be compared. Keep "
            f"the features of one, or correct uns['genome'] and var['genome']"
            + ("." if known else f", or name the build: {written('genome', 'hg38')}.")
        )
    return next(iter(known or builds), None)
