"""Counts of simulated cells, from the programs that each cell mixes."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from scipy import sparse

from ._cells import STATE_SPREAD, Cells, log_normal
from ._programs import N_PRIVATE, N_STATES, Structure
from ._sampling import sample_mixture

#: What a cell's counts are made of, before its own levels vary them. Accessibility says less about the type.
_FRACTIONS: Final = {
    "rna": {"base": 0.70, "lineage": 0.07, "type": 0.07, "state": 0.10, "private": 0.06},
    "atac": {"base": 0.78, "lineage": 0.05, "type": 0.05, "state": 0.07, "private": 0.05},
}
#: Spread of the library sizes over cells, and how much of it (as a correlation) the modalities share.
_DEPTH_SPREAD: Final = {"rna": 0.4, "atac": 0.45, "protein": 0.35}
_DEPTH_SHARED: Final = 0.2
#: Median counts of a cell on a full set of features, and the size of that set.
_FULL_SIZE: Final = {"rna": (2500, 20_000), "atac": (3300, 100_000)}


def usual_counts(kind: str, n_features: int) -> float:
    """Median counts of a cell that are usual for this many features."""
    if kind == "protein":
        return 60 * n_features
    counts, full_size = _FULL_SIZE[kind]
    # who keeps fewer features keeps the abundant ones, so counts fall more slowly than features
    return counts * (n_features / full_size) ** 0.7


def _draw_mixture(rng: np.random.Generator, cells: Cells, kind: str, state_strength: float) -> np.ndarray:
    """Fraction of each program in the counts of each cell, rows sum to one, ``(n, k)``."""
    structure, fractions = cells.structure, _FRACTIONS[kind]
    fraction = np.r_[
        fractions["base"],
        np.full(structure.n_lineages, fractions["lineage"]),
        np.full(structure.n_types, fractions["type"]),
        np.full(N_STATES, fractions["state"] * state_strength / N_STATES),
        np.full(N_PRIVATE, fractions["private"] / N_PRIVATE),
    ]
    private = log_normal(rng.normal(size=(len(cells.levels), N_PRIVATE)), STATE_SPREAD)
    amount = np.hstack([cells.levels, private]) * fraction
    return amount / amount.sum(1, keepdims=True)


def draw_counts(
    rng: np.random.Generator,
    cells: Cells,
    kind: str,
    has: np.ndarray,
    programs: np.ndarray,
    arguments: Mapping[str, Any],
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Counts of the cells that have the modality, and the fraction of each program in all cells ``(n, k)``.

    Each batch multiplies every feature by a factor of its own.
    """
    mixture = _draw_mixture(rng, cells, kind, arguments["state_strength"])
    n_counts = rng.poisson(_depths(rng, cells, kind, arguments[f"{kind}_counts"]))
    parts = []
    for batch in cells.obs["batch"].cat.categories:
        rows = has & (cells.obs["batch"] == batch).to_numpy()
        seen = programs * np.exp(arguments["batch_strength"] * rng.normal(size=programs.shape[1]))
        parts.append(sample_mixture(rng, mixture[rows], seen / seen.sum(1, keepdims=True), n_counts[rows]))
    return sparse.vstack(parts, format="csr"), mixture


def choose_coding_genes(
    rng: np.random.Generator, programs: np.ndarray, structure: Structure, n_proteins: int
) -> np.ndarray:
    """Positions of the genes that code for the proteins, sorted; three in four are markers, as in a real panel."""
    in_program = rng.permutation(np.flatnonzero((programs[1 : structure.n_shared] > 0).any(0)))
    markers = in_program[: round(0.75 * n_proteins)]
    others = np.setdiff1d(np.arange(programs.shape[1]), markers)
    return np.sort(np.r_[markers, rng.choice(others, n_proteins - len(markers), replace=False)])


def draw_protein_counts(
    rng: np.random.Generator, cells: Cells, has: np.ndarray, rate: np.ndarray, median: float, batch_strength: float
) -> sparse.csr_matrix:
    """Negative-binomial counts of the cells that have proteins, from the rates ``(n, n_proteins)`` of their genes."""
    n_proteins = rate.shape[1]
    # antibodies differ by an order of magnitude in what sticks to any cell and in what their target adds
    background = rng.lognormal(0, 0.8, n_proteins)
    signal = background * rng.lognormal(np.log(3), 0.7, n_proteins) * rate / rate.mean(0)
    batch = cells.obs["batch"].cat
    factor = np.exp(batch_strength * rng.normal(size=(len(batch.categories), n_proteins)))[batch.codes]
    mean = (background + signal) * factor
    mean *= (_depths(rng, cells, "protein", median) / mean.sum(1).mean())[:, None]
    dispersion = rng.uniform(3, 12, n_proteins)
    counts = rng.poisson(rng.gamma(dispersion, mean[has] / dispersion))
    return sparse.csr_matrix(counts, dtype=np.float32)


def _depths(rng: np.random.Generator, cells: Cells, kind: str, median: float) -> np.ndarray:
    """Library size of each cell, ``(n,)``."""
    own = rng.normal(size=len(cells.depth))
    normal = np.sqrt(_DEPTH_SHARED) * cells.depth + np.sqrt(1 - _DEPTH_SHARED) * own
    return median * np.exp(_DEPTH_SPREAD[kind] * normal)
