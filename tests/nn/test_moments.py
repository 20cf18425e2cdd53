"""Second moments over cells that lack modalities, against moments that are known."""

import pytest
import torch

from scmamba_scvi.nn.moments import ridge_prediction, second_moments

N = 20_000
WIDTHS = {"rna": 6, "atac": 4, "protein": 5}


def known_moments():
    """Of RNA, and of accessibility and proteins that depend on RNA alone."""
    generator = torch.Generator().manual_seed(0)
    to_atac, to_protein = (
        torch.randn(6, WIDTHS[k], generator=generator).double() / 6**0.5 for k in ("atac", "protein")
    )
    rna = torch.linspace(2, 0.5, 6).double().diag()
    full = torch.cat([torch.eye(6).double(), to_atac, to_protein], dim=1)
    noise = torch.cat([torch.zeros(6), torch.full((9,), 0.3)]).double().diag()
    return full.T @ rna @ full + noise


def drawn(moments, n=N, seed=1):
    x = torch.randn(n, len(moments), generator=torch.Generator().manual_seed(seed)).double()
    x = x @ torch.linalg.cholesky(moments).T
    return dict(zip(WIDTHS, x.split(list(WIDTHS.values()), dim=1), strict=True))


def everywhere(n=N):
    return {kind: torch.ones(n, dtype=torch.bool) for kind in WIDTHS}


def two_experiments(n=N):
    first = torch.arange(n) < n // 2
    return {"rna": torch.ones(n, dtype=torch.bool), "atac": first, "protein": ~first}


def test_of_complete_cells_they_are_the_plain_moments():
    x = drawn(known_moments())
    whole = torch.cat(list(x.values()), dim=1)
    torch.testing.assert_close(second_moments(x, everywhere()), whole.T @ whole / N)


def test_modalities_never_seen_together_are_completed_over_the_third():
    """Independent given RNA, though no cell has both; left at zero, their moments would be off by up to 0.7."""
    moments = known_moments()
    found = second_moments(drawn(moments), two_experiments())
    assert moments[6:10, 10:].abs().max() > 0.5
    torch.testing.assert_close(found, moments, atol=0.07, rtol=0)


def test_what_only_some_cells_lack_is_estimated_as_well():
    moments = known_moments()
    chosen = torch.rand(3, N, generator=torch.Generator().manual_seed(2)) < 0.7
    present = dict(zip(WIDTHS, chosen, strict=True))
    torch.testing.assert_close(second_moments(drawn(moments), present), moments, atol=0.07, rtol=0)


def test_moments_of_an_experiment_that_varies_less_fit_together():
    """The plain moments of each pair over its own cells have negative eigenvalues here."""
    x, present = drawn(known_moments()), two_experiments()
    x["rna"] = torch.where(present["atac"][:, None], x["rna"], 0.3 * x["rna"])
    pairs = torch.cat([torch.where(present[k][:, None], x[k], 0.0) for k in x], dim=1)
    has = torch.cat([present[k][:, None].expand_as(x[k]) for k in x], dim=1).double()
    assert torch.linalg.eigvalsh(pairs.T @ pairs / (has.T @ has).clamp_min(1))[0] < -0.05
    assert torch.linalg.eigvalsh(second_moments(x, present))[0] > 0


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_what_a_cell_lacks_is_not_read(value):
    x, present = drawn(known_moments(), 500), two_experiments(500)
    other = {kind: torch.where(present[kind][:, None], of_kind, value) for kind, of_kind in x.items()}
    torch.testing.assert_close(second_moments(other, present), second_moments(x, present), rtol=0, atol=0)


def test_cells_without_any_modality_and_modalities_without_cells_change_nothing():
    x, present = drawn(known_moments(), 500), two_experiments(500)
    some = {kind: has & (torch.arange(500) > 99) for kind, has in present.items()}
    fewer = second_moments({k: v[100:] for k, v in x.items()}, {k: v[100:] for k, v in present.items()})
    torch.testing.assert_close(second_moments(x, some), fewer)
    never = {**everywhere(500), "protein": torch.zeros(500, dtype=torch.bool)}
    found = second_moments(x, never)
    assert torch.isfinite(found).all() and (found[10:] == 0).all()


def test_a_prediction_keeps_what_is_known_and_gives_the_expectation_of_the_rest():
    moments = known_moments()
    known = torch.arange(15) < 6
    found = ridge_prediction(moments, known)
    torch.testing.assert_close(found[:6], torch.eye(15).double()[:6])
    assert (found[:, 6:] == 0).all()
    least_squares = torch.linalg.solve(moments[:6, :6], moments[:6, 6:]).T
    torch.testing.assert_close(found[6:, :6], least_squares, atol=0.03, rtol=0)
    torch.testing.assert_close(ridge_prediction(moments, torch.ones(15, dtype=torch.bool)), torch.eye(15).double())
