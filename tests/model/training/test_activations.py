"""Activations are kept where they fit, and computed again where they do not; training is the same either way."""

import numpy as np
import torch

from scmamba_scvi import SCMAMBA
from scmamba_scvi.model.training.activations import activation_bytes, fewest_that_fit, set_checkpointing


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
