"""Passes over values are the same whether they are kept in memory or read again."""

import numpy as np
import pytest
import torch

from scmamba_scvi import SCMAMBA
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.model.fitting import passes
from scmamba_scvi.model.fitting.initialization import fit_values
from scmamba_scvi.model.fitting.passes import Values


def dense(blocks):
    return torch.cat([block.to_dense() for block in blocks])


@pytest.mark.parametrize("kind", ["rna", "atac", "protein"])
def test_kept_values_are_those_that_are_read_again(monkeypatch, kind):
    mdata = simulate_multiome(n_cells=120, n_genes=40, n_peaks=60, n_proteins=20, n_batches=1, seed=0)
    mdata.mod[kind] = mdata[kind][: 100 if kind == "atac" else 120].copy()  # some cells lack it
    mdata.update()
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata)
    cells = np.random.default_rng(0).permutation(120)[:110]
    fit_values(model.module, model._matrices(), cells, known_counts=True)
    matrix = model._matrices()[kind]
    monkeypatch.setattr(passes, "BLOCK", 30)
    kept = Values(model.module, matrix, kind, cells)
    monkeypatch.setattr(passes, "free_bytes", lambda device: 0)
    read = Values(model.module, matrix, kind, cells)
    assert kept() is kept() and read() is not read()
    sizes = [block.shape[0] for block in kept()]
    assert max(sizes) - min(sizes) < len(sizes)  # no small block is left over
    assert len(dense(kept())) == matrix.present(cells).sum()
    torch.testing.assert_close(dense(kept()), dense(read()), rtol=0, atol=0)
    chosen = torch.arange(110) % 3 > 0
    wanted = cells[chosen.numpy()]
    expected = model.module.transform(matrix.read(wanted[matrix.present(wanted)]), kind).to_dense()
    for begin in (kept.of_cells(chosen), read.of_cells(chosen)):
        for _ in range(2):  # a second pass too
            torch.testing.assert_close(dense(begin()), expected)


def test_values_of_many_cells_are_not_kept():
    """What they take would grow with the data, beyond what a laptop has left beside them."""
    mdata = simulate_multiome(n_cells=1_500, n_genes=30, n_peaks=30, n_batches=1, seed=0)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata)
    fit_values(model.module, model._matrices(), np.arange(1_500), known_counts=True)
    for kind, matrix in model._matrices().items():
        for n_cells, is_kept in ((100, True), (1_500, False)):
            values = Values(model.module, matrix, kind, np.arange(n_cells))
            assert (values() is values()) == is_kept, (kind, n_cells)
