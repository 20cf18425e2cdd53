"""Cells on their way from one type to two others, with the time and the branch of each known."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from mudata import MuData

from ..errors import ScmambaError
from ._programs import N_STATES, Structure
from ._simulate import _Cells, _check, _draw_presence, _median_counts, _numbered, multiome_of

#: Time at which the path divides.
FORK: Final = 0.4
#: What cells are on the way: the start, the fork, and the two ends.
STAGES: Final = ("start", "fork", "end_1", "end_2")


def simulate_differentiation(
    n_cells: int = 1500,
    n_genes: int = 1000,
    n_peaks: int = 3000,
    n_batches: int = 1,
    seed: int = 0,
    *,
    rna_counts: float | None = None,
    atac_counts: float | None = None,
    batch_strength: float = 0.15,
    state_strength: float = 0.3,
    paired_fraction: float = 1.0,
) -> MuData:
    """Cells with gene expression and accessibility along a path that divides in two.

    Time is uniform in 0 to 1. Up to 0.4 all cells change from the program of the start to that of the fork; then each of
    them goes on to the program of one of two ends. Genes, peaks, batches and counts are as in
    :func:`simulate_multiome`.

    Parameters
    ----------
    n_cells, n_genes, n_peaks, n_batches, seed, rna_counts, atac_counts, batch_strength, paired_fraction
        As in :func:`simulate_multiome`.
    state_strength
        As there; what cells of the same time differ in.

    Returns
    -------
    As :func:`simulate_multiome`, with ``obs["pseudotime"]``, ``obs["branch"]`` (``trunk``, ``branch_1``, ``branch_2``) and
    as ``cell_type`` the nearest of ``start``, ``fork``, ``end_1``, ``end_2``.

    Raises
    ------
    ScmambaError
        As :func:`simulate_multiome`.

    Examples
    --------
    >>> mdata = data.simulate_differentiation(n_cells=100, n_genes=50, n_peaks=80)
    >>> mdata["rna"].shape, mdata["atac"].shape
    ((100, 50), (100, 80))
    """
    given = dict(locals()) | {"n_cell_types": len(STAGES), "rare_fraction": 0.1}
    given["rna_counts"] = _median_counts(rna_counts, 2500, n_genes / 20_000)
    given["atac_counts"] = _median_counts(atac_counts, 3300, n_peaks / 100_000)
    _check(given)
    if n_cells < 20:
        raise ScmambaError(f"{n_cells} cells make no path: raise n_cells to 20 at least.")
    rng = np.random.default_rng(seed)
    time, branch = rng.random(n_cells), rng.integers(2, size=n_cells)
    amount = _stages(time, branch)  # (n, 4)
    cells = _cells(rng, amount, n_batches)
    has = _draw_presence(rng, n_cells, paired_fraction, ("rna", "atac"))
    mdata = multiome_of(rng, cells, has, given)
    rows = cells.obs.index.get_indexer(mdata.obs_names)
    mdata.obs["pseudotime"] = time[rows]
    name = np.where(time < FORK, "trunk", np.char.add("branch_", (branch + 1).astype(str)))
    mdata.obs["branch"] = pd.Categorical(name[rows], categories=["trunk", "branch_1", "branch_2"])
    return mdata


def _stages(time: np.ndarray, branch: np.ndarray) -> np.ndarray:
    """How much of each of `STAGES` a cell is, rows sum to one."""
    before, after = np.clip(time / FORK, 0, 1), np.clip((time - FORK) / (1 - FORK), 0, 1)
    amount = np.zeros((len(time), len(STAGES)))
    amount[:, 0], amount[:, 1] = 1 - before, before * (1 - after)
    amount[np.arange(len(time)), 2 + branch] = after
    return amount


def _cells(rng: np.random.Generator, amount: np.ndarray, n_batches: int) -> _Cells:
    n, structure = len(amount), Structure(len(STAGES))
    state = rng.normal(size=(n, N_STATES))
    levels = np.zeros((n, structure.n_shared))
    levels[:, 0] = 1
    # lineages group types of a tree, and a path has none: all cells have as much of each
    levels[:, 1 : structure.first_type] = 1 / structure.n_lineages
    levels[:, structure.first_type : structure.first_type + len(STAGES)] = 2 * amount
    levels[:, structure.first_type + len(STAGES) :] = np.exp(0.5 * state)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(amount.argmax(1), categories=list(STAGES)),
            "batch": _numbered("batch", np.arange(n) * n_batches // n, n_batches),
        },
        index=[f"cell_{i:0{len(str(n))}d}" for i in range(1, n + 1)],
    )
    return _Cells(structure, obs, levels, state.astype(np.float32), rng.normal(size=n))
