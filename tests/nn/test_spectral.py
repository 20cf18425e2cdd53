"""The start of training against scikit-learn, and its promises."""

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import CCA

from scmamba_scvi.nn.spectral import canonical_directions, held_out_correlations, linear_initialization, truncated_svd


def two_modalities(n=400, shared=4, fx=60, fy=40, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, shared)) * np.linspace(2, 1, shared)
    x = latent @ rng.normal(size=(shared, fx)) + noise * rng.normal(size=(n, fx)) + rng.normal(size=fx)
    y = latent @ rng.normal(size=(shared, fy)) + noise * rng.normal(size=(n, fy)) + rng.normal(size=fy)
    return torch.from_numpy(x).float(), torch.from_numpy(y).float()


def blocks_of(x, size=150, sparse=False):
    return lambda: (block.to_sparse_csr() if sparse else block for block in x.split(size))


@pytest.mark.parametrize("sparse", [pytest.param(False, id="dense blocks"), pytest.param(True, id="sparse blocks")])
def test_svd_equals_numpys(sparse):
    x, _ = two_modalities()
    found = truncated_svd(blocks_of(x, sparse=sparse), x.shape[1], 4)
    centred = (x - x.mean(0)).double().numpy()
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(found.mean, x.mean(0), atol=1e-5)
    np.testing.assert_allclose(np.abs((found.components.numpy() * vt[:4].T).sum(0)), 1, atol=1e-4)
    np.testing.assert_allclose(found.scores.norm(dim=0), s[:4], rtol=1e-4)
    np.testing.assert_allclose(found.components.T @ found.components, np.eye(4), atol=1e-4)


@pytest.mark.parametrize(
    "variances",
    [
        pytest.param(30 * np.arange(1, 201) ** -0.3, id="they fall slowly, as those of accessibility"),
        pytest.param(np.r_[300, np.geomspace(12, 3, 19), np.ones(180)], id="one dominates, as the depth of raw counts"),
    ],
)
def test_all_directions_are_found(variances):
    """The space of 20 components, by the sine of its largest angle to numpy's: few passes lose slow ones, float32 small ones."""
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(n, len(variances))))[0] for n in (600, 300))
    x = torch.from_numpy((u * variances) @ v.T).float()
    x -= x.mean(0)
    found = truncated_svd(blocks_of(x), 300, 20)
    exact = np.linalg.svd(x.double().numpy(), full_matrices=False)[2][:20]
    assert np.linalg.svd(exact @ found.components.numpy(), compute_uv=False).min() > 0.99


def test_correlations_equal_scikit_learns():
    x, y = two_modalities(noise=2.0)
    svds = {"rna": truncated_svd(blocks_of(x), 60, 6), "atac": truncated_svd(blocks_of(y), 40, 6)}
    present = {k: torch.ones(400, dtype=torch.bool) for k in svds}
    maps, correlations = canonical_directions({k: v.scores for k, v in svds.items()}, present, 6, ridge=0.0)
    a, b = CCA(n_components=6, scale=False, max_iter=5000).fit_transform(svds["rna"].scores, svds["atac"].scores)
    expected = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(6)]
    np.testing.assert_allclose(correlations[:3], expected[:3], atol=2e-3)
    for kind, svd in svds.items():
        np.testing.assert_allclose((svd.scores @ maps[kind]).var(0, unbiased=False), 1, atol=1e-3)


def test_three_modalities_agree_on_what_they_share():
    x, y = two_modalities(noise=0.3)
    z = x[:, :20] + 0.1
    svds = {k: truncated_svd(blocks_of(v), v.shape[1], 4) for k, v in (("rna", x), ("atac", y), ("protein", z))}
    present = {k: torch.ones(400, dtype=torch.bool) for k in svds}
    maps, correlations = canonical_directions({k: s.scores for k, s in svds.items()}, present, 4)
    first = torch.stack([(svds[k].scores @ maps[k])[:, 0] for k in svds])
    assert torch.corrcoef(first).min() > 0.9
    assert (correlations.diff() <= 1e-6).all() and correlations.max() <= 1


def test_cells_that_lack_a_modality_are_left_out():
    x, y = two_modalities()
    has_y = torch.arange(400) < 300
    svds = {"rna": truncated_svd(blocks_of(x), 60, 4), "atac": truncated_svd(blocks_of(y[has_y]), 40, 4)}
    start = linear_initialization(svds, {"rna": torch.ones(400, dtype=torch.bool), "atac": has_y}, 4)
    a, b = (x - svds["rna"].mean) @ start["rna"], (y - svds["atac"].mean) @ start["atac"]
    # also on the cells whose y was never seen
    assert np.corrcoef(a[~has_y, 0], b[~has_y, 0])[0, 1] > 0.9


def test_a_modality_without_any_variance_stays_finite():
    x, _ = two_modalities()
    y = torch.ones(400, 10)
    svds = {"rna": truncated_svd(blocks_of(x), 60, 4), "atac": truncated_svd(blocks_of(y), 10, 4)}
    start = linear_initialization(svds, {k: torch.ones(400, dtype=torch.bool) for k in svds}, 4)
    assert all(torch.isfinite(s).all() for s in start.values())


def test_the_same_seed_gives_the_same_start():
    x, _ = two_modalities()
    a, b = (truncated_svd(blocks_of(x), 60, 4, seed=3).components for _ in range(2))
    assert torch.equal(a, b)


def by_mask(x, present=None):
    """Passes over the cells of a mask that have the modality, ``x`` holding only those."""
    present = torch.ones(len(x), dtype=torch.bool) if present is None else present
    row = present.cumsum(0) - 1
    return lambda mask: lambda: iter(x[row[mask & present]].split(70))


def held_out(values, present=None, n=20, **kwargs):
    present = present or {k: torch.ones(len(v), dtype=torch.bool) for k, v in values.items()}
    blocks = {k: by_mask(v, present[k]) for k, v in values.items()}
    features = {k: v.shape[1] for k, v in values.items()}
    return held_out_correlations(blocks, present, features, n, n, **kwargs)


def test_chance_has_no_correlation_on_held_out_cells():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(200, 60, generator=generator) for _ in range(2))
    svds = {k: truncated_svd(blocks_of(v), 60, 20) for k, v in (("rna", x), ("atac", y))}
    everyone = {k: torch.ones(200, dtype=torch.bool) for k in svds}
    _, in_sample = canonical_directions({k: s.scores for k, s in svds.items()}, everyone, 20)
    assert in_sample[:5].mean() > 0.4
    assert held_out({"rna": x, "atac": y})[:5].abs().mean() < 0.15


def test_held_out_correlations_are_those_of_a_loop_with_numpy():
    x, y = two_modalities(n=240, shared=3, fx=12, fy=9, noise=1.0)
    found = held_out({"rna": x, "atac": y}, n=9, n_folds=3, n_passes=30, seed=5)
    fold = torch.randperm(240, generator=torch.Generator().manual_seed(5)).numpy() % 3
    u, v = np.zeros((240, 3)), np.zeros((240, 3))
    for part in range(3):
        fit, held = fold != part, fold == part
        a, b = (m.double().numpy() for m in (x, y))
        cca = CCA(n_components=3, scale=False, max_iter=5000).fit(a[fit], b[fit])
        for out, scores in zip((u, v), cca.transform(a[held], b[held]), strict=True):
            out[held] = scores - scores.mean(0)
    expected = [np.corrcoef(u[:, j], v[:, j])[0, 1] for j in range(3)]
    np.testing.assert_allclose(found[:3], expected, atol=0.03)  # the ridge is ours alone


def test_held_out_correlations_use_the_cells_that_have_both():
    x, y = two_modalities(n=400, shared=3)
    has_y = torch.arange(400) % 4 > 0
    present = {"rna": torch.ones(400, dtype=torch.bool), "atac": has_y}
    found = held_out({"rna": x, "atac": y[has_y]}, present)
    assert found[:3].min() > 0.8 and found[3:].max() < 0.5


def two_svds():
    x, y = two_modalities()
    svds = {k: truncated_svd(blocks_of(v), v.shape[1], 6) for k, v in (("rna", x), ("atac", y))}
    return svds, {k: torch.ones(400, dtype=torch.bool) for k in svds}


def test_without_weights_every_direction_is_as_wide_as_its_correlation():
    svds, everyone = two_svds()
    _, correlations = canonical_directions({k: s.scores for k, s in svds.items()}, everyone, 6)
    for kind, start in linear_initialization(svds, everyone, 6).items():
        shared = svds[kind].scores @ svds[kind].components.T @ start
        width = shared[:, :4].std(0, unbiased=False) / correlations[:4]
        assert ((0.8 < width) & (width < 1.001)).all()  # the ridge makes weak directions narrower


def test_weights_replace_the_correlations_direction_by_direction():
    svds, everyone = two_svds()
    plain = linear_initialization(svds, everyone, 6, torch.ones(6))
    weighted = linear_initialization(svds, everyone, 6, torch.tensor([1.0, 0.5, 0.25, 0, 0, 0]))
    for kind in svds:
        expected = plain[kind] * torch.tensor([1.0, 0.5, 0.25, 0, 0, 0])
        torch.testing.assert_close(weighted[kind], expected)


def test_without_held_out_pairs_all_correlations_are_zero():
    x, y = two_modalities(n=400)
    has_x, has_y = torch.arange(400) < 201, torch.arange(400) >= 200  # cell 200 alone has both
    found = held_out({"rna": x[has_x], "atac": y[has_y]}, {"rna": has_x, "atac": has_y}, n=8)
    assert found.shape == (8,) and (found == 0).all()
