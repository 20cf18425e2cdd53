from __future__ import annotations

import warnings

import pytest
import torch

from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.ops import backend, mamba_ssm
from scmamba_scvi.ops.backend import (
    BACKENDS,
    available_backends,
    candidates,
    choose_backend,
    explain_backend,
    load_triton,
    measured,
    ssd,
)
from scmamba_scvi.ops.fastest import Case
from scmamba_scvi.ops.ssd import ssd_recurrent

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
    if name == "triton" and load_triton()[0] is None:
        pytest.skip(load_triton()[1])
    if name == "mamba_ssm" and name not in available_backends(DEVICE):
        pytest.skip("no CUDA device" if DEVICE == "cpu" else mamba_ssm.load_mamba_ssm()[1])


@pytest.mark.parametrize("c", [1, 20, 77])
@pytest.mark.parametrize("name", ["auto", *BACKENDS])
def test_every_backend_that_runs_here_gives_the_same_values_and_gradients(name, c):
    require(name)
    results = []
    for chosen in (name, "recurrent"):
        leaves = [t.requires_grad_() for t in inputs(c, p=32, s=16, device=DEVICE)]
        y = ssd(*leaves, backend=chosen)
        results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    # mamba-ssm's kernels multiply in TF32
    tolerance = 1e-2 if "mamba_ssm" in (name, choose_backend(leaves[0], leaves[3])) else 1e-4
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= tolerance * b.norm() + 1e-5


def test_unknown_backend_is_answered_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="Did you mean 'torch'.*'auto', 'recurrent', 'torch', 'triton'"):
        ssd(*inputs(), backend="toch")


def test_auto_is_plain_torch_on_a_cpu_and_measures_nothing(monkeypatch):
    monkeypatch.setattr(backend, "_MEASURED", found := {})
    x, _, _, B, *_ = inputs()
    assert choose_backend(x, B) == "torch"
    ssd(*inputs())
    assert found == {}
    assert available_backends("cpu") == ["recurrent", "torch"]
    assert explain_backend("cpu").startswith("torch")


@pytest.fixture
def kernels(monkeypatch):
    """Sets what can be imported: a function or a reason per name."""

    def install(**found):
        for name, what in found.items():
            monkeypatch.setitem(backend._KERNELS, name, lambda w=what: (None, w) if isinstance(w, str) else (w, ""))

    backend._warn_once.cache_clear()
    yield install
    backend._warn_once.cache_clear()


@pytest.mark.parametrize(
    ("dtype", "precision", "expected"),
    [
        pytest.param(torch.bfloat16, "highest", ["triton", "mamba_ssm", "torch"], id="bf16"),
        pytest.param(torch.float32, "high", ["triton", "mamba_ssm", "torch"], id="tf32_is_allowed"),
        pytest.param(torch.float32, "highest", ["triton", "torch"], id="tf32_is_not_allowed"),
        pytest.param(torch.float64, "highest", ["torch"], id="float64"),
    ],
)
def test_candidates_follow_what_is_computed(kernels, dtype, precision, expected):
    kernels(triton=ssd_recurrent, mamba_ssm=ssd_recurrent)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert candidates(dtype) == expected
        # a compiler asks once and keeps the answer
        compiled = torch.compile(lambda x: x * len(candidates(x.dtype)), fullgraph=True, backend="eager")
        assert compiled(torch.ones(1, dtype=dtype)) == len(expected)
    finally:
        torch.set_float32_matmul_precision(before)
    assert available_backends("cuda") == list(BACKENDS)
    assert "fastest of triton, mamba_ssm and torch" in explain_backend("cuda")


def test_kernels_that_cannot_be_imported_are_named_once(kernels):
    kernels(triton="libfoo is missing", mamba_ssm="not there")
    with pytest.warns(UserWarning, match="plain torch, which is slow on a GPU: libfoo is missing; not there"):
        assert candidates(torch.bfloat16) == ["torch"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert candidates(torch.bfloat16) == ["torch"]
    assert "libfoo is missing" in explain_backend("cuda")


def test_an_installed_package_whose_kernels_fail_is_named(kernels, monkeypatch, tmp_path):
    (tmp_path / "mamba_ssm.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    kernels(triton=ssd_recurrent, mamba_ssm="undefined symbol")
    with pytest.warns(UserWarning, match="runs without ssd_backend='mamba_ssm': undefined symbol"):
        assert candidates(torch.bfloat16) == ["triton", "torch"]


def test_forced_kernels_name_the_reason_they_cannot_run(monkeypatch):
    monkeypatch.setattr(mamba_ssm, "load_mamba_ssm", lambda: (None, "libfoo is missing"))
    with pytest.raises(ScmambaError, match="libfoo is missing.*ssd_backend='torch'"):
        ssd(*inputs(), backend="mamba_ssm")
    monkeypatch.setattr(mamba_ssm, "load_mamba_ssm", lambda: (lambda *a, **k: None, ""))
    with pytest.raises(ScmambaError, match="CUDA device, got cpu"):
        ssd(*inputs(), backend="mamba_ssm")
    monkeypatch.setattr(backend, "load_triton", lambda: (None, "triton is not here"))
    with pytest.raises(ScmambaError, match="triton is not here.*ssd_backend='torch'"):
        ssd(*inputs(), backend="triton")


def test_our_kernels_refuse_a_cpu(monkeypatch):
    triton_ssd = pytest.importorskip(
        "scmamba_scvi.ops.triton_ssd", reason="triton is not installed", exc_type=ImportError
    )
    monkeypatch.setattr(triton_ssd, "INTERPRETED", False)
    with pytest.raises(ScmambaError, match="CUDA device, got cpu"):
        ssd(*inputs(), backend="triton")


def no_memory(*args, **kwargs):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_what_was_measured_is_remembered_and_too_little_memory_is_no_error(kernels, monkeypatch):
    monkeypatch.setattr(backend, "_MEASURED", {})
    case = Case(torch.device("cpu"), torch.float32, 5, 1, 4, 4, False)
    first = measured(["recurrent", "torch"], case)
    assert first in ("recurrent", "torch")
    monkeypatch.setitem(BACKENDS, "torch", no_memory)
    assert measured(["recurrent", "torch"], case) == first
    with pytest.warns(UserWarning, match="Too little memory.*ssd_backend='recurrent' is used"):
        assert measured(["recurrent", "torch"], case._replace(c=6)) == "recurrent"


@pytest.mark.gpu
@pytest.mark.parametrize("c", [1, 65, 200])
@pytest.mark.parametrize("name", ["torch", "triton", "mamba_ssm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_agree_with_the_recurrence_on_a_gpu(name, c, dtype):
    require(name)
    results = []
    for chosen, kind in ((name, dtype), ("recurrent", torch.float64)):
        leaves = [t.to(dtype).to(kind).requires_grad_() for t in inputs(c, p=64, s=64, device="cuda")]
        y = ssd(*leaves, backend=chosen)
        results.append([y, *torch.autograd.grad(y.float().square().sum(), leaves)])
    for a, b in zip(*results, strict=True):
        # with one token nothing decays: the gradient of A is zero
        assert (a - b).norm() <= (1e-2 if dtype == torch.float32 else 5e-2) * b.norm()


@pytest.mark.gpu
def test_auto_measures_once_per_shape_on_a_gpu(monkeypatch):
    monkeypatch.setattr(backend, "_MEASURED", found := {})
    for c in (20, 20, 70):
        ssd(*inputs(c, p=32, s=16, device="cuda"))
    assert len(found) == 2
    assert set(found.values()) <= set(BACKENDS)
