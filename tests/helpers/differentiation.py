"""Simulated cells along a path that divides in two, with the time and the branch of each known."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from mudata import MuData

from scmamba_scvi.data._cells import Cells, draw_presence, make_obs
from scmamba_scvi.data._programs import N_STATES, structure_of
from scmamba_scvi.data._simulate import complete_arguments, make_multiome

#: Time at which the path divides.
FORK: Final = 0.4
#: Cell types along the path: the start, the fork, and the two ends.
STAGES: Final = ("start", "fork", "end_1", "end_2")


def simulate_differentiation(n_cells: int, n_genes: int, n_peaks: int, seed: int = 0) -> MuData:
    """Cells with gene expression and accessibility along a path that divides in two, otherwise as `simulate_multiome`.

    Time, ``obs["pseudotime"]``, is uniform in 0 to 1. Up to 0.4 all cells (``obs["branch"]`` is ``trunk``) change from the
    program of the start to that of the fork; then each goes on to the program of one of two ends. ``obs["cell_type"]`` is
    the nearest of ``start``, ``fork``, ``end_1``, ``end_2``.
    """
    arguments = complete_arguments({
        "n_cells": n_cells, "n_genes": n_genes, "n_peaks": n_peaks, "n_cell_types": len(STAGES), "n_batches": 1,
        "n_proteins": 0, "rna_counts": None, "atac_counts": None, "protein_counts": None, "rare_fraction": 0.01,
        "batch_strength": 0.15, "state_strength": 0.3, "paired_fraction": 1.0,
    })  # fmt: skip
    rng = np.random.default_rng(seed)
    time, branch = rng.random(n_cells), rng.integers(2, size=n_cells)
    cells = _draw_cells(rng, _stage_fractions(time, branch), 1)
    has = draw_presence(rng, n_cells, 1.0, ("rna", "atac"))
    mdata = make_multiome(rng, cells, has, arguments)
    rows = cells.obs.index.get_indexer(mdata.obs_names)
    mdata.obs["pseudotime"] = time[rows]
    name = np.where(time < FORK, "trunk", np.char.add("branch_", (branch + 1).astype(str)))
    mdata.obs["branch"] = pd.Categorical(name[rows], categories=["trunk", "branch_1", "branch_2"])
    return mdata


def _stage_fractions(time: np.ndarray, branch: np.ndarray) -> np.ndarray:
    """Fraction of each of `STAGES` in each cell, rows sum to one, ``(n, 4)``."""
    before, after = np.clip(time / FORK, 0, 1), np.clip((time - FORK) / (1 - FORK), 0, 1)
    fractions = np.zeros((len(time), len(STAGES)))
    fractions[:, 0], fractions[:, 1] = 1 - before, before * (1 - after)
    fractions[np.arange(len(time)), 2 + branch] = after
    return fractions


def _draw_cells(rng: np.random.Generator, stage_fractions: np.ndarray, n_batches: int) -> Cells:
    """Cells whose types are the stages, mixed as ``stage_fractions`` ``(n, 4)`` says."""
    n, structure = len(stage_fractions), structure_of(len(STAGES))
    state = rng.normal(size=(n, N_STATES))
    levels = np.zeros((n, structure.n_shared))
    levels[:, 0] = 1
    # lineages group the types of a tree, and there is none here: all cells have as much of each
    levels[:, 1 : structure.first_type] = 1 / structure.n_lineages
    levels[:, structure.first_type : structure.first_type + len(STAGES)] = 2 * stage_fractions
    levels[:, structure.first_type + len(STAGES) :] = np.exp(0.5 * state)
    stage = pd.Categorical.from_codes(stage_fractions.argmax(1), categories=list(STAGES))
    return Cells(structure, make_obs(stage, n_batches), levels, state.astype(np.float32), rng.normal(size=n))
