"""How well held-out cells are matched, as training reads it."""

import numpy as np
import pytest
import torch

from scmamba_scvi.metrics import foscttm
from scmamba_scvi.model.fitting.held_out import MIN_PAIRS, HeldOut, retrieval_scores


def cells(n_of_protein, n=60):
    """Three modalities; the last ``n_of_protein`` cells have protein as well, which fits nothing."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n, 4, generator=generator)
    near = z + 0.1 * torch.randn(n, 4, generator=generator)
    protein = torch.randn(n, 4, generator=generator)
    everywhere, few = torch.ones(n, dtype=torch.bool), torch.arange(n) >= n - n_of_protein
    present = {"rna": everywhere, "atac": everywhere, "protein": few}
    return HeldOut({"rna": z, "atac": near, "protein": protein}, present)


def test_modalities_that_few_cells_share_do_not_decide():
    z = cells(0).z
    expected = float(np.mean(foscttm(z["rna"].numpy(), z["atac"].numpy())))
    assert retrieval_scores(cells(0))["foscttm"] == pytest.approx(expected)
    assert retrieval_scores(cells(MIN_PAIRS - 1)) == retrieval_scores(cells(0))
    assert retrieval_scores(cells(MIN_PAIRS))["foscttm"] > expected + 0.1


def test_few_cells_are_scored_where_there_are_no_more():
    scores = retrieval_scores(HeldOut(*({kind: x[:5] for kind, x in part.items()} for part in cells(0))))
    assert 0 <= scores["foscttm"] <= 1
