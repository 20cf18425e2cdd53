"""Shares of values agree with captum's where captum can go: dense input. Ours follow stored values only."""

import pytest
import torch

from scmamba_scvi.config import resolve_config
from scmamba_scvi.nn.attribution import integrated_gradients
from scmamba_scvi.nn.encoder import Encoder
from scmamba_scvi.ops.csr import is_csr

N_FEATURES, PATCH = 24, 8
SIZES = {"d_model": 16, "headdim": 8, "d_state": 8, "d_mlp": 32, "n_layers": 2, "n_latent": 4, "d_feature": 8,
         "layer_scale": 0.5, "gate_init": 1.0}  # fmt: skip


@pytest.fixture(params=["mamba", "mlp", "linear"])
def score(request):
    """Place of a cell along a direction; the network's part is as large as the linear one, so that it bends."""
    torch.manual_seed(0)
    config = resolve_config("small", **SIZES, encoder=request.param)
    encoder = Encoder(config, "rna", torch.arange(N_FEATURES), N_FEATURES // PATCH, PATCH).eval()
    direction = torch.nn.functional.normalize(torch.randn(4), dim=0)
    return lambda x: encoder(x) @ direction


@pytest.fixture
def values():
    torch.manual_seed(1)
    return torch.rand(5, N_FEATURES) * (torch.rand(5, N_FEATURES) < 0.6)


@pytest.mark.parametrize("n_steps", [1, 4, 16])
def test_shares_are_those_of_captum(score, values, n_steps):
    attr = pytest.importorskip("captum.attr", reason="captum is not installed: shares are not compared with its own")
    expected = attr.IntegratedGradients(score).attribute(values, n_steps=n_steps, method="gausslegendre")
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(integrated_gradients(score, values, n_steps), expected, rtol=1e-4, atol=1e-6)


def test_sparse_shares_are_the_dense_ones_at_the_stored_values(score, values):
    sparse = integrated_gradients(score, values.to_sparse_csr(), 4)
    assert is_csr(sparse) and sparse.values().numel() == int((values != 0).sum())
    torch.testing.assert_close(sparse.to_dense(), integrated_gradients(score, values, 4), rtol=1e-4, atol=1e-6)
