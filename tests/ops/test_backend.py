from __future__ import annotations

import sys
import types
import warnings
from functools import partial

import pytest
import torch
from recurrence import ssd_recurrent
from torch._subclasses.fake_tensor import FakeTensorMode

from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.ops import backend, fused
from scmamba_scvi.ops.backend import BACKENDS, choose_backend, explain_backend, load_mixer, ssd
from scmamba_scvi.ops.mamba_ssm import load_mamba_ssm

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def inputs(c=10, p=4, s=5, device="cpu"):
    g = torch.Generator().manual_seed(0)
    parts = (
        torch.randn(2, c, 3, p, generator=g), torch.rand(2, c, 3, generator=g), -1 - torch.rand(3, generator=g),
        torch.randn(2, c, s, generator=g), torch.randn(2, c, s, generator=g), torch.randn(3, generator=g),
    )  # fmt: skip
    return [t.to(device) for t in parts]


def require(name):
    """Skip, with the reason, what cannot run here; triton's interpreter runs where there is no GPU."""
    if name == "triton":
        pytest.importorskip("scmamba_scvi.ops.triton_ssd", reason="triton is not installed", exc_type=ImportError)
    if name == "mamba_ssm" and (DEVICE == "cpu" or load_mamba_ssm()[0] is None):
        pytest.skip("no CUDA device" if DEVICE == "cpu" else load_mamba_ssm()[1])


@pytest.mark.parametrize("c", [1, 20, 77])
@pytest.mark.parametrize("name", ["auto", *BACKENDS])
def test_every_backend_that_runs_here_gives_the_same_values_and_gradients(name, c):
    require(name)
    results = []
    for scan in (partial(ssd, backend=name), ssd_recurrent):
        leaves = [t.requires_grad_() for t in inputs(c, p=32, s=16, device=DEVICE)]
        y = scan(*leaves)
        results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-5


def test_unknown_backend_is_answered_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="Did you mean 'torch'.*'auto', 'torch', 'triton'"):
        ssd(*inputs(), backend="toch")


def test_auto_is_plain_torch_on_a_cpu():
    assert choose_backend(inputs()[0], 5) == "torch"
    assert explain_backend("cpu").startswith("torch")


def test_more_states_than_kernels_take_are_scanned_in_plain_torch(monkeypatch):
    monkeypatch.setattr(backend, "kernels_for", lambda x: types.SimpleNamespace(MAX_WIDTH=4))
    monkeypatch.setitem(sys.modules, "scmamba_scvi.ops.triton_mixer", types.SimpleNamespace(mixer=len))
    x, most = inputs()[0], backend.MAX_STATE
    assert [choose_backend(x, s) for s in (most, most + 1)] == ["triton", "torch"]
    assert [load_mixer(x, "auto", 4, s) for s in (most, most + 1)] == [len, None]
    monkeypatch.setitem(BACKENDS, "triton", lambda *tensors: "kernels")
    assert ssd(*inputs(s=most)) == "kernels"
    assert isinstance(ssd(*inputs(s=most + 1)), torch.Tensor)
    assert explain_backend("cuda", most + 1).endswith("kernels take up to 128 states, these are 129)")


@pytest.mark.parametrize("fault", ["", "the kernel of the scan gives other numbers"])
def test_what_cuda_would_use_is_explained_as_a_training_finds_it(monkeypatch, fault):
    contents = {"fused": {}, "ssd": {"ssd_triton": len}, "sizes": {"cannot_compile": lambda *_: ""}}
    for name, content in contents.items():
        monkeypatch.setitem(sys.modules, f"scmamba_scvi.ops.triton_{name}", types.SimpleNamespace(**content))
    monkeypatch.setattr(fused, "_fault", lambda *arguments: fault)
    fused.check_kernels.cache_clear()
    fused.load_kernels.cache_clear()
    with warnings.catch_warnings(record=True) as warned:
        used = fused.load_kernels(torch.device("cuda"), torch.float32)
        explained = explain_backend("cuda")
    fused.check_kernels.cache_clear()
    fused.load_kernels.cache_clear()
    assert (used is None) == bool(fault) == bool(warned)
    plain = f"torch (the chunked scan in plain torch; {fault})"
    assert explained == (plain if fault else "triton (the kernels of this package)")


def test_forced_kernels_name_the_reason_they_cannot_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "scmamba_scvi.ops.triton_ssd", None)  # cannot be imported
    monkeypatch.delattr("scmamba_scvi.ops.triton_ssd", raising=False)
    with pytest.raises(ScmambaError, match="ssd_backend='torch' or 'auto': .*triton_ssd"):
        ssd(*inputs(), backend="triton")


def test_kernels_that_are_named_are_checked_as_those_of_auto(monkeypatch):
    """A compiler may give a scan of wrong numbers, whoever asks for it."""
    asked = []
    kernels = types.SimpleNamespace(ssd_triton=lambda *tensors: "kernels")
    monkeypatch.setitem(sys.modules, "scmamba_scvi.ops.triton_ssd", kernels)
    monkeypatch.setattr("scmamba_scvi.ops.triton_ssd", kernels, raising=False)
    monkeypatch.setattr(backend, "check_kernels", lambda *key: (None, asked.append(key) or faults.pop()))
    faults = ["", "the kernel of the scan gives other numbers"]
    with FakeTensorMode():
        tensors = [torch.empty(t.shape, device="cuda") for t in inputs()]
    with pytest.raises(ScmambaError, match="'triton' cannot be used.*: the kernel of the scan gives other numbers"):
        ssd(*tensors, backend="triton")
    assert ssd(*tensors, backend="triton") == "kernels"
    assert asked == 2 * [(torch.device("cuda", 0), torch.float32)]


def test_our_kernels_refuse_a_cpu(monkeypatch):
    triton_ssd = pytest.importorskip(
        "scmamba_scvi.ops.triton_ssd", reason="triton is not installed", exc_type=ImportError
    )
    monkeypatch.setattr(triton_ssd, "INTERPRETED", False)
    with pytest.raises(ScmambaError, match="CUDA device, got cpu"):
        ssd(*inputs(), backend="triton")


@pytest.mark.gpu
@pytest.mark.parametrize("c", [1, 65, 200])
@pytest.mark.parametrize("name", ["torch", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_agree_with_the_recurrence_on_a_gpu(name, c, dtype):
    require(name)
    results = []
    for scan, kind in ((partial(ssd, backend=name), dtype), (ssd_recurrent, torch.float64)):
        leaves = [t.to(dtype).to(kind).requires_grad_() for t in inputs(c, p=64, s=64, device="cuda")]
        y = scan(*leaves)
        results.append([y, *torch.autograd.grad(y.float().square().sum(), leaves)])
    for a, b in zip(*results, strict=True):
        # with one token nothing decays: the gradient of A is zero
        assert (a - b).norm() <= (1e-2 if dtype == torch.float32 else 5e-2) * b.norm()


@pytest.mark.gpu
def test_auto_is_our_kernels_on_a_gpu():
    require("triton")
    assert choose_backend(inputs(20, device="cuda")[0], 5) == "triton"
    assert choose_backend(inputs(20, device="cuda")[0].double(), 5) == "torch"
