"""Patches along the genome: where each feature goes, and that storage and order of features change nothing."""

import pytest
import torch

from scmamba_scvi.nn.memory import saved_bytes
from scmamba_scvi.nn.tokenizer import FeatureEmbedding, PatchTokenizer
from scmamba_scvi.ops.csr import csr

F, W, C = 10, 4, 4
# patches of a genome with a short last patch on the first chromosome: slots 3 and 15 stay empty
IN_ORDER = torch.tensor([0, 1, 2, 4, 5, 6, 7, 8, 9, 12])
SHUFFLED = IN_ORDER[torch.tensor([3, 9, 0, 7, 1, 5, 8, 2, 6, 4])]


def counts(n=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, F, generator=g) * (torch.rand(n, F, generator=g) < 0.5)


def tokenizer(slots, patch_embedding):
    torch.manual_seed(0)
    return PatchTokenizer(slots, C, W, d_model=6, d_feature=5, patch_embedding=patch_embedding)


both_embeddings = pytest.mark.parametrize("patch_embedding", ["feature", "shared"])
both_orders = pytest.mark.parametrize(
    "slots", [pytest.param(IN_ORDER, id="features in genomic order"), pytest.param(SHUFFLED, id="features shuffled")]
)


@both_embeddings
@both_orders
def test_patches_are_the_sums_the_layout_says(slots, patch_embedding):
    t, x = tokenizer(slots, patch_embedding), counts()
    expected = torch.zeros(len(x), C, t.weight.shape[1])
    for cell in range(len(x)):
        for feature in range(F):
            slot = int(slots[feature])
            vector = t.weight[slot % W if patch_embedding == "shared" else feature]
            expected[cell, slot // W] += x[cell, feature] * vector
    torch.testing.assert_close(t.embed(x), expected)
    tokens, total = t(x)
    torch.testing.assert_close(tokens, t.project(expected) + t.position)
    torch.testing.assert_close(total, expected.sum(1))


@both_orders
def test_the_way_of_a_gpu_through_shared_patches_gives_the_same(slots):
    t, x = tokenizer(slots, "shared"), counts().to_sparse_csr()
    torch.testing.assert_close(t._embed_on_grid(x), t.embed(x))
    values = x.values().requires_grad_()
    found = [
        torch.autograd.grad(
            way(csr(x.crow_indices(), x.col_indices(), values, (6, F))).square().sum(), [values, t.weight]
        )
        for way in (t._embed_on_grid, t.embed)
    ]
    torch.testing.assert_close(found[0], found[1])


@both_embeddings
@both_orders
def test_sparse_and_dense_input_give_the_same_tokens_and_gradients(slots, patch_embedding):
    x, seen = counts(), []
    for batch in (x, x.to_sparse_csr()):
        t = tokenizer(slots, patch_embedding)
        tokens, total = t(batch)
        (tokens.square().sum() + total.sum()).backward()
        seen.append((tokens, total, t.weight.grad))
    for dense, sparse in zip(*seen, strict=True):
        torch.testing.assert_close(sparse, dense)


def test_memory_kept_for_the_backward_pass_follows_stored_values_not_features():
    kept = []
    for f in (1_000, 50_000):
        t = PatchTokenizer(torch.arange(f), 10, f // 10, d_model=4, d_feature=3)
        x = csr(torch.tensor([0, 2, 4]), torch.tensor([0, 5, 7, 9]), torch.ones(4), (2, f))
        kept.append(saved_bytes(t, lambda t=t, x=x: t(x)))
    assert kept[0] == kept[1] > 0


def test_feature_embedding_of_sparse_equals_dense():
    e, x = FeatureEmbedding(F, 3), counts()
    torch.testing.assert_close(e(x.to_sparse_csr()), x @ e.weight)
