"""Activations are kept where they fit, and computed again where they do not; training is the same either way."""

import numpy as np
import torch

from scmamba_scvi import SCMAMBA
from scmamba_scvi.model.training.activations import fits, set_checkpointing


def test_checkpointing_is_decided_by_the_argument_else_by_free_memory(mdata):
    SCMAMBA.setup_mudata(mdata)
    module = SCMAMBA(mdata).module
    network = module.encoders["rna"].network
    for asked in (True, False):
        set_checkpointing(module, asked, 80)
        assert network.checkpoint_blocks is asked
    module.encoders["rna"].checkpoint_activations(True)
    set_checkpointing(module, None, 80)
    assert not network.checkpoint_blocks  # a CPU keeps activations
    to_come = 12 * sum(p.numel() for p in module.parameters())  # gradient and two moments in float32
    assert fits(700, module, to_come + 1000) and not fits(701, module, to_come + 1000)


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
        assert model.module.encoders["rna"].network.checkpoint_blocks is checkpointed
        losses.append(model.history["train_loss"].astype(float))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
