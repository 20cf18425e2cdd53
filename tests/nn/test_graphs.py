"""Where a network is launched as a graph; tests/model/test_gpu.py has what a graph computes, which needs a GPU."""

import types

import pytest
import torch

from scmamba_scvi import SCMAMBA
from scmamba_scvi.config import resolve_config
from scmamba_scvi.nn.graphs import NetworkGraph
from scmamba_scvi.nn.sequence import SequenceNetwork


class OfOneShape:
    """Takes the place of a graph: knows an input of one shape and answers with ones."""

    def __init__(self, shape):
        self.shape = shape

    def takes(self, x):
        return x.shape == self.shape

    def __call__(self, x):
        return torch.ones(x.shape[0], x.shape[2])


def test_a_graph_is_used_in_training_for_its_minibatches_alone():
    network, tokens = SequenceNetwork(resolve_config("small"), "rna", 5), torch.randn(4, 5, 64)
    without = network(tokens)
    network.graph = OfOneShape(tokens.shape)
    assert network(tokens).eq(1).all()
    torch.testing.assert_close(network(tokens[:2]), without[:2])
    torch.testing.assert_close(network.eval()(tokens), without)


def test_no_graph_is_recorded_without_a_gpu():
    network = SequenceNetwork(resolve_config("small"), "rna", 5)
    network.record_graph(8)
    assert network.graph is None


@pytest.mark.filterwarnings("default:No CUDA graph")
def test_training_goes_on_where_no_graph_can_be_recorded(mdata, quick, monkeypatch):
    def fail(self, n_cells):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(SequenceNetwork, "record_graph", fail)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, gate_init=0.5)
    with pytest.warns(
        UserWarning, match=r"on this GPU: operation not permitted.*capturing\. .* begin again in a new one\.$"
    ):
        model.train(**quick)
    assert model.is_trained


def test_after_a_recording_that_failed_the_stream_and_the_generator_are_as_before(monkeypatch):
    """Torch stays on the stream of the recording; what a GPU does then, tests/model/test_gpu.py has."""
    before = types.SimpleNamespace(device_index=0)
    streams, generator = [before], torch.Generator().manual_seed(3)
    wanted = torch.rand(5, generator=generator.clone_state())
    states = []
    monkeypatch.setattr(torch.cuda, "default_generators", (OfStates(generator, states),))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)

    def fail(*_, **__):
        streams.append("of the recording")
        raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fail)
    network = SequenceNetwork(resolve_config("small"), "rna", 5)
    with pytest.raises(RuntimeError, match="previous error"):
        NetworkGraph(network, (8, 5, 64))
    assert streams[-1] is before
    (state,) = states
    assert state is not generator
    assert torch.equal(torch.rand(5, generator=state), wanted)


class OfStates:
    """Takes the place of a generator on a GPU: notes which states it is given."""

    def __init__(self, generator, states):
        self.clone_state, self.graphsafe_set_state = generator.clone_state, states.append


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [({}, [80, 80]), ({"accumulate_grad_batches": 2}, []), ({"contrastive_batch_size": 160}, [])],
    ids=["whole minibatches", "gradients added up", "minibatches in parts"],
)
def test_a_graph_is_asked_for_where_a_step_is_one_forward_and_one_backward_pass(
    mdata, quick, monkeypatch, arguments, asked
):
    found = []
    monkeypatch.setattr(SequenceNetwork, "record_graph", lambda self, n_cells: found.append(n_cells))
    SCMAMBA.setup_mudata(mdata)
    SCMAMBA(mdata, gate_init=0.5).train(batch_size=80, **arguments, **quick)
    assert found == asked
