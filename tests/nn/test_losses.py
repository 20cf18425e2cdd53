"""The objective against its equations, and its behaviour where pairs are missing."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scmamba_scvi.nn.losses import Temperature, cosine_distance, info_nce, multimodal_loss


def unit(n=8, z=5, seed=0):
    return F.normalize(torch.randn(n, z, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def everybody(z):
    return {k: torch.ones(len(v), dtype=torch.bool) for k, v in z.items()}


def test_info_nce_is_half_of_equation_7():
    x, y, sigma = unit(seed=1), unit(seed=2), 0.2
    s = np.exp((x @ y.T).numpy() / sigma)
    rows = -np.log(np.diag(s) / s.sum(1)).mean()
    columns = -np.log(np.diag(s) / s.sum(0)).mean()
    assert float(info_nce(x, y, sigma)) == pytest.approx((rows + columns) / 2, rel=1e-5)


def test_own_negatives_are_the_other_cells_of_the_same_modality():
    x, y, sigma = unit(seed=1), unit(seed=2), 0.2
    cross, of_x, of_y = (np.exp((a @ b.T).numpy() / sigma) for a, b in ((x, y), (x, x), (y, y)))
    for own in (of_x, of_y):
        np.fill_diagonal(own, 0)
    rows = -np.log(np.diag(cross) / (cross.sum(1) + of_x.sum(1))).mean()
    columns = -np.log(np.diag(cross) / (cross.sum(0) + of_y.sum(1))).mean()
    assert float(info_nce(x, y, sigma, own_negatives=True)) == pytest.approx((rows + columns) / 2, rel=1e-5)


def test_own_negatives_see_that_modalities_lie_apart():
    """Two shells of the same cells: each true match is the nearest of the other modality, but not the nearest of all."""
    x = unit(64)
    shift = 3 * F.one_hot(torch.tensor(0), 5).double()
    a, b = F.normalize(x + shift, dim=-1), F.normalize(x - shift, dim=-1)
    together, apart = (float(info_nce(*pair, 0.07, own_negatives=True)) for pair in ((x, x), (a, b)))
    assert apart > together + 5


def test_cosine_distance_is_equation_8():
    x, y = unit(seed=1), unit(seed=2)
    expected = 1 - np.mean([float(a @ b) / float(a.norm() * b.norm()) for a, b in zip(x, y, strict=True)])
    assert float(cosine_distance(x, y)) == pytest.approx(expected, rel=1e-5)


def test_cells_without_a_partner_are_told_apart_from_the_partners_of_others():
    z = {"rna": unit(seed=1), "atac": unit(seed=2)}
    present = everybody(z)
    present["atac"][:3] = False  # cells 0 to 2 have RNA only, cell 7 accessibility only
    present["rna"][7] = False
    s = np.exp((z["rna"] @ z["atac"].T).numpy() / 0.1)
    pairs = range(3, 7)
    to_atac = np.mean([-np.log(s[i, i] / s[i, 3:8].sum()) for i in pairs])
    to_rna = np.mean([-np.log(s[i, i] / s[0:7, i].sum()) for i in pairs])
    parts = multimodal_loss(z, present, torch.tensor(0.1))
    assert float(parts["contrastive"]) == pytest.approx((to_atac + to_rna) / 2, rel=1e-5)
    cosines = [float(z["rna"][i] @ z["atac"][i]) for i in pairs]
    assert float(parts["cosine"]) == pytest.approx(1 - np.mean(cosines), rel=1e-5)


def test_three_modalities_are_the_mean_over_their_pairs():
    z = {k: unit(seed=i) for i, k in enumerate(("rna", "atac", "protein"))}
    parts = multimodal_loss(z, everybody(z), torch.tensor(0.1), contrastive_weight=2.0, cosine_weight=0.5)
    pairs = [("rna", "atac"), ("rna", "protein"), ("atac", "protein")]
    nce = np.mean([float(info_nce(z[a], z[b], 0.1)) for a, b in pairs])
    cos = np.mean([float(cosine_distance(z[a], z[b])) for a, b in pairs])
    assert float(parts["loss"]) == pytest.approx(2 * nce + 0.5 * cos, rel=1e-5)


def test_without_pairs_the_loss_is_zero_and_still_reaches_every_input():
    z = {"rna": unit(seed=1).requires_grad_(), "atac": unit(seed=2).requires_grad_()}
    present = everybody(z)
    present["atac"][1:] = False
    loss = multimodal_loss(z, present, torch.tensor(0.1))["loss"]
    loss.backward()
    assert loss.item() == 0 and z["rna"].grad is not None and z["atac"].grad is not None


@pytest.mark.parametrize(("log", "expected"), [(-100.0, 0.01), (100.0, 1.0), (float(np.log(0.07)), 0.07)])
def test_temperature_is_clamped(log, expected):
    temperature = Temperature()
    with torch.no_grad():
        temperature.log.fill_(log)
    assert float(temperature()) == pytest.approx(expected, rel=1e-5)


def test_fixed_temperature_has_no_gradient():
    assert not Temperature(0.2, learn=False).log.requires_grad


def test_autocast_does_not_round_the_logits():
    z = {
        "rna": F.normalize(unit(n=64, z=32, seed=1) + 1, dim=-1),
        "atac": F.normalize(unit(n=64, z=32, seed=2) + 1, dim=-1),
    }
    z = {kind: x.float().requires_grad_() for kind, x in z.items()}
    found = []
    for on in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            loss = multimodal_loss(z, everybody(z), torch.tensor(0.01))["loss"]
        found.append([loss, *torch.autograd.grad(loss, list(z.values()))])
    for rounded, exact in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(rounded, exact, rtol=1e-5, atol=1e-6)
