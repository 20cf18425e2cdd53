"""Multimodal cells with known truth: types, states, batches, and peaks that follow their genes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from .._compat import without_pulling
from ..errors import ScmambaError
from . import _programs
from ._programs import N_PRIVATE, N_STATES, Structure, gene_programs, peak_programs, place_genes, place_peaks
from ._sampling import sample_mixture, stack_rows

#: What a cell's counts are made of, before its own levels vary them. Accessibility says less about the type.
_SHARES: Final = {
    "rna": {"base": 0.70, "lineage": 0.07, "type": 0.07, "state": 0.10, "private": 0.06},
    "atac": {"base": 0.78, "lineage": 0.05, "type": 0.05, "state": 0.07, "private": 0.05},
}
#: Parameters of the beta distribution of what a cell has of its own type; the rest is a sibling's.
_OWN_TYPE: Final = (4.0, 1.0)
#: Spread of the levels of states and types over cells, standard deviation of their logarithm.
_STATE_SPREAD, _TYPE_SPREAD = 0.9, 0.25
#: Spread of the library sizes over cells, and how much of it (as a correlation) the modalities share.
_DEPTH_SPREAD: Final = {"rna": 0.4, "atac": 0.45, "protein": 0.35}
_DEPTH_SHARED: Final = 0.2


def simulate_multiome(
    n_cells: int = 2000,
    n_genes: int = 2000,
    n_peaks: int = 10000,
    n_cell_types: int = 8,
    n_batches: int = 2,
    seed: int = 0,
    *,
    rna_counts: float | None = None,
    atac_counts: float | None = None,
    rare_fraction: float = 0.02,
    batch_strength: float = 0.15,
    state_strength: float = 1.0,
    paired_fraction: float = 1.0,
) -> MuData:
    """Cells with gene expression and chromatin accessibility.

    A cell mixes programs: a base, one of its lineage, one of its type, and continuous states that run through all
    types. A program is a distribution over genes and, through the neighbourhoods on the genome, over peaks: a marker
    gene and the peaks that follow it go up together. Some cells are on their way to another type of their lineage.
    States are what lets a cell find its own partner among cells of its type; each modality has private states too,
    which say nothing about the other. Counts are multinomial, with log-normal library sizes that the modalities hardly
    share.

    Parameters
    ----------
    n_cells, n_genes, n_peaks, n_cell_types, n_batches
        Sizes. Cells are grouped by batch, as samples that were put one behind the other.
    seed
        The same seed gives the same data.
    rna_counts, atac_counts
        Median counts per cell. None: ``2500 * (n_genes / 20000) ** 0.7`` and ``3300 * (n_peaks / 100000) ** 0.7``,
        about 7 % and 3 % non-zero entries at 20,000 genes and 100,000 peaks, and denser where fewer features were kept.
    rare_fraction
        Share of the cells in the rarest type. Shares fall geometrically from the first type to the last.
    batch_strength
        Standard deviation of the logarithm of the factor by which a batch changes each feature; 0: no batch effect.
    state_strength
        Multiplies the share of counts that come from states; 0: cells of a type differ by chance alone.
    paired_fraction
        Share of the cells that have both modalities. Of the others half have RNA only and half ATAC only.

    Returns
    -------
    MuData with modalities ``rna`` and ``atac``, counts as float32 CSR, and

    - ``obs["cell_type"]`` and ``obs["batch"]``, categorical, also in each modality; ``obsm["X_state"]``, the true
      logarithmic levels of the states;
    - in ``var``: ``chrom``, ``start``, ``end``, ``feature_types``, ``marker_of`` (the type whose program the feature
      belongs to, or ``""``), and for peaks ``linked_gene`` (the gene it follows, or ``""``);
    - ``uns["simulation"]``, the arguments.

    Raises
    ------
    ScmambaError
        Sizes below 1, fewer cells than batches times types, or shares that cannot be.

    Examples
    --------
    >>> mdata = data.simulate_multiome(n_cells=100, n_genes=50, n_peaks=80, n_cell_types=3)
    >>> mdata["rna"].shape, mdata["atac"].shape
    ((100, 50), (100, 80))
    """
    given = dict(locals())
    rna_counts = _median_counts(rna_counts, 2500, n_genes / 20_000)
    atac_counts = _median_counts(atac_counts, 3300, n_peaks / 100_000)
    given |= {"rna_counts": rna_counts, "atac_counts": atac_counts}
    _check(given)
    rng = np.random.default_rng(seed)
    structure = Structure(n_cell_types)
    cells = _draw_cells(rng, n_cells, n_batches, structure, rare_fraction)
    has = _draw_presence(rng, n_cells, paired_fraction, ("rna", "atac"))

    return multiome_of(rng, cells, has, given)


def simulate_citeseq(
    n_cells: int = 2000,
    n_genes: int = 2000,
    n_proteins: int = 50,
    n_cell_types: int = 8,
    n_batches: int = 2,
    seed: int = 0,
    *,
    rna_counts: float | None = None,
    protein_counts: float | None = None,
    rare_fraction: float = 0.02,
    batch_strength: float = 0.15,
    state_strength: float = 1.0,
    paired_fraction: float = 1.0,
) -> MuData:
    """Cells with gene expression and surface proteins.

    Genes are as in :func:`simulate_multiome`. A protein follows the gene that codes for it; its counts are a background
    plus what the gene's rate adds, with negative-binomial noise.

    Parameters
    ----------
    n_proteins
        At most ``n_genes``; most are coded by marker genes.
    protein_counts
        Median counts per cell. None: 60 per protein.
    n_cells, n_genes, n_cell_types, n_batches, seed, rna_counts, rare_fraction, batch_strength, state_strength, \
    paired_fraction
        As in :func:`simulate_multiome`.

    Returns
    -------
    MuData with modalities ``rna`` and ``protein``, otherwise as :func:`simulate_multiome`; proteins have no
    coordinates, and their ``linked_gene`` is the gene that codes for them.

    Raises
    ------
    ScmambaError
        As :func:`simulate_multiome`, and more proteins than genes.

    Examples
    --------
    >>> data.simulate_citeseq(n_cells=100, n_genes=50, n_proteins=10, n_cell_types=3)["protein"].shape
    (100, 10)
    """
    given = dict(locals())
    rna_counts = _median_counts(rna_counts, 2500, n_genes / 20_000)
    protein_counts = _median_counts(protein_counts, 60 * n_proteins, 1)
    given |= {"rna_counts": rna_counts, "protein_counts": protein_counts}
    _check(given)
    rng = np.random.default_rng(seed)
    structure = Structure(n_cell_types)
    cells = _draw_cells(rng, n_cells, n_batches, structure, rare_fraction)
    has = _draw_presence(rng, n_cells, paired_fraction, ("rna", "protein"))

    genes = _make_genes(rng, n_genes)
    programs = gene_programs(rng, n_genes, structure)
    mixture = _mixture(rng, cells, _SHARES["rna"], state_strength)
    x = _counts_by_batch(rng, cells, has["rna"], mixture, programs, _DEPTH_SPREAD["rna"], rna_counts, batch_strength)
    genes["marker_of"] = _marker_of(programs, cells)
    rna = AnnData(x, obs=cells.obs[has["rna"]], var=genes)

    coding = _coding_genes(rng, programs, structure, n_proteins)
    # what a cell does with genes of shared programs; its private ones are the RNA's alone
    rate = mixture[:, : structure.n_shared] @ programs[: structure.n_shared, coding]  # (n, n_proteins)
    y = _protein_counts(rng, cells, has["protein"], rate, protein_counts, batch_strength)
    proteins = pd.DataFrame(
        {
            "feature_types": "Antibody Capture",
            "linked_gene": genes.index[coding],
            "marker_of": genes["marker_of"].to_numpy()[coding],
        },
        index=[f"ADT_{name}" for name in genes.index[coding]],
    )
    return _to_mudata({"rna": rna, "protein": AnnData(y, obs=cells.obs[has["protein"]], var=proteins)}, cells, given)


def multiome_of(
    rng: np.random.Generator, cells: _Cells, has: Mapping[str, np.ndarray], given: Mapping[str, Any]
) -> MuData:
    """Genes, peaks and counts of ``cells``; ``has`` says which have each modality, ``given`` is as in the arguments above."""
    n_genes, n_peaks, structure = given["n_genes"], given["n_peaks"], cells.structure
    genes = _make_genes(rng, n_genes)
    programs = gene_programs(rng, n_genes, structure)
    peaks, gene = place_peaks(rng, n_peaks, genes)
    peaks.index = [f"{c}:{a}-{b}" for c, a, b in zip(peaks["chrom"], peaks["start"], peaks["end"], strict=True)]
    peaks = peaks.assign(feature_types="Peaks", linked_gene=np.append(genes.index, "")[gene])

    def modality(kind: str, var: pd.DataFrame, programs: np.ndarray, median: float) -> AnnData:
        mixture = _mixture(rng, cells, _SHARES[kind], given["state_strength"])
        x = _counts_by_batch(
            rng, cells, has[kind], mixture, programs, _DEPTH_SPREAD[kind], median, given["batch_strength"]
        )
        return AnnData(x, obs=cells.obs[has[kind]], var=var.assign(marker_of=_marker_of(programs, cells)))

    return _to_mudata(
        {
            "rna": modality("rna", genes, programs, given["rna_counts"]),
            "atac": modality("atac", peaks, peak_programs(rng, gene, programs, structure), given["atac_counts"]),
        },
        cells,
        dict(given),
    )


@dataclasses.dataclass(frozen=True)
class _Cells:
    """What is true of the cells, whatever is measured."""

    structure: Structure
    obs: pd.DataFrame  # cell_type, batch; sorted by batch
    levels: np.ndarray  # (n, n_shared) how much of each shared program a cell has, 1 on average where it has any
    state: np.ndarray  # (n, N_STATES) logarithm of the levels of the states, standard normal within a type
    depth: np.ndarray  # (n,) standard normal, the part of the library size that modalities share


def _draw_cells(
    rng: np.random.Generator, n_cells: int, n_batches: int, structure: Structure, rare_fraction: float
) -> _Cells:
    n_types = structure.n_types
    type_of = rng.permutation(np.repeat(np.arange(n_types), _programs.type_sizes(n_cells, n_types, rare_fraction)))
    batch_of = np.arange(n_cells) * n_batches // n_cells
    # types differ in their mean state, cells of a type differ more
    state = rng.normal(size=(n_types, N_STATES))[type_of] * 0.4 + rng.normal(size=(n_cells, N_STATES))
    levels = np.zeros((n_cells, structure.n_shared))
    levels[:, 0] = 1
    rows, lineage_of = np.arange(n_cells), structure.lineage_of
    levels[rows, 1 + lineage_of[type_of]] = _log_normal(rng.normal(size=n_cells), _TYPE_SPREAD)
    # the next type of the lineage, or the first after the last: itself where it has no sibling
    first, n_siblings = np.searchsorted(lineage_of, lineage_of), np.bincount(lineage_of)[lineage_of]
    sibling = first + (np.arange(n_types) - first + 1) % n_siblings
    level, own = _log_normal(rng.normal(size=n_cells), _TYPE_SPREAD), rng.beta(*_OWN_TYPE, size=n_cells)
    np.add.at(levels, (rows, structure.first_type + type_of), level * own)
    np.add.at(levels, (rows, structure.first_type + sibling[type_of]), level * (1 - own))
    levels[:, structure.first_type + n_types :] = _log_normal(state, _STATE_SPREAD)
    obs = pd.DataFrame(
        {"cell_type": _numbered("type", type_of, n_types), "batch": _numbered("batch", batch_of, n_batches)},
        index=[f"cell_{i:0{len(str(n_cells))}d}" for i in range(1, n_cells + 1)],
    )
    return _Cells(structure, obs, levels, state.astype(np.float32), rng.normal(size=n_cells))


def _draw_presence(
    rng: np.random.Generator, n_cells: int, paired_fraction: float, kinds: tuple[str, str]
) -> dict[str, np.ndarray]:
    """Which cells have each modality, bool ``(n,)``."""
    order = rng.permutation(n_cells)
    single = order[round(paired_fraction * n_cells) :]
    has = {kind: np.ones(n_cells, dtype=bool) for kind in kinds}
    has[kinds[1]][single[::2]] = False
    has[kinds[0]][single[1::2]] = False
    return has


def _make_genes(rng: np.random.Generator, n_genes: int) -> pd.DataFrame:
    genes = place_genes(rng, n_genes)
    genes.index = [f"GENE{i:0{len(str(n_genes))}d}" for i in range(1, n_genes + 1)]
    return genes.assign(feature_types="Gene Expression")


def _mixture(rng: np.random.Generator, cells: _Cells, shares: Mapping[str, float], state_strength: float) -> np.ndarray:
    """Share of each program in the counts of each cell, rows sum to one, ``(n, k)``."""
    s = cells.structure
    share = np.r_[
        shares["base"],
        np.full(s.n_lineages, shares["lineage"]),
        np.full(s.n_types, shares["type"]),
        np.full(N_STATES, shares["state"] * state_strength / N_STATES),
        np.full(N_PRIVATE, shares["private"] / N_PRIVATE),
    ]
    private = _log_normal(rng.normal(size=(len(cells.levels), N_PRIVATE)), _STATE_SPREAD)
    amount = np.hstack([cells.levels, private]) * share
    return amount / amount.sum(1, keepdims=True)


def _depths(rng: np.random.Generator, cells: _Cells, spread: float, median: float) -> np.ndarray:
    own = rng.normal(size=len(cells.depth))
    return median * np.exp(spread * (np.sqrt(_DEPTH_SHARED) * cells.depth + np.sqrt(1 - _DEPTH_SHARED) * own))


def _counts_by_batch(
    rng: np.random.Generator,
    cells: _Cells,
    has: np.ndarray,
    mixture: np.ndarray,
    programs: np.ndarray,
    spread: float,
    median: float,
    batch_strength: float,
) -> sparse.csr_matrix:
    """Counts of the cells that have the modality; each batch sees every feature by another factor."""
    n_counts = rng.poisson(_depths(rng, cells, spread, median))
    parts = []
    for batch in cells.obs["batch"].cat.categories:
        rows = has & (cells.obs["batch"] == batch).to_numpy()
        seen = programs * np.exp(batch_strength * rng.normal(size=programs.shape[1]))
        parts.append(sample_mixture(rng, mixture[rows], seen / seen.sum(1, keepdims=True), n_counts[rows]))
    return stack_rows(parts, programs.shape[1])


def _coding_genes(rng: np.random.Generator, programs: np.ndarray, s: Structure, n_proteins: int) -> np.ndarray:
    """Genes of the proteins, sorted: three in four from programs, where panels are chosen from."""
    in_program = rng.permutation(np.flatnonzero((programs[1 : s.n_shared] > 0).any(0)))
    markers = in_program[: round(0.75 * n_proteins)]
    others = np.setdiff1d(np.arange(programs.shape[1]), markers)
    return np.sort(np.r_[markers, rng.choice(others, n_proteins - len(markers), replace=False)])


def _protein_counts(
    rng: np.random.Generator, cells: _Cells, has: np.ndarray, rate: np.ndarray, median: float, batch_strength: float
) -> sparse.csr_matrix:
    """Negative-binomial counts of the cells that have proteins, float32 CSR."""
    n_proteins = rate.shape[1]
    # antibodies differ by an order of magnitude in what sticks to any cell and in what their target adds
    background = rng.lognormal(0, 0.8, n_proteins)
    signal = background * rng.lognormal(np.log(3), 0.7, n_proteins) * rate / rate.mean(0)
    n_batches = len(cells.obs["batch"].cat.categories)
    factor = np.exp(batch_strength * rng.normal(size=(n_batches, n_proteins)))[cells.obs["batch"].cat.codes]
    mean = (background + signal) * factor
    mean *= (_depths(rng, cells, _DEPTH_SPREAD["protein"], median) / mean.sum(1).mean())[:, None]
    dispersion = rng.uniform(3, 12, n_proteins)
    counts = rng.poisson(rng.gamma(dispersion, mean[has] / dispersion))
    return sparse.csr_matrix(counts, dtype=np.float32)


def _marker_of(programs: np.ndarray, cells: _Cells) -> np.ndarray:
    """Type whose program a feature is in, ``""`` for none; of several the one that leans on it most."""
    s = cells.structure
    of_types = programs[s.first_type : s.first_type + s.n_types]
    names = np.append(cells.obs["cell_type"].cat.categories, "")
    return names[np.where(of_types.max(0) > 0, of_types.argmax(0), -1)]


def _to_mudata(modalities: dict[str, AnnData], cells: _Cells, arguments: dict[str, Any]) -> MuData:
    with without_pulling():
        mdata = MuData(modalities)
        rows = cells.obs.index.get_indexer(mdata.obs_names)
        for name in cells.obs:
            mdata.obs[name] = cells.obs[name].array[rows]  # stays categorical
        mdata.obsm["X_state"] = cells.state[rows]
        mdata.uns["simulation"] = arguments
    return mdata


def _numbered(name: str, code: np.ndarray, n: int) -> pd.Categorical:
    return pd.Categorical.from_codes(code, categories=[f"{name}_{i:0{len(str(n))}d}" for i in range(1, n + 1)])


def _log_normal(normal: np.ndarray, spread: float) -> np.ndarray:
    """Log-normal of mean one."""
    return np.exp(spread * normal - spread**2 / 2)


def _median_counts(given: float | None, at_full_size: float, share_of_features: float) -> float:
    # who keeps fewer features keeps the abundant ones, so counts fall more slowly than features
    return float(at_full_size * share_of_features**0.7) if given is None else float(given)


def _check(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name.startswith("n_") and value < 1:
            raise ScmambaError(f"{name} must be at least 1, got {value}.")
        if name.endswith("_counts") and not value > 0:
            raise ScmambaError(f"{name}, the median counts of a cell, must be above 0, got {value}.")
        if name.endswith("_strength") and not value >= 0:
            raise ScmambaError(f"{name} must not be negative, got {value}.")
    n_types = given["n_cell_types"]
    if given["n_cells"] < max(n_types, given["n_batches"]):
        raise ScmambaError(
            f"{given['n_cells']} cells do not fill {n_types} types and {given['n_batches']} batches: raise n_cells."
        )
    if not 0 < given["rare_fraction"] <= 1 / n_types:
        raise ScmambaError(
            f"rare_fraction must be above 0 and at most 1 / n_cell_types = {1 / n_types:.3g}, since the rarest type "
            f"cannot have more than an equal share; got {given['rare_fraction']}."
        )
    if not 0 <= given["paired_fraction"] <= 1:
        raise ScmambaError(f"paired_fraction must be in [0, 1], got {given['paired_fraction']}.")
    if given.get("n_proteins", 0) > given["n_genes"]:
        raise ScmambaError(
            f"Each protein is coded by a gene of its own: {given['n_proteins']} proteins need as many genes, "
            f"n_genes is {given['n_genes']}."
        )
