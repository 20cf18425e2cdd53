"""The joint embedding against a transcription of its definition in numpy, and what must hold of it."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from scmamba_scvi.nn.joint import JointEmbedding, cluster_sums, subsets
from scmamba_scvi.nn.moments import second_moments
from scmamba_scvi.nn.spectral import truncated_svd

N, Z = 400, 6
TRUSTED = {"rna": torch.linspace(1, 0.2, Z), "atac": torch.linspace(0.9, 0, Z), "protein": torch.ones(Z)}


def data(seed=0, kinds=("rna", "atac", "protein")):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(N, 3))
    values = {
        kind: torch.from_numpy(common @ rng.normal(size=(3, f)) + rng.normal(size=(N, f))).float()
        for kind, f in zip(kinds, (30, 50, 20), strict=False)
    }
    embeddings = {
        kind: torch.nn.functional.normalize(torch.from_numpy(common @ rng.normal(size=(3, Z))).float(), dim=1)
        for kind in values
    }
    return values, embeddings


def fitted(values, embeddings, present=None, shared_weight=0.5):
    joint = JointEmbedding({k: x.shape[1] for k, x in values.items()}, Z, n_batches=1)
    present = present or {k: torch.ones(N, dtype=torch.bool) for k in values}
    svds = {k: truncated_svd(lambda x=x[present[k]]: [x], x.shape[1], Z, n_passes=40) for k, x in values.items()}
    joint.set_components(svds, TRUSTED)
    features = {k: joint.features(values[k], embeddings[k], k) for k in values}
    joint.fit_maps(features, present, shared_weight)
    return joint, features, present


def cosines(z):
    return z @ z.T


@pytest.mark.parametrize("kinds", [("rna", "atac"), ("rna", "atac", "protein")])
@pytest.mark.parametrize("shared_weight", [0.5, 2.0])
def test_equals_its_definition(kinds, shared_weight):
    values, embeddings = data(kinds=kinds)
    joint, features, present = fitted(values, embeddings, shared_weight=shared_weight)
    length = np.sqrt(sum(float(TRUSTED[kind].square().sum()) for kind in kinds) / len(kinds))
    blocks = []
    for kind, x in values.items():
        scores = PCA(Z, svd_solver="full").fit_transform(x.double().numpy())
        blocks.append(scores / scores.std(0) * TRUSTED[kind].numpy() / length)
    total = sum(v.double().numpy() for v in embeddings.values())
    blocks.append(shared_weight * total / np.sqrt((total**2).sum(1).mean()))
    t = np.hstack(blocks)
    directions = np.linalg.svd(t, full_matrices=False)[2][:Z]
    expected = t @ directions.T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = joint(features, present, torch.zeros(N, dtype=torch.long)).numpy()
    np.testing.assert_allclose(cosines(found), cosines(expected), atol=2e-3)  # signs of directions are free


def test_a_modality_weighs_as_much_as_its_reliable_components():
    values, embeddings = data()
    _, features, _ = fitted(values, embeddings)
    total = sum(float(trusted.square().sum()) for trusted in TRUSTED.values())
    for kind, x in features.items():
        expected = len(values) * float(TRUSTED[kind].square().sum()) / total
        assert float(x[:, :Z].square().sum(1).mean()) == pytest.approx(expected, abs=1e-4)


def test_every_choice_of_modalities_predicts_the_whole():
    values, embeddings = data()
    joint, features, present = fitted(values, embeddings)
    batch = torch.zeros(N, dtype=torch.long)
    whole = joint(features, present, batch)
    agreement = {}
    for some in subsets(list(values)):
        z = joint({k: features[k] for k in some}, {k: present[k] for k in some}, batch)
        torch.testing.assert_close(z.norm(dim=1), torch.ones(N))
        agreement[some] = float((z * whole).sum(1).mean())
    assert agreement[tuple(values)] == pytest.approx(1, abs=1e-5)
    assert all(a > 0.4 for a in agreement.values())
    for some, a in agreement.items():
        for more, b in agreement.items():
            assert b >= a - 0.01 or not set(some) < set(more)


def test_a_minibatch_of_mixed_cells_equals_cells_one_by_one():
    values, embeddings = data()
    joint, features, _ = fitted(values, embeddings)
    rng = np.random.default_rng(1)
    present = {k: torch.from_numpy(rng.random(N) < 0.6) for k in values}
    batch = torch.zeros(N, dtype=torch.long)
    z = joint(features, present, batch)
    for i in range(20):
        one = joint(
            {k: x[i : i + 1] for k, x in features.items()}, {k: p[i : i + 1] for k, p in present.items()}, batch[:1]
        )
        torch.testing.assert_close(one[0], z[i])
    none = ~torch.stack(list(present.values())).any(0)
    assert none.any() and (z[none] == 0).all()


def test_what_a_cell_lacks_is_not_read():
    values, embeddings = data()
    joint, features, present = fitted(values, embeddings)
    present = {**present, "atac": torch.zeros(N, dtype=torch.bool)}
    batch = torch.zeros(N, dtype=torch.long)
    other = {**features, "atac": features["atac"] + 1e6}
    torch.testing.assert_close(joint(features, present, batch), joint(other, present, batch))


def test_modalities_that_never_meet_are_joined_over_a_third():
    values, embeddings = data()
    first = torch.arange(N) < N // 2
    present = {"rna": torch.ones(N, dtype=torch.bool), "atac": first, "protein": ~first}
    joint, features, _ = fitted(values, embeddings, present)
    z = joint(features, present, torch.zeros(N, dtype=torch.long))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(N))


def test_cells_of_two_assays_keep_their_place_where_one_assay_varies_less():
    """Moments over different cells: those of RNA are of both assays, those of RNA with ATAC of one."""
    values, embeddings = data()
    first = torch.arange(N) < N // 2
    everywhere = {kind: torch.ones(N, dtype=torch.bool) for kind in values}
    shrunk = {k: torch.where(first[:, None] | (k != "rna"), x, 0.5 * x) for k, x in values.items()}
    weaker = {k: torch.where(first[:, None] | (k != "rna"), z, 0.5 * z) for k, z in embeddings.items()}
    present = {"rna": everywhere["rna"], "atac": first, "protein": ~first}
    joint, features, _ = fitted(shrunk, weaker, present)
    moments = second_moments(features, present)
    assert torch.linalg.eigvalsh(moments)[0] > -1e-9
    batch = torch.zeros(N, dtype=torch.long)
    whole, _, _ = fitted(values, embeddings)
    expected = whole({k: whole.features(values[k], embeddings[k], k) for k in values}, everywhere, batch)
    for cells in (first, ~first):
        found = joint(features, present, batch)
        agree = np.corrcoef(cosines(found[cells]).ravel(), cosines(expected[cells]).ravel())[0, 1]
        assert agree > 0.8


def test_signs_of_components_do_not_change_the_embedding():
    """Rounding decides them: another number of threads would give mirrored coordinates."""
    values, embeddings = data(seed=2)
    joint, features, present = fitted(values, embeddings)
    batch = torch.zeros(N, dtype=torch.long)
    expected = joint(features, present, batch)
    for x in features.values():
        x[:, 1:Z:2] *= -1
    joint.fit_maps(features, present, shared_weight=0.5)
    torch.testing.assert_close(joint(features, present, batch), expected, atol=1e-4, rtol=0)


def test_offsets_of_batches_are_taken_out_and_unknown_batches_left_alone():
    values, embeddings = data(kinds=("rna", "atac"))
    joint, features, present = fitted(values, embeddings)
    zeros = torch.zeros(N, dtype=torch.long)
    before = joint(features, present, zeros)
    joint.batch_offset_rna[0] = 0.3
    moved = {**features, "rna": features["rna"] + 0.3}
    torch.testing.assert_close(joint(moved, present, zeros), before)
    torch.testing.assert_close(joint(features, present, zeros + 1), before)


def test_cells_taken_out_of_sums_leave_the_centroids_of_the_others_and_none_of_an_emptied_cluster():
    rng = np.random.default_rng(0)
    cluster = torch.from_numpy(rng.integers(3, size=N))
    values = {k: torch.from_numpy(rng.normal(size=(N, 30))).float() for k in ("rna", "atac")}
    joint, features, present = fitted(values, {k: torch.nn.functional.normalize(x[:, :Z]) for k, x in values.items()})
    z = joint(features, present, torch.zeros(N, dtype=torch.long))
    rest = (cluster == 1) | (torch.arange(N) % 2 == 0) & (cluster == 2)

    def sums_of(rows):
        parts = ({k: x[rows] for k, x in each.items()} for each in (features, present))
        return cluster_sums(*parts, z[rows], cluster[rows])

    joint.set_centroids(sums_of(rest))
    expected = {name: buffer.clone() for name, buffer in joint.named_buffers() if name.startswith("centroid")}
    of_all = sums_of(torch.ones(N, dtype=torch.bool))
    joint.set_centroids({name: of_all[name] - sums for name, sums in sums_of(~rest).items()})
    assert (joint.centroid[0] == 0).all() and (joint.centroid[1] != 0).any()
    for name, buffer in expected.items():
        torch.testing.assert_close(joint.get_buffer(name), buffer, atol=1e-5, rtol=1e-5)


def fitted_around(place, cluster, rng):
    """Fitted to cells around the ``place`` ``(n, 30)`` of their cluster, whose centroids are known."""
    values = {k: place + 0.2 * torch.from_numpy(rng.normal(size=(N, 30))).float() for k in ("rna", "atac")}
    embeddings = {k: torch.nn.functional.normalize(x[:, :Z], dim=1) for k, x in values.items()}
    joint, features, present = fitted(values, embeddings)
    z = joint(features, present, torch.zeros(N, dtype=torch.long))
    joint.set_centroids(cluster_sums(features, present, z, cluster))
    return joint, features, present


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_offset_of_a_later_batch_is_that_of_the_closer_fit(shift):
    """Of cells of one cluster, the difference of all means is mostly what they are."""
    rng = np.random.default_rng(3)
    cluster = torch.from_numpy(rng.integers(3, size=N))
    place = 3 * torch.eye(3, 30)[cluster]
    joint, features, present = fitted_around(place, cluster, rng)
    one = cluster == 0
    moved = {k: x[one] + shift for k, x in features.items()}
    joint.fit_batch_offset(moved, {k: p[one] for k, p in present.items()}, 0, n_rounds=5)
    for k in features:
        torch.testing.assert_close(
            joint.get_buffer(f"batch_offset_{k}")[0], torch.full((2 * Z,), shift), atol=0.05, rtol=0
        )


@pytest.mark.parametrize("seed", [0, 5, 8])
def test_a_later_batch_of_one_type_is_not_moved_onto_another_type(seed):
    """Cells of one type fit any type, once they are moved onto it; without being moved they fit their own."""
    rng = np.random.default_rng(seed)
    cluster = torch.from_numpy(rng.integers(6, size=N))
    place = torch.from_numpy(rng.normal(size=(6, 30))).float()[cluster]
    joint, features, present = fitted_around(place, cluster, rng)
    one = cluster == 0
    joint.fit_batch_offset(
        {k: x[one] for k, x in features.items()}, {k: p[one] for k, p in present.items()}, 0, n_rounds=5
    )
    for k in features:
        assert float(joint.get_buffer(f"batch_offset_{k}")[0].norm()) < 0.2


def test_components_without_variance_and_without_trust_say_nothing():
    x = torch.zeros(50, 8)
    x[:, 0] = torch.randn(50, generator=torch.Generator().manual_seed(0))
    joint = JointEmbedding({"rna": 8}, Z, n_batches=1)
    svd = truncated_svd(lambda: [x], 8, Z)
    joint.set_components({"rna": svd}, {"rna": torch.ones(Z)})
    own = joint.features(x, torch.zeros(50, Z), "rna")[:, :Z]
    assert torch.isfinite(own).all() and float(own.square().sum(1).mean()) == pytest.approx(1, abs=1e-3)
    joint.set_components({"rna": svd}, {"rna": torch.zeros(Z)})
    assert (joint.features(x, torch.zeros(50, Z), "rna")[:, :Z] == 0).all()


def test_a_direction_of_rounding_errors_says_nothing():
    """Centred log-ratios add up to zero over the proteins: the last component is what rounding leaves of that."""
    x = torch.randn(500, Z, generator=torch.Generator().manual_seed(0)).exp()
    x -= x.mean(1, keepdim=True)
    svd = truncated_svd(lambda: [x], Z, Z)
    assert 0 < float(svd.scores[:, -1].std()) < 1e-5
    joint = JointEmbedding({"protein": Z}, Z, n_batches=1)
    joint.set_components({"protein": svd}, {"protein": torch.ones(Z)})
    weights = joint.get_buffer("components_protein").norm(dim=0)
    assert weights[-1] == 0 and (weights[:-1] > 0).all()
