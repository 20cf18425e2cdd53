"""What is kept for the backward pass, and blocks that keep nothing."""

import gc
import types
import weakref

import pytest
import torch
from torch import nn

from scmamba_scvi.config import ModelConfig
from scmamba_scvi.nn import memory
from scmamba_scvi.nn.encoder import Encoder
from scmamba_scvi.nn.memory import free_bytes, saved_bytes


def test_bytes_of_a_linear_map_and_a_sigmoid():
    layer = nn.Linear(8, 5)
    x = torch.randn(3, 8)
    # the input is there anyway; the sigmoid keeps its output, 3 x 5 float32
    assert saved_bytes(layer, lambda x: layer(x).sigmoid(), x) == 60
    # a new tensor that a map keeps, 3 x 8, and the output once more
    assert saved_bytes(layer, lambda x: layer(x + 1).sigmoid(), x) == 96 + 60


def encoder():
    torch.manual_seed(0)
    config = ModelConfig(
        n_latent=8, d_model=32, d_feature=16, headdim=16, n_layers=3, d_mlp=32, d_state=8, layer_scale=None, gate_init=1.0,
        attention_layers=(1,), dropout=0.2,
    )  # fmt: skip
    return Encoder(config, "rna", torch.arange(40), 5, 8).train()


@pytest.mark.parametrize("training", [True, False])
def test_checkpointed_blocks_have_the_same_values_and_gradients(training):
    network, x = encoder().train(training), torch.rand(6, 40)
    results = []
    for checkpointed in (False, True):
        network.network.n_checkpointed = 100 * checkpointed
        torch.manual_seed(1)
        z = network(x)
        network.zero_grad()
        (z * torch.linspace(-1, 1, 8)).sum().backward()
        results.append((z.detach(), {name: p.grad.clone() for name, p in network.named_parameters()}))
    torch.testing.assert_close(results[0], results[1], atol=1e-7, rtol=1e-5)


def test_checkpointed_blocks_keep_their_input_alone():
    network = encoder().network
    tokens = torch.rand(4, 5, 32)
    kept = saved_bytes(network, network, tokens)
    network.n_checkpointed = 100
    assert saved_bytes(network, network, tokens) < kept / 5


GB = 10**9
#: Lines of ``/proc/self/cgroup``; limit, use and cached files of each folder; what is free of the machine's 100 GB.
GROUPS = {
    "no Linux": (None, {}, 100),
    "no limit": ("0::/user", {"user": ("max", 7, 0)}, 100),
    "a job": ("0::/slurm/job_1", {"slurm": ("max", 9, 0), "slurm/job_1": (8, 5, 1)}, 4),
    "a job in a smaller one": ("0::/slurm/job_1", {"slurm": (6, 5, 0), "slurm/job_1": (8, 2, 0)}, 1),
    "more than the limit is used": ("0::/job", {"job": (4, 5, 0)}, 0),
    "a container": ("0::/", {"": (16, 2, 0)}, 14),
    "version 1": ("3:cpu,cpuacct:/other\n5:memory:/slurm/job_1", {"memory/slurm/job_1": (8, 5, 1)}, 4),
    "a container, version 1": ("0::/docker/f00\n5:memory:/docker/f00", {"memory": (16, 2, 0)}, 14),
}


@pytest.mark.parametrize(("lines", "folders", "free"), GROUPS.values(), ids=GROUPS)
def test_free_is_what_the_machine_and_the_job_have(tmp_path, monkeypatch, lines, folders, free):
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: types.SimpleNamespace(available=100 * GB))
    if lines is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(lines + "\n")
    for folder, (limit, used, cached) in folders.items():
        old = folder.startswith("memory")
        group, prefix = tmp_path / "sys/fs/cgroup" / folder, "total_" if old else ""
        group.mkdir(parents=True, exist_ok=True)
        limit = limit if limit == "max" else limit * GB
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(f"{limit}\n")
        (group / ("memory.usage_in_bytes" if old else "memory.current")).write_text(f"{used * GB}\n")
        stat = f"anon 1\n{prefix}inactive_file {cached * GB}\n{prefix}active_file 0\n"
        (group / "memory.stat").write_text(stat)
    assert free_bytes(torch.device("cpu")) == free * GB


def test_what_torch_keeps_for_new_tensors_of_a_gpu_is_free(monkeypatch):
    """The first training of a process must not have the next one compute activations again."""
    taken = {"mem_get_info": (2 * GB, 9 * GB), "memory_reserved": 6 * GB, "memory_allocated": 1 * GB}
    for name, n_bytes in taken.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, n_bytes=n_bytes: n_bytes)
    assert free_bytes(torch.device("cuda", 0)) == 7 * GB


class Squared(torch.autograd.Function):
    """Knows of a thing that lives as long as the graph."""

    @staticmethod
    def forward(ctx, x, thing):
        ctx.thing = thing
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, dy):
        return 2 * ctx.saved_tensors[0] * dy, None


def test_the_graph_is_gone_after_the_pass():
    """Not only when garbage is collected: until then a GPU would lack its memory."""

    def function(x):
        thing = torch.nn.Identity()
        alive.append(weakref.ref(thing))
        return Squared.apply(x * weight, thing).exp().sum()

    alive, weight = [], torch.ones(3, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        assert saved_bytes(torch.nn.Identity(), function, torch.randn(5, 3)) > 0
        assert alive[0]() is None
    finally:
        gc.enable()
