"""How well held-out cells are matched, as training reads it."""

import numpy as np
import pytest
import torch

from scmamba_scvi.metrics import foscttm
from scmamba_scvi.model.fitting.held_out import MIN_PAIRS, retrieval_scores


def cells(n_of_protein, n=60):
    """Three modalities; the last ``n_of_protein`` cells have protein as well, which fits nothing."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n, 4, generator=generator)
    near = z + 0.1 * torch.randn(n, 4, generator=generator)
    protein = torch.randn(n, 4, generator=generator)
    everywhere, few = torch.ones(n, dtype=torch.bool), torch.arange(n) >= n - n_of_protein
    return {"rna": (z, everywhere), "atac": (near, everywhere), "protein": (protein, few)}


def test_modalities_that_few_cells_share_do_not_decide():
    of_all = cells(0)
    expected = float(np.mean(foscttm(of_all["rna"][0].numpy(), of_all["atac"][0].numpy())))
    assert retrieval_scores(cells(0))["foscttm"] == pytest.approx(expected)
    assert retrieval_scores(cells(MIN_PAIRS - 1)) == retrieval_scores(cells(0))
    assert retrieval_scores(cells(MIN_PAIRS))["foscttm"] > expected + 0.1


def test_few_cells_are_scored_where_there_are_no_more():
    scores = retrieval_scores({kind: (z[:5], has[:5]) for kind, (z, has) in cells(0).items()})
    assert 0 <= scores["foscttm"] <= 1
