"""Modalities that lie apart are brought together; without a fit, or on too few pairs, nothing moves."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import eigh, sqrtm

from scmamba_scvi.nn.alignment import ANCHOR_WEIGHT, MEMORY_TEMPERATURE, MEMORY_WEIGHT, N_PRIOR, Alignment

Z = 6


def unit(x):
    return F.normalize(x, dim=1)


def apart(n=4000, seed=0):
    """The same cells seen by two modalities, of which one spreads less and lies elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randn(n, Z, generator=generator) * torch.tensor([1, 0.8, 0.6, 0.5, 0.4, 0.3])
    rna = unit(cells + 0.2 * torch.randn(n, Z, generator=generator))
    other = unit(0.5 * cells + torch.tensor([0.0, 0, 0, 0, 0.5, 0.5]) + 0.2 * torch.randn(n, Z, generator=generator))
    return {"rna": rna, "atac": other}


def everybody(z):
    return {kind: torch.ones(len(x), dtype=torch.bool) for kind, x in z.items()}


def fraction_of_other(z):
    """Among the 15 nearest cells, 0.5 for a perfect mix."""
    x = torch.cat(list(z.values()))
    of = torch.arange(len(z)).repeat_interleave(len(x) // len(z))
    near = (x @ x.T).fill_diagonal_(-2).topk(15).indices
    return (of[near] != of[:, None]).float().mean().item()


def test_before_a_fit_every_embedding_stays_as_it_is():
    z = unit(torch.randn(50, Z))
    z[3] = 0  # a cell that lacks the modality
    torch.testing.assert_close(Alignment(["rna", "atac"], Z)(z, "atac"), z)


def test_moments_bring_modalities_together_on_cells_that_they_were_not_fitted_to():
    alignment, fitted, new = Alignment(["rna", "atac"], Z), apart(seed=0), apart(n=500, seed=1)
    alignment.fit_moments(fitted, everybody(fitted), min_cells=30)
    together = {kind: alignment(x, kind) for kind, x in new.items()}
    assert fraction_of_other(new) < 0.25 < 0.4 < fraction_of_other(together)
    for x in together.values():
        torch.testing.assert_close(x.norm(dim=1), torch.ones(500))


def test_moments_are_those_half_way_as_scipy_computes_them():
    z = {kind: x.double() for kind, x in apart().items()}
    alignment = Alignment(["rna", "atac"], Z)
    alignment.fit_moments({k: x.float() for k, x in z.items()}, everybody(z), min_cells=30)
    covariances, n = {k: np.cov(x.numpy().T) for k, x in z.items()}, len(z["rna"])
    target = sum(covariances.values()) / 2
    variances, axes = eigh(target)
    of_whole, of_variance = n / (n + 2 * Z), n / (n + N_PRIOR)  # what shrinkage leaves
    for kind in ("rna", "atac"):
        along = axes.T @ covariances[kind] @ axes
        own = of_whole * along
        np.fill_diagonal(own, of_variance * along.diagonal() + (1 - of_variance) * variances)
        expected = np.linalg.inv(sqrtm(axes @ own @ axes.T)) @ sqrtm(target)
        np.testing.assert_allclose(alignment.get_buffer(f"map_{kind}").numpy(), expected, atol=0.03)
        placed = z[kind].float() @ alignment.get_buffer(f"map_{kind}") + alignment.get_buffer(f"offset_{kind}")
        torch.testing.assert_close(placed.mean(0), halfway(z, kind).float(), atol=1e-5, rtol=0)


def halfway(z, kind):
    """Where a mean goes: half of the difference, less what its square is by chance, as James and Stein have it."""
    own, other = z[kind].numpy(), next(x for k, x in z.items() if k != kind).numpy()
    gap, errors = (other - own).mean(0), (other - own).std(0, ddof=1) / len(own) ** 0.5
    return torch.from_numpy(own.mean(0) + gap / 2 * max(0, 1 - (errors @ errors) / (gap @ gap)))


@pytest.mark.parametrize(("gap", "least", "most"), [(0.0, 0.0, 0.5), (8.0, 0.85, 1.0)])
def test_few_pairs_move_means_that_differ_by_more_than_chance(gap, least, most):
    """Of what 20 pairs show as a difference, a small part is moved where there is none, and most of it where there is one."""
    moved = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        cells, noise = (torch.randn(20, 40, generator=generator) for _ in range(2))
        z = {"rna": cells, "atac": cells + noise + gap / 40**0.5}
        alignment = Alignment(list(z), 40)
        alignment.fit_moments(z, everybody(z), min_cells=10)
        placed = {
            k: (unit(x) @ alignment.get_buffer(f"map_{k}") + alignment.get_buffer(f"offset_{k}")).mean(0)
            for k, x in z.items()
        }
        recalled = {kind: alignment.recall(x, kind).mean(0) for kind, x in z.items()}
        shown = recalled["atac"] - recalled["rna"]
        moved.append(1 - ((placed["atac"] - placed["rna"]).norm() / shown.norm()).item())
    assert least <= np.mean(moved) <= most


def test_few_pairs_do_not_drive_modalities_apart_that_lie_together():
    """The covariance of ten cells of the first is none to bring the second to."""
    generator = torch.Generator().manual_seed(0)
    cells, noise = torch.randn(510, 40, generator=generator), torch.randn(2, 510, 40, generator=generator)
    z = {kind: unit(cells + 0.5 * part) for kind, part in zip(("rna", "atac"), noise, strict=True)}
    fitted, new = ({k: x[rows] for k, x in z.items()} for rows in (slice(10), slice(10, None)))
    alignment = Alignment(list(z), 40)
    alignment.fit_moments(fitted, everybody(fitted), min_cells=10)
    assert fraction_of_other({k: alignment(x, k) for k, x in new.items()}) > 0.95 * fraction_of_other(new)


@pytest.mark.parametrize(("kind", "lacking"), [("rna", "atac"), ("atac", "rna")])
def test_only_cells_with_both_modalities_are_compared(kind, lacking):
    """Cells of one modality alone may be of other types: they must not move what they are not part of."""
    z = apart()
    present = everybody(z)
    present[lacking][:2000] = False
    z[kind][:2000] = unit(torch.randn(2000, Z) + 3)
    whole, part = Alignment(list(z), Z), Alignment(list(z), Z)
    whole.fit_moments(z, present, min_cells=30)
    some = {kind: x[2000:] for kind, x in z.items()}
    part.fit_moments(some, everybody(some), min_cells=30)
    for name, buffer in whole.named_buffers():
        torch.testing.assert_close(buffer, part.get_buffer(name))


def test_three_modalities_meet_though_two_are_never_measured_together():
    two, generator = apart(), torch.Generator().manual_seed(5)
    z = {"rna": two["rna"], "atac": two["atac"], "protein": unit(two["rna"] @ torch.diag(torch.linspace(1.5, 0.5, Z)))}
    z["protein"] = unit(z["protein"] + 0.3 + 0.1 * torch.randn(len(z["rna"]), Z, generator=generator))
    present = everybody(z)
    present["protein"][:2000] = False
    present["atac"][2000:] = False
    alignment = Alignment(list(z), Z)
    alignment.fit_moments(z, present, min_cells=30)
    before, after = ({k: f(x, k)[1000:1400] for k, x in z.items()} for f in (lambda x, _: x, alignment))
    gap = lambda of: (of["atac"].mean(0) - of["protein"].mean(0)).norm().item()
    assert gap(after) < gap(before) / 3


def test_a_few_pairs_tell_which_modality_spreads_more_along_an_axis():
    """Where 40 cells do not determine a covariance matrix, they do tell its variances."""
    generator, wide = torch.Generator().manual_seed(3), torch.logspace(1, -1, 40)
    cells = torch.randn(2040, 40, generator=generator)
    z = {"rna": unit(cells), "atac": unit(cells * wide)}
    fitted, new = ({k: x[rows] for k, x in z.items()} for rows in (slice(40), slice(40, None)))
    alignment = Alignment(list(z), 40)
    alignment.fit_moments(fitted, everybody(fitted), min_cells=30)
    apart = lambda of: (of["rna"].var(0) / of["atac"].var(0)).log().abs().mean().item()
    assert apart({kind: alignment(x, kind) for kind, x in new.items()}) < 0.6 * apart(new)


@pytest.mark.parametrize("n", [0, 29])
def test_few_pairs_move_nothing(n):
    z = {kind: x[:n] for kind, x in apart().items()}
    alignment = Alignment(list(z), Z)
    alignment.fit_moments(apart(), everybody(apart()), min_cells=30)
    assert alignment.offset_atac.any()
    alignment.fit_moments(z, everybody(z), min_cells=30)  # forgets the first
    assert torch.equal(alignment.map_rna, torch.eye(Z)) and not alignment.offset_atac.any()


def test_a_cell_of_three_modalities_counts_once():
    """20 cells of three modalities are 40 pairs of each with another, and still 20 cells."""
    z = {kind: x[:20] for kind, x in apart().items()}
    z["protein"] = z["rna"].flip(1)
    alignment = Alignment(list(z), Z)
    alignment.fit_moments(z, everybody(z), min_cells=30)
    assert all(torch.equal(alignment.get_buffer(f"map_{kind}"), torch.eye(Z)) for kind in z)


@pytest.mark.parametrize(("kind", "weight"), [("rna", ANCHOR_WEIGHT), ("atac", MEMORY_WEIGHT)])
def test_recall_is_attention_over_the_remembered_cells(kind, weight):
    alignment, cells = Alignment(["rna", "atac"], Z), unit(torch.randn(40, Z))
    alignment.set_memory(unit(torch.randn(90, Z)), anchor="atac")
    alignment.set_memory(cells, anchor="rna")  # replaces more with fewer, and the anchor
    z = unit(torch.randn(7, Z))
    weights = np.exp((z @ cells.T).numpy().astype(float) / MEMORY_TEMPERATURE)
    recalled = weights / weights.sum(1, keepdims=True) @ cells.numpy()
    expected = z.numpy() + weight * recalled / np.linalg.norm(recalled, axis=1, keepdims=True)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(alignment.recall(z, kind).numpy(), expected, atol=1e-5)
    alignment.forget()
    torch.testing.assert_close(alignment.recall(z, kind), z)
