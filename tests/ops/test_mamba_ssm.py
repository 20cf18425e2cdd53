from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from recurrence import ssd_recurrent

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.ops import mamba_ssm

NOT_INSTALLED = pytest.mark.skipif(importlib.util.find_spec("mamba_ssm") is not None, reason="mamba-ssm is installed")


@pytest.fixture
def fresh_import(tmp_path, monkeypatch):
    """Only the test's own mamba_ssm can be imported, and nothing is remembered of it."""

    def forget():
        mamba_ssm.load_mamba_ssm.cache_clear()
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "mamba_ssm"}

    before = forget()
    monkeypatch.syspath_prepend(tmp_path)
    yield
    forget()
    sys.modules.update(before)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, "the package mamba-ssm is not installed", id="not_installed", marks=NOT_INSTALLED),
        pytest.param({"__init__": "raise SystemExit"}, "ModuleNotFoundError", id="installed_without_the_kernel"),
        pytest.param(
            {"__init__": "", "ops/triton/ssd_combined": "raise OSError('undefined symbol: foo')"},
            "OSError: undefined symbol: foo",
            id="built_for_another_torch",
        ),
        pytest.param(
            {"__init__": "", "ops/triton/ssd_combined": "raise RuntimeError('0 active drivers')"},
            "RuntimeError: 0 active drivers",
            id="no_driver",
        ),
        pytest.param(
            {"__init__": "import not_there", "ops/triton/ssd_combined": "from mamba_ssm.ops.triton import helper\n"
             "mamba_chunk_scan_combined = helper.f", "ops/triton/helper": "f = len"},
            "found, package left alone", id="package_whose_init_fails",
        ),
    ],
)  # fmt: skip
def test_the_kernel_is_found_or_the_reason_is_kept(tmp_path, fresh_import, files, expected):
    for name, text in files.items():
        path = tmp_path / "mamba_ssm" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    kernel, reason = mamba_ssm.load_mamba_ssm()
    left = "package left alone" if "mamba_ssm" not in sys.modules else "package left behind"
    assert expected in (reason if kernel is None else f"found, {left}")


def published_scan(x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, dt_softplus=False):
    """What mamba-ssm documents: x (b, l, h, p), dt (b, l, h), A (h), B and C (b, l, groups, n), D (h) or (h, p)."""
    assert B.ndim == C.ndim == 4 and B.shape[:2] == x.shape[:2] and z is None and dt_bias is None
    assert chunk_size == 64 and not dt_softplus
    heads = x.shape[2] // B.shape[2]
    B, C = (t.repeat_interleave(heads, 2) for t in (B, C))
    seg = torch.cumsum(dt * A, 1)  # (b, l, h)
    decay = torch.exp(seg[:, :, None] - seg[:, None])
    lower = torch.ones(x.shape[1], x.shape[1]).tril()[None, :, :, None]
    weights = torch.einsum("blhn,bmhn->blmh", C, B) * decay * lower * dt[:, None]
    return torch.einsum("blmh,bmhp->blhp", weights, x) + D[:, None] * x


def test_arguments_reach_the_kernel_in_its_layout():
    g = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(2, 10, 3, 4, generator=g), torch.rand(2, 10, 3, generator=g), -1 - torch.rand(3, generator=g),
        torch.randn(2, 10, 5, generator=g), torch.randn(2, 10, 5, generator=g), torch.randn(3, generator=g),
    )  # fmt: skip
    found = mamba_ssm.call_kernel(published_scan, *inputs)
    torch.testing.assert_close(found, ssd_recurrent(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("fresh_import")
@NOT_INSTALLED
def test_a_missing_package_is_named():
    with pytest.raises(ScmambaError, match="mamba-ssm is not installed.*ssd_backend='auto'"):
        mamba_ssm.ssd_mamba_ssm(*[torch.zeros(1)] * 6)
