from __future__ import annotations

import numpy as np
import pytest

from scmamba_scvi.data._programs import (
    CHROMOSOMES,
    gene_programs,
    peak_programs,
    place_genes,
    place_peaks,
    structure_of,
)


@pytest.mark.parametrize(("n_types", "n_lineages"), [(1, 1), (3, 1), (4, 2), (7, 3)])
def test_types_are_grouped_into_as_few_lineages_as_hold_three_each(n_types, n_lineages):
    structure = structure_of(n_types)
    assert structure.n_lineages == n_lineages
    assert (np.diff(structure.lineage_of) >= 0).all() and np.bincount(structure.lineage_of).max() <= 3
    assert structure.n_programs - structure.n_shared == 2


def test_features_are_sorted_inside_their_chromosomes_without_a_common_start():
    rng = np.random.default_rng(0)
    genes = place_genes(rng, 500)
    peaks, gene = place_peaks(rng, 2000, genes)
    for table in (genes, peaks):
        order = table["chrom"].cat.codes.to_numpy().astype(np.int64) * 10**9 + table["start"].to_numpy()
        assert (np.diff(order) > 0).all()
        assert (table["end"] < table["chrom"].map(CHROMOSOMES).astype(int)).all() and (table["start"] > 0).all()
    assert gene.min() == -1 and gene.max() < 500
    linked = gene >= 0
    assert (peaks["chrom"].cat.codes[linked].to_numpy() == genes["chrom"].cat.codes.to_numpy()[gene[linked]]).all()


def test_programs_of_genes_are_distributions_of_which_no_gene_is_in_two():
    structure = structure_of(5)
    programs = gene_programs(np.random.default_rng(1), 1000, structure)
    assert programs.shape == (structure.n_programs, 1000)
    np.testing.assert_allclose(programs.sum(1), 1)
    assert (programs[0] > 0).all() and ((programs[1:] > 0).sum(0) <= 1).all()
    assert ((programs[1:] > 0).sum(1) >= 30).all()


def test_peaks_are_active_in_the_programs_of_their_gene():
    structure, rng = structure_of(5), np.random.default_rng(2)
    of_genes = gene_programs(rng, 1000, structure)
    gene = rng.integers(-1, 1000, 3000)
    of_peaks = peak_programs(rng, gene, of_genes, structure)
    np.testing.assert_allclose(of_peaks.sum(1), 1)
    shared = slice(1, structure.n_shared)
    linked = gene >= 0
    np.testing.assert_array_equal(of_peaks[shared, linked] > 0, of_genes[shared][:, gene[linked]] > 0)


def test_few_genes_still_give_every_program_a_distribution():
    structure = structure_of(9)
    np.testing.assert_allclose(gene_programs(np.random.default_rng(3), 5, structure).sum(1), 1)
