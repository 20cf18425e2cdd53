"""How many directions of each modality the initialization looks at."""

import mudata
import numpy as np
import pytest
import torch

from scmamba_scvi import SCMAMBA
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.model.fitting import initialization
from scmamba_scvi.model.fitting.initialization import decompose, fit_values, n_spectral_components


@pytest.mark.parametrize(
    ("kinds", "few", "many"),
    [({"n_peaks": 300}, 20, 64), ({"n_peaks": 0, "n_proteins": 150}, 40, 128)],
    ids=["accessibility", "proteins"],
)
def test_rna_and_proteins_have_twice_as_many_directions_at_any_size(kinds, few, many):
    mdata = simulate_multiome(n_cells=160, n_genes=200, n_cell_types=3, n_batches=1, seed=0, **kinds)
    SCMAMBA.setup_mudata(mdata)
    module = (model := SCMAMBA(mdata, encoder="linear")).module
    assert [n_spectral_components(module, n) for n in (4, 160, 10_000)] == [2, few, many]
    cells, matrices = np.arange(160), model._matrices()
    fit_values(module, matrices, cells, known_counts=True)
    found = decompose(module, matrices, cells)
    assert {svd.components.shape[1] for svd in found.values()} == {few}


def test_directions_count_by_their_held_out_correlation_smoothed_and_raised(monkeypatch):
    """Single correlations scatter: the falling curve nearest to .9, .5, .7, .2, -.1 has .6 twice, and no direction less than 0."""
    scattered = torch.tensor([0.9, 0.5, 0.7, 0.2, -0.1])
    monkeypatch.setattr(initialization, "held_out_correlations", lambda *_, **__: scattered)
    mdata = simulate_multiome(n_cells=60, n_genes=50, n_peaks=80, seed=0)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    cells, matrices = np.arange(60), model._matrices()
    fit_values(model.module, matrices, cells, known_counts=True)
    weights = initialization.direction_weights(model.module, matrices, cells, 5, seed=0)
    np.testing.assert_allclose(weights, np.array([0.9, 0.6, 0.6, 0.2, 0]) ** 0.75, rtol=1e-6)


def test_a_modality_of_few_among_many_cells_enters_the_initialization(quick, monkeypatch):
    """Of 600 cells with RNA and proteins 15 have accessibility; a plain sample of 60 would hold one or two of them."""
    monkeypatch.setattr("scmamba_scvi.model.fitting.initialization.MAX_CELLS_OF_WEIGHTS", 60)
    monkeypatch.setattr("scmamba_scvi.model.fitting.mixin.MAX_CELLS", 60)
    whole = simulate_multiome(n_cells=600, n_genes=80, n_peaks=150, n_proteins=20, n_cell_types=3, seed=0)
    mdata = mudata.MuData({**whole.mod, "atac": whole["atac"][:15].copy()})
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(**quick, datasplitter_kwargs={"external_indexing": [np.r_[5:500], np.r_[:5, 500:600], []]})
    embedded = np.isfinite(model.get_latent_representation(modality="atac")).all(axis=1)
    assert embedded.sum() == 15
    assert sorted(model.training_summary_["validation_matches"]) == [5, 5, 105]


def test_negative_values_are_read_as_they_are_or_refused(quick):
    """Proteins normalised by dsb are below zero where a cell has less than empty droplets have."""
    mdata = simulate_multiome(n_cells=120, n_genes=80, n_peaks=0, n_proteins=20, n_cell_types=3, seed=0)
    mdata["protein"].X = mdata["protein"].X.toarray() - 5
    SCMAMBA.setup_mudata(mdata, require_counts=False)
    with pytest.raises(ScmambaError, match=r"protein has negative values.*values=\{'protein': 'raw'\}"):
        SCMAMBA(mdata, encoder="linear").train(**quick)
    model = SCMAMBA(mdata, encoder="linear", values={"protein": "raw"})
    model.train(**quick)
    assert np.isfinite(model.get_latent_representation()).all()
