"""Minibatches through a buffer are mixed, and hold each cell once."""

import numpy as np
import pytest
import torch

from scmamba_scvi import SCMAMBA
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.model.training.streaming import StreamedLoader


def dataset_of(mdata):
    SCMAMBA.setup_mudata(mdata)
    return SCMAMBA(mdata, encoder="linear").adata_manager.create_torch_dataset()


@pytest.mark.filterwarnings("ignore:mdata:UserWarning")
def test_each_process_reads_its_part_of_every_minibatch(opened):
    dataset = dataset_of(opened)

    def cells_of(rank):
        generator = torch.Generator().manual_seed(1)
        loader = StreamedLoader(dataset, np.arange(500), 64, 1.0, generator, rank, world_size=2)
        return [minibatch["cells"].tolist() for minibatch in loader], len(loader)

    (first, n), (second, _) = cells_of(0), cells_of(1)
    assert len(first) == len(second) == n == 500 // 64 and all(len(cells) == 32 for cells in first + second)
    assert len(set(sum(first + second, []))) == n * 64


@pytest.mark.filterwarnings("ignore:mdata:UserWarning")
def test_a_last_minibatch_that_is_not_full_is_only_read_from_memory(opened):
    SCMAMBA.setup_mudata(opened)
    with pytest.raises(ScmambaError, match="drop_last=False is for counts in memory"):
        SCMAMBA(opened, encoder="linear").train(max_epochs=1, datasplitter_kwargs={"drop_last": False})


@pytest.mark.filterwarnings("ignore:mdata:UserWarning")
def test_cells_are_mixed_within_and_between_minibatches(opened):
    dataset = dataset_of(opened)
    # one order in seventy has the first cells first
    loader = StreamedLoader(dataset, np.arange(500), 64, buffer_mb=1.0, generator=torch.Generator().manual_seed(0))
    loader._per_buffer = 4
    first, second = (np.concatenate([cells for buffer in loader._plan() for cells in buffer]) for _ in range(2))
    assert len(np.unique(first[:64] // 64)) > 2, "cells of several chunks"
    assert first[:256].max() > 255, "a buffer is not filled with the cells that come first in the file"
    assert not np.array_equal(first, second), "a new order in every epoch"
