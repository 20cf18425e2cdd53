"""A model on another device than its data: nothing computes with tensors of both, and the numbers are those of the CPU.

The device is one in name only, see `pretended_gpu`, in a process of its own; each test reads one of its results.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pretended_gpu import add_device, can_add_device
from shapes import TINY

N_TRAIN = 150
#: Options of the model and of its forward pass, by the name of the case.
NETWORKS = {
    "mamba": ({"mask_rate": 0.2}, {}),
    "bidirectional": ({"bidirectional": True, "pooling": "mean"}, {}),
    "attention": ({"n_layers": 2, "attention_layers": [1], "values": "binned"}, {}),
    "shared_patches": (
        {"patch_embedding": "shared", "spectral": False, "values": {"rna": "clr", "atac": "binary"}},
        {},
    ),
    "mlp": ({"encoder": "mlp"}, {}),
    "linear": ({"encoder": "linear"}, {}),
    "in_parts": ({"mask_rate": 0.2}, {"micro_batch_size": 15}),
}
RESULTS = [
    "start", *(f"steps_{name}" for name in NETWORKS), "steps_dense", "joint", "views", "embedding",
    "query", "copy", "export", "matches", "agreement", "imputed", "links", "importance", "metrics",
]  # fmt: skip


def computed(part: str) -> dict[str, str]:
    """What went wrong, by the name of the result; empty texts where nothing did."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, for which other tests are")
    if not can_add_device():
        pytest.skip("this torch cannot add a device from Python")
    command = [sys.executable, "-W", "ignore", __file__, part]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert child.returncode == 0, child.stderr[-3000:]
    return json.loads(child.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def results():
    return computed("parts")


@pytest.mark.parametrize("name", RESULTS)
def test_the_result_on_another_device_is_that_of_the_cpu(results, name):
    assert not results[name], results[name]


def test_tensors_of_both_devices_are_refused(results):
    assert "tensors of both devices" in results["sum of both"]
    assert "numpy" in results["numpy's view"]


@pytest.mark.slow
def test_a_training_on_another_device_is_that_on_the_cpu_also_after_a_break():
    assert computed("training") == {"training": "", "resumed": ""}


class Work:
    """Data, and models of them on the CPU or on the device."""

    def __init__(self, sparse: bool = True) -> None:
        from scmamba_scvi import SCMAMBA
        from scmamba_scvi.data import simulate_multiome

        self.mdata = simulate_multiome(200, 150, 400, n_cell_types=3, seed=1, paired_fraction=0.8 if sparse else 1.0)
        if not sparse:
            for modality in self.mdata.mod.values():
                modality.X = modality.X.toarray()
        SCMAMBA.setup_mudata(self.mdata, batch_key="batch", labels_key="cell_type")

    def model(self, **options):
        import scvi

        from scmamba_scvi import SCMAMBA

        scvi.settings.seed = 0
        return SCMAMBA(self.mdata, **{**TINY, "gate_init": 0.5, **options})

    def started(self, on, **options):
        model = self.model(**options)
        model.module.to(on)
        model._initialize(np.arange(N_TRAIN), np.arange(0))
        return model

    def fitted(self, on):
        model = self.started("cpu")
        model.is_trained_, model.train_indices = True, np.arange(N_TRAIN)
        model.module.to(on)
        model._fit_joint_embedding(np.arange(N_TRAIN))
        model._fit_to_validation(np.arange(N_TRAIN), np.arange(N_TRAIN, self.mdata.n_obs))
        return model

    def losses(self, on, options, passed):
        """Of two steps of training, the blocks checkpointed."""
        model = self.started("cpu", **options)
        module = model.module.train().to(on)
        for encoder in module.encoders.values():
            if hasattr(encoder.network, "n_checkpointed"):
                encoder.network.n_checkpointed = 1
        dataset = model.adata_manager.create_torch_dataset()
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)
        losses = []
        for step in range(2):
            batch = {k: t.to(on) for k, t in dataset[np.arange(40 * step, 40 * step + 40)].items()}
            torch.manual_seed(step)
            loss = module(batch, inference_kwargs=passed)[2].loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
        return losses

    def trained(self, on, break_in=None):
        """Losses of a whole training; with ``break_in``, one that stopped in this epoch and was resumed."""
        from lightning.pytorch.callbacks import LambdaCallback

        def stop(trainer, *_):
            if trainer.current_epoch == break_in:
                raise OSError("break")

        with tempfile.TemporaryDirectory() as folder:
            arguments = {
                "max_epochs": 3, "batch_size": 20, "contrastive_batch_size": 40, "checkpoint_dir": folder,
                # what is kept can only be measured where tensors have memory of their own
                "plan_kwargs": {"linear_first": False, "checkpoint_activations": False},
                "enable_progress_bar": False, "precision": "bf16-mixed",
            }  # fmt: skip
            if break_in is not None:
                with pytest.raises(OSError, match="break"):
                    self.model().train(**arguments, **where(on), callbacks=[LambdaCallback(on_train_epoch_start=stop)])
                arguments["resume"] = True
            model = self.model()
            model.train(**arguments, **where(on))
        return model.history["train_loss"].iloc[:, 0].astype(float)


def where(on: torch.device | str) -> dict:
    """Arguments with which Lightning trains there."""
    from lightning.pytorch.strategies import SingleDeviceStrategy

    class OnDevice(SingleDeviceStrategy):
        def setup_environment(self) -> None:
            """Lightning's accelerator of the CPU would refuse the device."""

    return {"accelerator": "cpu", **({} if on == "cpu" else {"strategy": OnDevice(device=on)})}


class Comparison:
    """Compares what a function returns for the CPU and for the device."""

    def __init__(self, device: torch.device) -> None:
        self.places = ("cpu", device)
        self.found: dict[str, str] = {}

    def __call__(self, name: str, make: Callable, tolerance: float = 1e-4) -> None:
        try:
            a, b = (np.asarray(make(on), dtype=float) for on in self.places)
            np.testing.assert_allclose(b, a, rtol=0, atol=tolerance)
            self.found[name] = "" if np.isfinite(a).any() else "nothing is finite"
        except Exception:  # noqa: BLE001  the test that reads it shows it
            self.found[name] = traceback.format_exc()[-3000:]


def training(compare: Comparison) -> None:
    """All of `train`; in bfloat16 on the CPU alone."""
    work = Work()
    compare("training", work.trained, 0.05)
    compare("resumed", lambda on: work.trained(on, break_in=2), 0.05)


def parts(compare: Comparison) -> None:
    """What a training is made of, and what comes after it."""
    work, dense = Work(), Work(sparse=False)
    compare("sum of both", lambda on: (torch.ones(2, device=on) + torch.ones(2)).cpu())
    compare("numpy's view", lambda on: torch.ones(2, device=on).numpy())
    compare("start", lambda on: start(work.started(on, gate_init=0.0)))
    for name, (options, passed) in NETWORKS.items():
        compare(f"steps_{name}", lambda on, options=options, passed=passed: work.losses(on, options, passed))
    compare("steps_dense", lambda on: dense.losses(on, {}, {}))
    models = {on: work.fitted(on) for on in compare.places}
    compare("joint", lambda on: weights(models[on]))
    of_models(compare, models, work.mdata)
    # torch ends the process where gradients of sparse values would be made on the device
    models = {on: dense.fitted(on) for on in compare.places}
    importance = {"groupby": "cell_type", "groups": ["type_1"], "max_cells": 20}
    compare("importance", lambda on: models[on].get_region_importance(**importance)["importance"])
    scores(compare, models["cpu"])


def of_models(compare: Comparison, models: dict, mdata) -> None:
    """What is asked of a trained model."""
    from scmamba_scvi import SCMAMBA

    def query(on):
        new = mdata[:80].copy()
        new.obs["batch"] = "new"
        model = SCMAMBA.load_query_data(new, models[on], accelerator="cpu")
        model.module.to(on)
        model._place_new_batches()
        return model.get_latent_representation()

    def exported(on):
        with tempfile.TemporaryDirectory() as folder:
            models[on].export(Path(folder) / "model")
            return SCMAMBA.from_export(Path(folder) / "model", mdata).get_latent_representation()

    genes, peaks = (list(mdata[key].var_names[:20]) for key in ("rna", "atac"))
    compare("views", lambda on: [models[on].get_latent_representation(modality=kind) for kind in ("rna", "atac")])
    compare("embedding", lambda on: models[on].get_latent_representation())
    compare("query", query)
    compare("copy", lambda on: copy.deepcopy(models[on]).get_latent_representation())
    compare("export", exported)
    compare("matches", lambda on: models[on].match_cells(mdata["rna"], mdata["atac"]).confidence)
    compare("agreement", lambda on: models[on].get_modality_agreement().select_dtypes("number"))
    compare("imputed", lambda on: models[on].impute(features=peaks).X.toarray())
    compare("links", lambda on: models[on].get_region_links(genes=genes).select_dtypes("number"))


def scores(compare: Comparison, model) -> None:
    """Every score of the panel but those of clusters, which are found on the CPU."""
    from scmamba_scvi import metrics

    embedding = {kind: model.get_latent_representation(modality=kind) for kind in ("rna", "atac")}
    names = [name for name in metrics.METRICS if name not in ("ARI", "NMI")]
    options = {"labels_key": "cell_type", "batch_key": "batch", "metrics": names}
    compare(
        "metrics",
        lambda on: metrics.evaluate_integration(
            model.adata, {"model": embedding}, device=on, **options
        ).select_dtypes("number"),
    )  # fmt: skip


def weights(model) -> np.ndarray:
    """All parameters and buffers, one after the other."""
    return np.concatenate([t.cpu().double().numpy().ravel() for t in model.module.state_dict().values()])


def start(model) -> np.ndarray:
    """The same but for the sign of a direction, which rounding decides, and how the modalities of cells lie, which it leaves."""
    from scmamba_scvi.model.inputs.sampling import is_paired

    model.is_trained_ = True
    paired = np.flatnonzero(is_paired(model._matrices(), np.arange(N_TRAIN)))
    rna, atac = (model.get_latent_representation(modality=kind, indices=paired) for kind in ("rna", "atac"))
    return np.concatenate([np.abs(weights(model)), (rna @ atac.T).ravel()])


if __name__ == "__main__":
    torch.set_num_threads(1)
    comparison = Comparison(add_device())
    {"parts": parts, "training": training}[sys.argv[1]](comparison)
    print(json.dumps(comparison.found), flush=True)
    os._exit(0)  # torch cannot end the threads of the device
