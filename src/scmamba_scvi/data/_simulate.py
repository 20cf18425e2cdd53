"""Multimodal cells with known truth: types, states, batches, and peaks that follow their genes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from anndata import AnnData
from mudata import MuData

from .._arguments import check_count
from .._compat import without_pulling
from ..errors import ScmambaError
from ._cells import Cells, draw_cells, draw_presence
from ._counts import choose_coding_genes, draw_counts, draw_protein_counts, usual_counts
from ._programs import gene_programs, peak_programs, place_genes, place_peaks, structure_of


def simulate_multiome(
    n_cells: int = 2000,
    n_genes: int = 2000,
    n_peaks: int = 10000,
    n_cell_types: int = 8,
    n_batches: int = 2,
    seed: int = 0,
    *,
    n_proteins: int = 0,
    rna_counts: float | None = None,
    atac_counts: float | None = None,
    protein_counts: float | None = None,
    rare_fraction: float = 0.02,
    batch_strength: float = 0.15,
    state_strength: float = 1.0,
    paired_fraction: float = 1.0,
) -> MuData:
    """Cells with gene expression and chromatin accessibility; or, with ``n_peaks=0``, surface proteins; or all three.

    A cell mixes programs: a base, one of its lineage, one of its type, and continuous states that run through all
    types. A program is a distribution over genes and over the peaks that follow them. Some cells are on their way to
    another type of their lineage. States tell a cell's own true match from other cells of its type; each modality has
    private states too. Counts are multinomial, with log-normal library sizes that the modalities hardly share. A protein
    follows the gene that codes for it: its counts are a background plus what the gene's rate adds, with negative-binomial
    noise.

    Parameters
    ----------
    n_cells, n_genes, n_peaks, n_cell_types, n_batches, n_proteins
        Sizes. Cells are grouped by batch, as samples that were concatenated. Without peaks or without proteins there is no
        such modality; proteins are at most as many as genes, most of them coded by markers.
    seed
        The same seed gives the same data.
    rna_counts, atac_counts, protein_counts
        Median counts per cell. None: 60 per protein, ``2500 * (n_genes / 20000) ** 0.7`` and
        ``3300 * (n_peaks / 100000) ** 0.7``, fewer than 10 % and 5 % non-zero entries at 20,000 genes and 100,000 peaks, and
        denser where fewer features were kept.
    rare_fraction
        Fraction of the cells in the rarest type. Fractions fall geometrically from the first type to the last.
    batch_strength
        Standard deviation of the logarithm of the factor by which a batch changes each feature; 0: no batch effect.
    state_strength
        Multiplies the fraction of counts that come from states; 0: cells of a type differ by chance alone.
    paired_fraction
        Fraction of the cells that have all modalities. The others have one, as many cells each.

    Returns
    -------
    MuData with modalities ``rna``, ``atac`` and ``protein``, counts as float32 CSR, and

    - ``obs["cell_type"]`` and ``obs["batch"]``, categorical, also in each modality; ``obsm["X_state"]``, the true
      logarithmic levels of the states;
    - in ``var``: ``chrom``, ``start``, ``end`` (not of proteins) and ``strand`` (of genes), ``feature_types``, ``marker_of``
      (the type whose program the feature belongs to, or ``""``), and for peaks and proteins ``linked_gene`` (the gene it
      follows, or ``""``);
    - ``uns["simulation"]``, the arguments.

    Raises
    ------
    ScmambaError
        Sizes below 1, neither peaks nor proteins, fewer cells than types or than batches, fewer genes than proteins, counts
        that are not above 0, negative strengths, or fractions out of range.

    Examples
    --------
    >>> mdata = data.simulate_multiome(
    ...     n_cells=100, n_genes=50, n_peaks=80, n_cell_types=3
    ... )
    >>> mdata["rna"].shape, mdata["atac"].shape
    ((100, 50), (100, 80))
    >>> mdata = data.simulate_multiome(n_genes=50, n_peaks=0, n_proteins=10)
    >>> list(mdata.mod)
    ['rna', 'protein']
    """
    arguments = complete_arguments(locals())
    rng = np.random.default_rng(seed)
    cells = draw_cells(rng, n_cells, n_batches, structure_of(n_cell_types), rare_fraction)
    kinds = ["rna", *(kind for kind, n in {"atac": n_peaks, "protein": n_proteins}.items() if n)]
    has = draw_presence(rng, n_cells, paired_fraction, kinds)
    return make_multiome(rng, cells, has, arguments)


def make_multiome(
    rng: np.random.Generator, cells: Cells, has: Mapping[str, np.ndarray], arguments: Mapping[str, Any]
) -> MuData:
    """Features and counts of ``cells``, of which ``has`` says who has each modality; ``arguments`` are complete."""
    structure = cells.structure
    genes = place_genes(rng, arguments["n_genes"])
    genes.index = [f"GENE{i:0{len(str(len(genes)))}d}" for i in range(1, len(genes) + 1)]
    genes = genes.assign(feature_types="Gene Expression")
    programs = gene_programs(rng, len(genes), structure)
    genes["marker_of"] = _marker_of(programs, cells)
    if "atac" in has:
        peaks, gene = place_peaks(rng, arguments["n_peaks"], genes)
    x, mixture = draw_counts(rng, cells, "rna", has["rna"], programs, arguments)
    modalities = {"rna": AnnData(x, obs=cells.obs[has["rna"]], var=genes)}
    if "atac" in has:
        of_peaks = peak_programs(rng, gene, programs, structure)
        peaks.index = [f"{c}:{a}-{b}" for c, a, b in zip(peaks["chrom"], peaks["start"], peaks["end"], strict=True)]
        peaks = peaks.assign(
            feature_types="Peaks", linked_gene=np.append(genes.index, "")[gene], marker_of=_marker_of(of_peaks, cells)
        )
        x, _ = draw_counts(rng, cells, "atac", has["atac"], of_peaks, arguments)
        modalities["atac"] = AnnData(x, obs=cells.obs[has["atac"]], var=peaks)
    if "protein" in has:
        coding = choose_coding_genes(rng, programs, structure, arguments["n_proteins"])
        # private programs are left out: they exist in the RNA only
        rate = mixture[:, : structure.n_shared] @ programs[: structure.n_shared, coding]  # (n, n_proteins)
        x = draw_protein_counts(
            rng, cells, has["protein"], rate, arguments["protein_counts"], arguments["batch_strength"]
        )
        proteins = genes.iloc[coding][["marker_of"]].assign(
            feature_types="Antibody Capture", linked_gene=genes.index[coding]
        )
        modalities["protein"] = AnnData(x, obs=cells.obs[has["protein"]], var=proteins.add_prefix("ADT_", axis=0))
    with without_pulling():
        mdata = MuData(modalities)
        rows = cells.obs.index.get_indexer(mdata.obs_names)
        for name in cells.obs:
            mdata.obs[name] = cells.obs[name].array[rows]  # stays categorical
        mdata.obsm["X_state"] = cells.state[rows]
        mdata.uns["simulation"] = dict(arguments)
    return mdata


def complete_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a simulation with usual median counts in place of `None`; those that cannot be used are refused."""
    arguments = dict(given)
    check_count("seed", arguments.get("seed", 0), 0)
    for name, value in arguments.items():
        if name.startswith("n_"):
            check_count(name, value, 0 if name in ("n_peaks", "n_proteins") else 1)
    for kind, features in (("rna", "n_genes"), ("atac", "n_peaks"), ("protein", "n_proteins")):
        counts = arguments[f"{kind}_counts"]
        arguments[f"{kind}_counts"] = float(
            usual_counts(kind, max(1, arguments[features])) if counts is None else counts
        )
    for name, value in arguments.items():
        if name.endswith("_counts") and not value > 0 or name.endswith("_strength") and not value >= 0:
            raise ScmambaError(f"{name} must {'be above 0' if 'counts' in name else 'not be negative'}, got {value}.")
    for name, groups in (("n_cell_types", "types"), ("n_batches", "batches")):
        if arguments["n_cells"] < arguments[name]:
            raise ScmambaError(
                f"{arguments['n_cells']} cells do not fill {arguments[name]} {groups}: raise n_cells or lower {name}."
            )
    if not 0 < arguments["rare_fraction"] <= 1 / arguments["n_cell_types"]:
        raise ScmambaError(
            f"rare_fraction must be above 0 and at most 1 / n_cell_types = {1 / arguments['n_cell_types']:.3g}, since the "
            f"rarest type cannot have more than an equal fraction; got {arguments['rare_fraction']}."
        )
    if not 0 <= arguments["paired_fraction"] <= 1:
        raise ScmambaError(f"paired_fraction must be in [0, 1], got {arguments['paired_fraction']}.")
    if not arguments["n_peaks"] and not arguments["n_proteins"]:
        raise ScmambaError("n_peaks and n_proteins are 0: a second modality is needed.")
    if arguments["n_proteins"] > arguments["n_genes"]:
        raise ScmambaError(
            f"Each protein is coded by a gene of its own: {arguments['n_proteins']} proteins need as many genes, "
            f"n_genes is {arguments['n_genes']}."
        )
    return arguments


def _marker_of(programs: np.ndarray, cells: Cells) -> np.ndarray:
    """Type whose program holds each feature, ``""`` for none; of several types the one that gives it most weight."""
    first = cells.structure.first_type
    of_types = programs[first : first + cells.structure.n_types]
    names = np.append(cells.obs["cell_type"].cat.categories, "")
    return names[np.where(of_types.max(0) > 0, of_types.argmax(0), -1)]
