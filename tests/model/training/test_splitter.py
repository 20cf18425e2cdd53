"""Held-out cells have several modalities; every other cell is trained on once per epoch."""

import numpy as np
import pytest
import torch
from shapes import mudata_of, poisson
from torch.utils.data import BatchSampler, RandomSampler

from scmamba_scvi import SCMAMBA
from scmamba_scvi.model.training.splitter import PairedSplitter, PartOfMinibatch


@pytest.fixture
def manager():
    mdata = mudata_of({"rna": poisson(200, 20), "atac": poisson(200, 20, seed=1)}, n_absent=80)
    SCMAMBA.setup_mudata(mdata)
    return SCMAMBA._setup_adata_manager_store[mdata.uns["_scvi_uuid"]]


def split(manager, **options):
    sizes = {"max_validation_cells": 1000, "batch_size": 16, "cells_per_step": 16, "buffer_mb": 1024}
    return PairedSplitter(manager, **sizes | options)


@pytest.mark.filterwarnings("ignore:mdata:UserWarning")
@pytest.mark.parametrize(
    ("options", "n_train", "n_val", "n_left"),
    [
        pytest.param({}, 188, 12, 0, id="a tenth of the pairs"),
        pytest.param({"max_validation_cells": 5}, 195, 5, 0, id="at most so many"),
        pytest.param({"train_size": 0.5}, 100, 60, 40, id="half to train on"),
        pytest.param({"train_size": 0.5, "validation_size": 0.1}, 100, 12, 88, id="both"),
        pytest.param({"train_size": 1.0}, 200, 0, 0, id="all"),
    ],
)
def test_parts_are_disjoint_and_held_out_cells_are_pairs(manager, options, n_train, n_val, n_left):
    parts = split(manager, **options)
    found = parts.train_idx, parts.val_idx, parts.test_idx
    assert tuple(map(len, found)) == (n_train, n_val, n_left)
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.arange(200))
    assert (parts.val_idx >= 80).all()  # the first 80 lack accessibility


@pytest.mark.filterwarnings("ignore:mdata:UserWarning")
@pytest.mark.parametrize("options", [{}, {"train_size": 0.9}], ids=["default", "train_size"])
def test_short_last_minibatches_are_made_without_a_word_of_cells_that_are_moved(manager, options, recwarn):
    recwarn.clear()
    parts = split(manager, drop_last=False, batch_size=179, cells_per_step=179, **options)
    assert not parts.drop_last and not recwarn


@pytest.mark.filterwarnings("ignore")
def test_options_of_workers_have_no_effect_where_a_gpu_keeps_the_counts(manager, monkeypatch):
    parts = split(manager, num_workers=1, prefetch_factor=2, multiprocessing_context="spawn", timeout=5)
    assert parts._loader(parts.val_idx, []).num_workers == 1
    monkeypatch.setattr(type(parts._dataset), "on_gpu", True)
    assert parts._loader(parts.val_idx, []).num_workers == 0


@pytest.mark.filterwarnings("ignore")
def test_an_epoch_reads_every_training_cell_and_the_next_one_in_another_order(manager):
    parts = split(manager, drop_last=False)
    loader = parts.train_dataloader()
    first = np.concatenate([batch["cells"] for batch in loader])
    np.testing.assert_array_equal(np.sort(first), np.sort(parts.train_idx))
    parts.seed += 1
    assert (np.concatenate([batch["cells"] for batch in loader]) != first).any()
    held_out = np.concatenate([batch["cells"] for batch in parts.val_dataloader()])
    np.testing.assert_array_equal(held_out, parts.val_idx)
    assert split(manager, train_size=1.0).val_dataloader() == []


@pytest.mark.parametrize("world_size", [2, 3])
def test_each_cell_of_an_epoch_is_read_by_one_process(world_size):
    def minibatches():
        generator = torch.Generator().manual_seed(3)
        return BatchSampler(RandomSampler(range(810), generator=generator), 120, drop_last=False)

    parts_of = [PartOfMinibatch(minibatches(), number, world_size) for number in range(world_size)]
    epochs = [[list(part) for part in parts_of] for _ in range(2)]
    for epoch in epochs:
        assert len({len(parts) for parts in epoch}) == 1 and len(epoch[0]) == len(parts_of[0])
        np.testing.assert_array_equal(
            np.sort(np.concatenate([np.concatenate(parts) for parts in epoch])), np.arange(810)
        )
    assert epochs[0] != epochs[1]
    whole = list(minibatches())
    assert [sorted(sum(parts, [])) for parts in zip(*epochs[0], strict=True)] == [sorted(cells) for cells in whole]
