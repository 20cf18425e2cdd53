"""The truth about simulated cells: their types, batches and states, and which modalities were measured."""

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from ._programs import N_STATES, Structure

#: Parameters of the beta distribution of the fraction of its own type's program in a cell; the rest is a sibling's.
_OWN_TYPE: Final = (4.0, 1.0)
#: Spread of the levels of lineages and types over cells, standard deviation of their logarithm.
_TYPE_SPREAD: Final = 0.25
#: The same for states and private programs.
STATE_SPREAD: Final = 0.9


@dataclasses.dataclass(frozen=True)
class Cells:
    """What is true of the cells, whatever is measured."""

    structure: Structure
    obs: pd.DataFrame  # cell_type, batch; sorted by batch
    levels: np.ndarray  # (n, n_shared) how much of each shared program a cell has, 1 on average where it has any
    state: np.ndarray  # (n, N_STATES) logarithm of the levels of the states, standard normal within a type
    depth: np.ndarray  # (n,) standard normal, the part of the library size that modalities share


def draw_cells(
    rng: np.random.Generator, n_cells: int, n_batches: int, structure: Structure, rare_fraction: float
) -> Cells:
    """Cells of all types in random order, some of them between two types of one lineage."""
    n_types = structure.n_types
    type_of = rng.permutation(np.repeat(np.arange(n_types), _type_sizes(n_cells, n_types, rare_fraction)))
    # types differ in their mean state, cells of a type differ more
    state = rng.normal(size=(n_types, N_STATES))[type_of] * 0.4 + rng.normal(size=(n_cells, N_STATES))
    levels = np.zeros((n_cells, structure.n_shared))
    levels[:, 0] = 1
    rows, lineage_of = np.arange(n_cells), structure.lineage_of
    levels[rows, 1 + lineage_of[type_of]] = log_normal(rng.normal(size=n_cells), _TYPE_SPREAD)
    # the sibling is the next type of the lineage, the first one after the last: the type itself if it is alone
    first, n_siblings = np.searchsorted(lineage_of, lineage_of), np.bincount(lineage_of)[lineage_of]
    sibling = first + (np.arange(n_types) - first + 1) % n_siblings
    level, own = log_normal(rng.normal(size=n_cells), _TYPE_SPREAD), rng.beta(*_OWN_TYPE, size=n_cells)
    np.add.at(levels, (rows, structure.first_type + type_of), level * own)
    np.add.at(levels, (rows, structure.first_type + sibling[type_of]), level * (1 - own))
    levels[:, structure.first_type + n_types :] = log_normal(state, STATE_SPREAD)
    obs = make_obs(numbered("type", type_of, n_types), n_batches)
    return Cells(structure, obs, levels, state.astype(np.float32), rng.normal(size=n_cells))


def draw_presence(
    rng: np.random.Generator, n_cells: int, paired_fraction: float, kinds: Sequence[str]
) -> dict[str, np.ndarray]:
    """Which cells have each modality, bool ``(n,)``: all of them, or one."""
    order = rng.permutation(n_cells)
    single = order[round(paired_fraction * n_cells) :]
    has = {kind: np.ones(n_cells, dtype=bool) for kind in kinds}
    for i, kind in enumerate(kinds):
        has[kind][single] = np.arange(len(single)) % len(kinds) == i
    return has


def make_obs(cell_type: pd.Categorical, n_batches: int) -> pd.DataFrame:
    """Table of the cells, with batches of one size that follow one another."""
    n = len(cell_type)
    return pd.DataFrame(
        {"cell_type": cell_type, "batch": numbered("batch", np.arange(n) * n_batches // n, n_batches)},
        index=[f"cell_{i:0{len(str(n))}d}" for i in range(1, n + 1)],
    )


def numbered(name: str, code: np.ndarray, n: int) -> pd.Categorical:
    """Categories ``name_1`` to ``name_n``, padded with zeros so that they sort as numbers, for codes from 0."""
    return pd.Categorical.from_codes(code, categories=[f"{name}_{i:0{len(str(n))}d}" for i in range(1, n + 1)])


def log_normal(normal: np.ndarray, spread: float) -> np.ndarray:
    """Log-normal numbers of mean one from standard normal ones."""
    return np.exp(spread * normal - spread**2 / 2)


def _type_sizes(n_cells: int, n_types: int, rare_fraction: float) -> np.ndarray:
    """Number of cells of each type, falling geometrically to ``rare_fraction`` of all, at least one each."""
    if n_types == 1:
        return np.array([n_cells])
    powers = np.arange(n_types)
    low, high = 0.0, 1.0
    for _ in range(60):  # bisection: the fraction of the last type rises with the ratio
        ratio = (low + high) / 2
        fraction = ratio**powers / (ratio**powers).sum()
        low, high = (ratio, high) if fraction[-1] < rare_fraction else (low, ratio)
    sizes = np.maximum(1, np.floor(fraction * n_cells).astype(int))
    sizes[0] += n_cells - sizes.sum()
    return sizes
