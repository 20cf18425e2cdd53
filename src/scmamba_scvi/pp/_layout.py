"""Layout of a modality's features in patches along the genome: computed once from ``var``, saved with the model."""

from __future__ import annotations

import bisect
import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from .._compat import explained
from ..config import ModelConfig
from ..errors import ScmambaError
from .coordinates import Coordinates, parse_coordinates

#: Most slots of the padded grid: CSR minibatches index them with int32.
MAX_SLOTS: Final = 2**31 - 1
#: Shortest patch worth a token.
MIN_PATCH: Final = 16
#: Patches of features without coordinates are called ``unplaced:1``, ``unplaced:2``, ...
UNPLACED: Final = "unplaced"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FeatureLayout:
    """Which patch each feature belongs to, and where in it.

    Data are never reordered: the tokenizer applies ``slots`` as an index. Made by :func:`feature_layout`.

    Raises
    ------
    ScmambaError
        A slot lies outside the grid, two features share one, or a number is out of range.

    Examples
    --------
    >>> var = pd.DataFrame(index=["chr2:1-4", "chr1:5-9", "LINC1"])
    >>> pp.feature_layout(var, patch_size=2).patch_of.tolist()
    [1, 0, 2]
    """

    #: ``w``, slots of a patch. A patch holds at most this many features; its other slots stay empty.
    patch_size: int
    #: Place of each feature of ``var`` in the padded grid of ``c * w`` slots, ``patch * w + offset``, int64 ``(f,)``.
    slots: np.ndarray
    #: Name of each patch, such as ``chr1:1,204,113-3,771,645``.
    patch_names: tuple[str, ...]
    #: Features that have coordinates.
    n_placed: int = 0
    #: Whether features are ordered along the genome; False keeps the order of ``var``.
    ordered: bool = True

    def __post_init__(self) -> None:
        if self.slots.ndim != 1 or self.slots.dtype.kind not in "iu":
            raise ScmambaError("slots must be a list of whole numbers.")
        if self.patch_size < 1:
            raise ScmambaError(f"patch_size must be at least 1, got {self.patch_size}.")
        if self.n_slots > MAX_SLOTS:
            raise ScmambaError(
                f"{self.n_patches:,} patches of {self.patch_size:,} exceed {MAX_SLOTS:,} slots: lower patch_size."
            )
        if not 0 <= self.n_placed <= self.n_features:
            raise ScmambaError(
                f"n_placed = {self.n_placed} is not between 0 and {self.n_features}, the number of features."
            )
        outside = (self.slots < 0) | (self.slots >= self.n_slots)
        if outside.any():
            raise ScmambaError(
                f"{outside.sum():,} of {self.n_features:,} slots lie outside 0..{self.n_slots - 1}: "
                f"{self.n_patches} patch names and patch_size {self.patch_size} do not belong to these slots."
            )
        if len(np.unique(self.slots)) < self.n_features:
            raise ScmambaError("Two features share a slot: the layout is damaged, make it again with feature_layout().")

    @property
    def n_features(self) -> int:
        """Number of features, ``f``."""
        return len(self.slots)

    @property
    def n_patches(self) -> int:
        """Number of patches, ``c``."""
        return len(self.patch_names)

    @property
    def n_slots(self) -> int:
        """Number of slots, ``c * w``, of features and padding."""
        return self.n_patches * self.patch_size

    @property
    def patch_of(self) -> np.ndarray:
        """Patch of each feature, int64 ``(f,)``."""
        return self.slots // self.patch_size

    @property
    def chromosomes(self) -> tuple[str, ...]:
        """Chromosomes that have a patch, in order."""
        if not self.n_placed:
            return ()
        names = (name.rpartition(":")[0] for name in self.patch_names)
        return tuple(name for name in dict.fromkeys(names) if name != UNPLACED)

    def summary(self) -> str:
        """What the layout holds, in one line.

        Returns
        -------
        Text such as ``1,648 of 1,677 features placed on 21 chromosomes, 45 patches of 64``.

        Examples
        --------
        >>> var = pd.DataFrame(index=["chr2:7-9", "chr2:1-4", "GENE"])
        >>> pp.feature_layout(var, patch_size=2).summary()
        '2 of 3 features placed on 1 chromosome, 2 patches of 2'
        """
        patches = f"{self.n_patches:,} patch{'es' * (self.n_patches != 1)} of {self.patch_size:,}"
        if not self.ordered:
            return f"{self.n_features:,} features in the order of var, {patches}"
        if not self.n_placed:
            return f"no feature has coordinates: {self.n_features:,} features in the order of var, {patches}"
        n = len(self.chromosomes)
        return (
            f"{self.n_placed:,} of {self.n_features:,} features placed on {n:,} chromosome{'s' * (n != 1)}, {patches}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; :meth:`from_dict` reads them.

        Returns
        -------
        A dict from the name of each attribute to its value, arrays as lists.

        Examples
        --------
        >>> var = pd.DataFrame(index=["chr2:7-9", "chr2:1-4", "chr1:5-9"])
        >>> layout = pp.feature_layout(var, patch_size=2)
        >>> layout.to_dict()["slots"]
        [3, 2, 0]
        """
        return dataclasses.asdict(self) | {"slots": self.slots.tolist(), "patch_names": list(self.patch_names)}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> FeatureLayout:
        """Layout from what :meth:`to_dict` returned.

        Parameters
        ----------
        saved
            That dict, perhaps read from JSON.

        Returns
        -------
        `FeatureLayout`, equal to the one that was saved.

        Raises
        ------
        ScmambaError
            An entry is missing or more than those, a slot lies outside the grid, two features share one.

        Examples
        --------
        >>> var = pd.DataFrame(index=["chr2:7-9", "chr2:1-4", "chr1:5-9"])
        >>> layout = pp.feature_layout(var, patch_size=2)
        >>> pp.FeatureLayout.from_dict(layout.to_dict()) == layout
        True
        """
        with explained("The saved layout cannot be read"):
            slots, names = np.asarray(saved["slots"]), tuple(saved["patch_names"])
            return cls(**{**saved, "slots": slots, "patch_names": names})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureLayout) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # holds an array

    def __repr__(self) -> str:
        return f"FeatureLayout({self.summary()})"


def feature_layout(
    var: pd.DataFrame,
    patch_size: int | None = None,
    *,
    max_patches: int = ModelConfig.max_patches,
    ordered: bool = True,
) -> FeatureLayout:
    """Patches of neighbouring features.

    Features are sorted by chromosome in natural order (chr1, chr2, ..., chr22, chrX, chrY, chrM, then other contigs),
    by start, by end, and where all are equal by their position in ``var``. Patches never cross a chromosome: one of
    ``m`` features is cut into ``ceil(m / patch_size)`` patches of sizes that differ by at most one, so that none is
    left with a feature or two. Features without coordinates are kept, in the order of ``var``, in patches of their own
    at the end.

    Parameters
    ----------
    var
        One row per feature, ``f`` rows. Coordinates are read from the columns ``chrom``, ``start``, ``end``
        (``chromosome``, ``seqnames``, ``chromStart``, ``chromEnd``, ...), from ``interval`` as 10x writes it, and from
        names such as ``chr1:100-200``, ``chr1-100-200``, ``chr1_100_200``, in this order.
    patch_size
        Most features of a patch, ``w``. `None`: the fewest, but at least 16, with which there are at most ``max_patches``
        patches. Where a genome has more chromosomes than that, each of them is one patch.
    max_patches
        Only read where ``patch_size`` is `None`.
    ordered
        False keeps the order of ``var`` and reads no coordinates: proteins.

    Returns
    -------
    `FeatureLayout`. Without any coordinates the order of ``var`` is kept, and its summary says so.

    Raises
    ------
    ScmambaError
        There is no feature, or coordinates are there but cannot be read.

    Examples
    --------
    >>> var = pd.DataFrame(index=["chr10:5-9", "chr2:1-4", "chr2:7-9"])
    >>> layout = pp.feature_layout(var, patch_size=2)
    >>> layout.patch_names
    ('chr2:1-9', 'chr10:5-9')
    >>> layout.slots
    array([2, 0, 1])
    """
    if not len(var):
        raise ScmambaError("A layout needs at least one feature, var has no rows.")
    if patch_size is not None and patch_size < 1:
        raise ScmambaError(f"patch_size must be at least 1, got {patch_size}.")
    where = parse_coordinates(var) if ordered else None
    if where is None or not where.placed.any():
        patch_size = int(patch_size or _patch_size(np.array([len(var)]), max_patches))
        patch, offset, first = _cut(np.zeros(len(var), dtype=np.int64), patch_size)
        ends = [*first[1:], len(var)]
        names = tuple(f"features:{a + 1:,}-{b:,}" for a, b in zip(first, ends, strict=True))
        return FeatureLayout(patch_size, patch * patch_size + offset, names, 0, ordered)
    # features without coordinates sort as one more chromosome at the end, where all tie and keep the order of var
    run = np.where(where.placed, where.chrom, len(where.chroms))
    patch_size = int(patch_size or _patch_size(np.unique(run, return_counts=True)[1], max_patches))
    order = np.lexsort((where.end, where.start, run))  # stable, so ties keep the order of var
    patch, offset, first = _cut(run[order], patch_size)
    slots = np.empty(len(var), dtype=np.int64)
    slots[order] = patch * patch_size + offset
    return FeatureLayout(patch_size, slots, _patch_names(where, order, first), int(where.placed.sum()), True)


def _patch_size(lengths: np.ndarray, max_patches: int) -> int:
    """Fewest features of a patch, at least `MIN_PATCH`, that cut runs of these lengths into ``max_patches`` or one each."""
    sizes = range(MIN_PATCH, max(MIN_PATCH, int(lengths.max())))
    most = max(max_patches, len(lengths))
    return MIN_PATCH + bisect.bisect_left(sizes, True, key=lambda size: (-(-lengths // size)).sum() <= most)


def _cut(run: np.ndarray, patch_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut sorted features into patches within each run of equal values (``run``: the chromosome of each feature).

    Returns patch and offset within it of each feature, int64 ``(f,)``, and the first feature of each patch ``(c,)``.
    """
    at = np.arange(len(run))
    begin = np.flatnonzero(np.r_[True, run[1:] != run[:-1]])
    length = np.diff(np.r_[begin, len(run)])
    n_patches = -(-length // patch_size)
    # feature j of m goes to patch j * k // m of k: sizes differ by at most one
    of_run = np.repeat(np.arange(len(begin)), length)
    within = (at - begin[of_run]) * n_patches[of_run] // length[of_run]
    patch = (np.cumsum(n_patches) - n_patches)[of_run] + within
    first = np.flatnonzero(np.r_[True, patch[1:] != patch[:-1]])
    return patch, at - first[patch], first


def _patch_names(where: Coordinates, order: np.ndarray, first: np.ndarray) -> tuple[str, ...]:
    chrom = where.chrom[order][first]
    start, end = where.start[order][first], np.maximum.reduceat(where.end[order], first)
    names: list[str] = []
    seen: Counter[str] = Counter()
    for c, a, b in zip(chrom, start, end, strict=True):
        name = UNPLACED if c < 0 else f"{where.chroms[c]}:{a:,}-{b:,}"
        seen[name] += 1
        # features with equal coordinates can fill two patches; names are used as an index, so they must differ
        more = f" ({seen[name]})" if seen[name] > 1 else ""
        names.append(f"{name}:{seen[name]}" if c < 0 else name + more)
    return tuple(names)
