"""Activations are kept where they fit, and computed again where they do not; training is the same either way."""

import importlib
import weakref

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scmamba_scvi import SCMAMBA
from scmamba_scvi.config import resolve_config
from scmamba_scvi.model.training.activations import activation_bytes, fewest_that_fit, set_checkpointing
from scmamba_scvi.nn import sequence
from scmamba_scvi.nn.sequence import SequenceNetwork
from scmamba_scvi.ops import backend, fused


def test_checkpointing_is_decided_by_the_argument_else_by_free_memory(mdata):
    SCMAMBA.setup_mudata(mdata)
    module = SCMAMBA(mdata, gate_init=0.5).module  # an open gate: the network runs
    network = module.encoders["rna"].network
    for asked in (True, False):
        set_checkpointing(module, asked, 80)
        assert (network.n_checkpointed >= len(network.blocks)) is asked
    for n_cells, n_checkpointed in ((80, 0), (10**12, len(network.blocks))):  # no machine has memory for so many
        set_checkpointing(module, None, n_cells)
        assert network.n_checkpointed == n_checkpointed


def test_as_few_blocks_are_checkpointed_as_fit():
    blocks = [(100, 10)] * 4  # bytes kept and bytes of the input, per cell
    assert [activation_bytes(blocks, 2, n) for n in range(5)] == [1000, 820, 640, 460, 480]
    assert [fewest_that_fit(blocks, 2, budget) for budget in (1000, 999, 820, 640, 460, 1)] == [0, 1, 1, 2, 3, 4]


class Allocated(TorchDispatchMode):
    """Bytes of the tensors that were made within the block and are still there, and the most there were at a time."""

    def __init__(self):
        super().__init__()
        self.sizes, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.sizes:
                self.add(tensor.untyped_storage())
        return result

    def add(self, storage):
        self.sizes[storage._cdata] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.remove, storage._cdata)

    def remove(self, address):
        self.now -= self.sizes.pop(address)


@pytest.mark.parametrize("narrow", [True, False], ids=["bf16", "float32"])
@pytest.mark.parametrize(
    ("preset", "n_cells", "n_patches"),
    [("base", 256, {"rna": 250, "atac": 255}), ("paper", 512, {"rna": 114, "atac": 419})],
)
def test_the_estimate_is_what_a_step_takes(monkeypatch, preset, n_cells, n_patches, narrow):
    """Of kernels that run nowhere, on tensors without memory; tests/model/test_gpu.py has a step on a GPU."""
    kernels = pytest.importorskip(
        "scmamba_scvi.ops.triton_fused", reason="triton is not installed", exc_type=ImportError
    )
    if torch.cuda.is_available():
        pytest.skip("with a GPU, kernels do not take tensors of the CPU")
    for module in (kernels, importlib.import_module("scmamba_scvi.ops.triton_ssd")):
        monkeypatch.setattr(module, "launch", lambda *arguments, **options: None)
    for module in (fused, backend):
        monkeypatch.setattr(module, "kernels_for", lambda x: kernels)
    monkeypatch.setattr(sequence, "CPU_SLICE_SIZE", 2**60)

    def networks():
        return [SequenceNetwork(resolve_config(preset), kind, n).train() for kind, n in n_patches.items()]

    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        blocks = [block for network in networks() for block in network.activation_bytes()]
    # at its first backward pass autograd counts the devices: it would count one that is not there, and allow no fork
    torch.ones((), requires_grad=True).backward()
    with FakeTensorMode(allow_non_fake_inputs=True):
        given = [(network, torch.zeros(n_cells, *network._shape, requires_grad=True)) for network in networks()]
        with Allocated() as allocated:
            with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
                pooled = [network(1.0 * tokens) for network, tokens in given]
            sum(vectors.float().sum() for vectors in pooled).backward()
        n_parameters = sum(parameter.numel() for network, _ in given for parameter in network.parameters())
    needed = allocated.peak - 4 * n_parameters  # without the gradients of the parameters
    assert 0.95 < activation_bytes(blocks, n_cells, 0) / needed < 1.15


def test_training_with_checkpointed_blocks_is_the_same_training(mdata, quick):
    SCMAMBA.setup_mudata(mdata)
    losses = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = SCMAMBA(mdata, n_latent=16, gate_init=0.5)
        torch.manual_seed(1)
        model.train(
            batch_size=40, contrastive_batch_size=160, plan_kwargs={"checkpoint_activations": checkpointed}, **quick
        )
        assert bool(model.module.encoders["rna"].network.n_checkpointed) is checkpointed
        losses.append(model.history["train_loss"].astype(float))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
