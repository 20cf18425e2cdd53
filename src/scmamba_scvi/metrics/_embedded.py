"""One method's embeddings in the shapes that scores are computed on, with what several scores take computed once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import pandas as pd
import torch

from .._compat import warn
from .._keys import JOINT
from ..errors import ScmambaError, written
from ._clusters import LeidenScores, leiden_ari_nmi
from ._matching import TrueMatchRanks, true_match_ranks
from ._mixing import of_other_modality
from .distances import query_rows

#: Up to this many rows the neighbours of all of them are searched; above, those of `N_QUERIES` drawn at random, still
#: among all. This estimates the same number in a time that does not grow with the square of the rows.
ALL_QUERIES_UP_TO: Final = 50_000
N_QUERIES: Final = 20_000
#: Neighbours of a cell, as in most neighbour graphs; cells of a type that are asked for theirs at least.
N_NEIGHBORS: Final = 15
ASKED_OF_TYPE: Final = 100
#: Scores of fewer cells with both modalities say little, and some, which look for 15 neighbours, cannot be had.
FEW_CELLS: Final = 20


@dataclass(frozen=True)
class Points:
    """Rows of an embedding and the cell that each belongs to.

    ``x`` is ``(m, z)``, all finite; ``cell`` ``(m,)`` the position of each row's cell; ``modality`` ``(m,)``.
    """

    x: np.ndarray
    cell: np.ndarray
    modality: np.ndarray

    def with_values(self, values: np.ndarray, argument: str) -> tuple[Points, np.ndarray]:
        """The rows of the cells that have one of the values ``(n,)``, and those values."""
        known = pd.notna(values)[self.cell]
        if not known.any():
            what = "" if pd.isna(values).all() else "cell with a value of "
            raise ScmambaError(f"no {what}{written(argument)}")
        cell = self.cell[known]
        return Points(self.x[known], cell, self.modality[known]), values[cell]

    @property
    def max_queries(self) -> int | None:
        """Rows whose neighbours are searched; ``None`` for all."""
        return _max_queries(len(self.x))


@dataclass(frozen=True)
class Pair:
    """Two modalities, the positions of the cells that have both ``(p,)``, and their embeddings, each ``(p, z)``."""

    modalities: tuple[str, str]
    cell: np.ndarray
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Embedded:
    """One method's embeddings of ``n`` cells, with what several scores take computed once.

    What the data lack is a `ScmambaError` that says so, where a score asks for it.

    Attributes
    ----------
    joint
        ``(n, z)``, a row of NaN for a cell without embedding; ``None`` if there is none.
    modalities
        The same for each modality.
    labels, batches
        Objects ``(n,)``, ``None`` where missing, which may be everywhere.
    """

    joint: np.ndarray | None
    modalities: dict[str, np.ndarray]
    labels: np.ndarray
    batches: np.ndarray
    random_state: int
    device: str | torch.device | None

    @cached_property
    def stacked(self) -> Points:
        """The embeddings of two modalities or more, one below the other."""
        if len(self.modalities) < 2:
            raise ScmambaError("no embeddings of two modalities")
        return _points(self.modalities)

    @cached_property
    def cells(self) -> Points:
        """The embedding for scores of cell types and batches: joint, or the modalities if there is none."""
        return _points(self.modalities if self.joint is None else {JOINT: self.joint})

    def labelled(self, points: Points) -> tuple[Points, np.ndarray]:
        """The points whose cell has a label, and their labels."""
        return points.with_values(self.labels, "labels_key")

    @cached_property
    def in_batches(self) -> tuple[Points, np.ndarray]:
        """The cells whose batch is known, and their batches, of which there are two or more."""
        points, batches = self.cells.with_values(self.batches, "batch_key")
        if len(set(batches)) < 2:
            raise ScmambaError(f"all cells are of the batch {str(batches[0])!r}")
        return points, batches

    @cached_property
    def pairs(self) -> list[Pair]:
        """Each two modalities with at least two common cells; those with fewer than `FEW_CELLS` only if all have."""
        if len(self.modalities) < 2:
            raise ScmambaError("no embeddings of two modalities")
        pairs = []
        for (a, x), (b, y) in itertools.combinations(self.modalities.items(), 2):
            rows = np.intersect1d(_finite(x), _finite(y), assume_unique=True)
            if len(rows) > 1:
                pairs.append(Pair((a, b), rows, x[rows], y[rows]))
        if not pairs:
            raise ScmambaError("no two modalities have common cells")
        enough = [pair for pair in pairs if len(pair.cell) >= FEW_CELLS]
        if enough and (few := [pair for pair in pairs if len(pair.cell) < FEW_CELLS]):
            named = ", ".join(f"{pair.modalities[0]} and {pair.modalities[1]} ({len(pair.cell)})" for pair in few)
            warn(f"Modalities with fewer than {FEW_CELLS} common cells are not scored as a pair: {named}.")
        return enough or pairs

    @cached_property
    def ranks(self) -> list[TrueMatchRanks]:
        """One pass over the distances of every two modalities, from which all scores of true matches follow."""
        seed, device = self.random_state, self.device
        return [
            true_match_ranks(pair.x, pair.y, max_queries=_max_queries(len(pair.x)), random_state=seed, device=device)
            for pair in self.pairs
        ]

    @cached_property
    def mixing(self) -> list[np.ndarray]:
        """For each pair, the fraction of neighbours of the other modality ``(p,)``, NaN for cells that were not drawn."""
        return [
            np.where(np.isin(np.arange(len(mixed)), self._drawn(pair)), mixed, np.nan)
            for pair, mixed in zip(self.pairs, self.mixing_of_types, strict=True)
        ]

    @cached_property
    def mixing_of_types(self) -> list[np.ndarray]:
        """The same with `ASKED_OF_TYPE` cells of each type at least, or all that it has: no type is judged by fewer."""
        found = []
        for pair in self.pairs:
            drawn, types = self._drawn(pair), pd.factorize(self.labels[pair.cell])[0]
            others = np.setdiff1d(np.arange(len(types)), drawn)
            order = np.concatenate([drawn, np.random.default_rng(self.random_state).permutation(others)])
            number = pd.Series(order).groupby(types[order]).cumcount().to_numpy()  # within its type
            more = order[(number < ASKED_OF_TYPE) & (types[order] >= 0)]
            found.append(of_other_modality(pair.x, pair.y, np.union1d(drawn, more), N_NEIGHBORS, self.random_state))
        return found

    def _drawn(self, pair: Pair) -> np.ndarray:
        """Positions of the cells of a pair that are asked for their neighbours."""
        return query_rows(len(pair.x), _max_queries(2 * len(pair.x)), self.random_state)

    @cached_property
    def leiden(self) -> LeidenScores:
        """One graph and one sweep over resolutions for both ARI and NMI."""
        points, labels = self.labelled(self.cells)
        return leiden_ari_nmi(points.x, labels, random_state=self.random_state)


def _points(parts: dict[str, np.ndarray]) -> Points:
    """The finite rows of all parts, one below the other."""
    rows = {name: _finite(x) for name, x in parts.items()}
    return Points(
        np.concatenate([parts[name][own] for name, own in rows.items()]),
        np.concatenate(list(rows.values())),
        np.repeat(np.array(list(rows), dtype=object), [len(own) for own in rows.values()]),
    )


def _max_queries(n: int) -> int | None:
    return None if n <= ALL_QUERIES_UP_TO else N_QUERIES


def _finite(x: np.ndarray) -> np.ndarray:
    """Positions of the rows that hold an embedding."""
    return np.flatnonzero(np.isfinite(x).all(axis=1))
