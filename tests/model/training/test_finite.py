"""Whatever the data and the configuration, results are finite, or training stops with an error that says where."""

from __future__ import annotations

import types
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from shapes import TINY, mudata_of, one_count, poisson

from scmamba_scvi import SCMAMBA
from scmamba_scvi.errors import NonFiniteError, ScmambaError
from scmamba_scvi.model.training.arguments import choose_precision

pytestmark = pytest.mark.filterwarnings("ignore")
N = 60
PAPER = {
    "preset": "paper", "n_latent": 8, "d_model": 16, "headdim": 16, "n_layers": 1, "d_mlp": 16, "d_state": 8,
    "attention_layers": (),
}  # fmt: skip


def trained_on(mdata, epochs=2, train=None, **options):
    SCMAMBA.setup_mudata(mdata, batch_key="batch" if "batch" in mdata.obs else None)
    model = SCMAMBA(mdata, **options)
    model.train(max_epochs=epochs, accelerator="cpu", enable_progress_bar=False, **(train or {}))
    return model


def assert_finite(model):
    for name, values in model.history.items():
        assert np.isfinite(values.to_numpy(dtype=float)).all(), name
    for name, tensor in model.module.state_dict().items():
        assert torch.isfinite(tensor).all(), name
    length = np.linalg.norm(model.get_latent_representation(), axis=1)
    # a cell of which a linear map sees nothing has no direction
    assert ((np.abs(length - 1) < 1e-4) | (length == 0)).all()
    for kind, key in model.kinds.items():
        has = model.adata.obs_names.isin(model.adata[key].obs_names)
        assert np.isfinite(model.get_latent_representation(modality=kind)[has]).all(), kind


# -- a loss that is not finite -------------------------------


class Poison(Callback):
    """Writes NaN into counts or weights by their name, before every minibatch of an epoch or after its last one."""

    def __init__(self, name, epoch=1, at_end=False):
        self.name, self.epoch, self.at_end = name, epoch, at_end

    def on_train_batch_start(self, trainer, plan, batch, batch_idx):
        if trainer.current_epoch == self.epoch and not self.at_end:
            self.poison(plan)
            if self.name == "X_rna":
                batch["X_rna"].values()[:] = torch.nan

    def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epoch and self.at_end and batch_idx + 1 == trainer.num_training_batches:
            self.poison(plan)

    def poison(self, plan):
        if self.name in dict(plan.module.named_parameters()):
            dict(plan.module.named_parameters())[self.name].data.view(-1)[0] = torch.nan


def poisoned(name, *, epoch=1, at_end=False, **train):
    """The error that training ends in, and the data; the weights are finite afterwards."""
    mdata = mudata_of({"rna": poisson(N, 40), "atac": poisson(N, 50)})
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, **TINY)
    with pytest.raises(NonFiniteError) as error:
        model.train(max_epochs=4, enable_progress_bar=False, callbacks=[Poison(name, epoch, at_end)], **train)
    assert all(torch.isfinite(t).all() for t in model.module.state_dict().values())
    return error.value, mdata


def test_counts_that_are_not_finite_name_modality_and_cells():
    error, mdata = poisoned("X_rna")
    assert error.epoch == 1 and error.modality == "rna"
    assert 0 < len(error.cells) and set(error.cells) <= set(mdata.obs_names)
    assert "epoch 2" in str(error) and "embeddings of rna" in str(error) and repr(error.cells[0]) in str(error)


def test_weights_that_are_not_finite_name_the_encoder():
    error, mdata = poisoned("encoders.rna.embedding.weight", train_size=0.9)
    assert error.modality == "rna" and set(error.cells) <= set(mdata.obs_names)
    assert "encoders.rna.embedding.weight" in str(error)


def test_a_temperature_that_is_not_finite_names_no_modality():
    error, _ = poisoned("temperature.log")
    assert error.epoch == 1 and error.modality is None and "temperature.log" in str(error)


@pytest.mark.parametrize("validation", [{}, {"train_size": 1.0, "early_stopping": False}], ids=["held out", "no cells"])
def test_weights_that_the_last_step_of_an_epoch_leaves_not_finite_are_found(validation):
    error, _ = poisoned("encoders.rna.embedding.weight", epoch=1, at_end=True, **validation)
    assert error.epoch == 1 and "at the end of epoch 2" in str(error)


def test_without_held_out_cells_the_weights_at_the_start_of_the_epoch_are_put_back():
    mdata = mudata_of({"rna": poisson(N, 40), "atac": poisson(N, 50)})
    SCMAMBA.setup_mudata(mdata)
    model, seen = SCMAMBA(mdata, **TINY), {}

    class Watch(Callback):
        def on_train_epoch_start(self, trainer, plan):
            seen[trainer.current_epoch] = plan.module.encoders["rna"].embedding.weight.detach().clone()

    with pytest.raises(NonFiniteError):
        model.train(
            max_epochs=3, enable_progress_bar=False, train_size=1.0, early_stopping=False,
            plan_kwargs={"linear_first": False}, callbacks=[Watch(), Poison("temperature.log")],
        )  # fmt: skip
    assert torch.equal(model.module.encoders["rna"].embedding.weight, seen[1]) and not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])  # the defaults of a CPU and of a GPU
def test_gradients_are_clipped_by_default(precision):
    norms = []

    class Watch(Callback):
        def on_before_zero_grad(self, trainer, plan, optimizer):
            grads = [p.grad for p in plan.parameters() if p.grad is not None]
            if grads:
                norms.append(float(torch.cat([grad.flatten() for grad in grads]).norm()))

    mdata = mudata_of({"rna": poisson(N, 40), "atac": poisson(N, 50)})
    train = {"callbacks": [Watch()], "precision": precision}
    trained_on(mdata, epochs=2, train=train, **TINY, temperature=0.01, learn_temperature=False)
    assert norms and max(norms) <= 1.0 + 1e-4


# -- extreme data -------------------------------


EXTREMES = {
    "one count per cell": lambda: ({"rna": one_count(N, 40), "atac": one_count(N, 50, 1)}, {}),
    "ten million counts per feature": lambda: ({"rna": 1e7 + 1e6 * poisson(N, 40), "atac": 1e7 * poisson(N, 50)}, {}),
    "one count beside ten million": lambda: (
        {"rna": np.concatenate([one_count(N // 2, 40), 1e7 * poisson(N // 2, 40)]), "atac": poisson(N, 50)}, {},
    ),
    "constant features": lambda: ({"rna": np.ones((N, 40)), "atac": np.full((N, 50), 3.0)}, {}),
    "one feature": lambda: ({"rna": poisson(N, 1, 3), "atac": poisson(N, 1, 3, 1)}, {}),
    "one patch": lambda: ({"rna": poisson(N, 40), "atac": poisson(N, 50)}, {"patch_size": 100}),
    "all cells identical": lambda: (
        {"rna": np.tile(poisson(1, 40, 2), (N, 1)), "atac": np.tile(poisson(1, 50, 2), (N, 1))}, {},
    ),
    "half the cells without a count": lambda: (
        {"rna": np.concatenate([np.zeros((N // 2, 40)), poisson(N // 2, 40)]), "atac": poisson(N, 50)}, {},
    ),
    "large proteins": lambda: ({"rna": poisson(N, 40), "protein": 1e7 * poisson(N, 2)}, {}),
}  # fmt: skip


@pytest.mark.parametrize("options", [TINY, PAPER], ids=["default", "paper"])
@pytest.mark.parametrize("case", EXTREMES)
def test_extreme_data_give_finite_results(case, options):
    matrices, more = EXTREMES[case]()
    assert_finite(trained_on(mudata_of(matrices), **{**options, **more}))


def test_unrelated_modalities_cause_a_warning_and_their_embeddings_still_differ():
    for seed in range(10):  # of most draws, but not of all, are the held-out correlations all below zero
        mdata = mudata_of({kind: poisson(80, 20, seed=2 * seed + i) for i, kind in enumerate(("rna", "atac"))})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = trained_on(mdata, encoder="linear", n_latent=4)
        if any("No direction of rna and atac is correlated" in str(w.message) for w in caught):
            assert model.get_latent_representation(modality="rna").std(0).min() > 0.01
            return
    raise AssertionError("no draw of unrelated counts caused the warning")


def test_ten_thousand_patches_give_finite_results():
    matrices = {"rna": poisson(24, 40), "atac": poisson(24, 10_000, 0.02)}
    model = trained_on(mudata_of(matrices), epochs=1, **TINY, gate_init=0.5, patch_size={"rna": 40, "atac": 1})
    assert model.layouts["atac"].n_patches == 10_000
    assert_finite(model)


def test_a_modality_without_any_count_is_named():
    with pytest.raises(ScmambaError, match="all cells given are empty"):
        trained_on(mudata_of({"rna": np.zeros((N, 40)), "atac": poisson(N, 50)}))


@pytest.mark.parametrize("dtype", [np.float64, np.uint64], ids=str)
def test_counts_too_large_for_float32_are_named(dtype):
    mdata = mudata_of({"rna": poisson(N, 40), "atac": poisson(N, 50)})
    x = mdata["rna"].X.astype(dtype)
    x.data[5] = 1e19 if dtype is np.uint64 else 1e39
    mdata["rna"].X = x
    with pytest.raises(ScmambaError, match="larger than 1e.15"):
        SCMAMBA.setup_mudata(mdata)


# -- random data and options -------------------------------


def random_case(seed):
    """Data, model options and training options, drawn from everything that is allowed."""
    rng = np.random.default_rng(seed)
    pick = lambda *values: values[rng.integers(len(values))]
    n = int(rng.integers(24, 90))
    kinds = pick(("rna", "atac"), ("rna", "protein"), ("rna", "atac", "protein"), ("atac", "protein"))
    matrices = {}
    for kind in kinds:
        mean = 10.0 ** rng.uniform(-2, 3)
        x = rng.negative_binomial(1, 1 / (1 + mean), (n, int(rng.integers(1, 120)))).astype(float)
        x[rng.integers(n), rng.integers(x.shape[1])] += 1  # something was counted
        matrices[kind] = x
    mdata = mudata_of(matrices, n_absent=int(pick(0, 0, n // 5)))
    if pick(True, False):
        mdata.obs["batch"] = [f"batch {i % 3}" for i in range(mdata.n_obs)]
    heads = int(pick(8, 16))
    values = {
        "rna": ("pareto", "log1p", "raw", "binned"),
        "atac": ("tfidf", "binary", "log1p"),
        "protein": ("clr", "log1p", "binned"),
    }
    options = {
        "preset": pick("small", "paper", "small"), "n_latent": int(pick(2, 8, 16)), "d_feature": 16, "headdim": heads,
        "d_model": heads * int(pick(1, 2)), "expand": int(pick(1, 2)), "d_state": int(pick(1, 8)), "d_mlp": int(pick(8, 16)),
        "n_layers": int(pick(0, 1, 2)), "d_head": int(pick(0, 16)), "encoder": pick("mamba", "mlp"),
        "patch_size": pick(None, 1, 7, 500), "pooling": pick("mean", "last", "mean+last"),
        "pool_norm": pick("batch", "none"), "bidirectional": bool(pick(True, False)), "attention_layers": (),
        "mask_rate": float(pick(0.0, 0.5, 0.95)), "dropout": float(pick(0.0, 0.5)), "gate_init": float(pick(0.0, 1.0)),
        "joint": pick("shared+own", "shared"), "temperature": float(pick(0.01, 0.2, 1.0)),
        "values": {kind: pick(*values[kind]) for kind in kinds}, "spectral_weights": pick("held-out", "in-sample"),
    }  # fmt: skip
    if options["preset"] == "paper":
        options["gate_init"] = 1.0
    options |= (
        {"spectral": True, "linear_branch": True}
        if pick(True, False) and options["preset"] == "small"
        else {"spectral": False}
    )
    train = {
        "batch_size": int(pick(2, 4, n // 4)),
        "plan_kwargs": {"lr": float(10 ** rng.uniform(-5, -1)), "linear_first": bool(pick(True, False))},
    }
    return mdata, options, train


def assert_two_epochs_stay_finite(seed):
    torch.manual_seed(seed)
    mdata, options, train = random_case(seed)
    model = trained_on(mdata, epochs=2, train={**train, "limit_train_batches": 1}, **options)
    assert_finite(model)


@pytest.mark.parametrize("seed", range(15))
def test_random_configurations_stay_finite(seed):
    assert_two_epochs_stay_finite(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(15, 200))
def test_more_random_configurations_stay_finite(seed):
    assert_two_epochs_stay_finite(seed)


def test_the_precision_is_bfloat16_only_where_the_device_computes_in_it(monkeypatch):
    # a GPU before Ampere (8) can hold bfloat16, and computes in it by way of float32: slower, and not in kernels
    generations = {torch.device("cuda", i): 9 - i for i in range(3)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(major=generations[device])
    )
    chosen = [choose_precision(None, device) for device in (*generations, torch.device("cpu"))]
    assert chosen == ["bf16-mixed", "bf16-mixed", "32-true", "32-true"]


def test_no_gpu_is_asked_before_processes_are_forked(monkeypatch):
    """torch's own error would come from within the processes: a GPU that was used cannot be used after a fork."""
    gpu = torch.device("cuda", 0)
    with pytest.raises(ScmambaError, match="strategy='ddp_notebook' forks its processes.*precision='bf16-mixed'"):
        choose_precision(None, gpu, "ddp_notebook")
    assert choose_precision("bf16", gpu, "ddp_notebook") == "bf16-mixed"
    assert choose_precision(None, torch.device("cpu"), "ddp_notebook") == "32-true"
