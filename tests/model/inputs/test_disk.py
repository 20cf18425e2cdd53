"""Counts that are read from a file when they are needed."""

import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from scvi import settings
from zarr.storage import LocalStore

from scmamba_scvi import SCMAMBA
from scmamba_scvi.data import _row_blocks, convert_mudata, open_mudata
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.model.inputs.disk import RowsOnDisk
from scmamba_scvi.model.training.streaming import StreamedLoader

SMALL = {"n_latent": 8, "max_patches": 4, "n_layers": 1, "d_model": 16, "headdim": 16}


def model_of(mdata, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # simulated features that no cell has
        SCMAMBA.setup_mudata(mdata, **arguments)
    return SCMAMBA(mdata, preset="small", **SMALL)


def train(model, **kwargs):
    settings.seed = 0
    model.train(max_epochs=4, batch_size=64, enable_progress_bar=False, **kwargs)
    return model


def dense(x):
    return x.to_dense() if x.layout != torch.strided else x


@pytest.mark.parametrize("rows", [[5, 3, 3, 499, 0], list(range(40, 90)), [0, 9, 18, 27], []])
def test_rows_are_read_in_any_order(uneven, opened, rows):
    rows = np.array(rows, dtype=np.int64)
    found = RowsOnDisk(opened["rna"].X).read(rows)
    found = found.toarray() if sparse.issparse(found) else found
    np.testing.assert_array_equal(found, uneven["rna"].X[rows].toarray())


def test_a_piece_of_a_zarr_is_read_once_for_all_rows_in_it(uneven, tmp_path, monkeypatch):
    monkeypatch.setattr(_row_blocks, "VALUES_PER_CHUNK", 2000)  # of about 50 rows
    uneven.write_h5mu(tmp_path / "m.h5mu")
    rows = RowsOnDisk(open_mudata(convert_mudata(tmp_path / "m.h5mu", tmp_path / "m.zarr"))["rna"].X)
    read, get = [], LocalStore.get
    monkeypatch.setattr(
        LocalStore, "get", lambda self, key, *rest, **kw: (read.append(key), get(self, key, *rest, **kw))[1]
    )
    found = rows.read(np.arange(0, 500, 11))
    np.testing.assert_array_equal(found.toarray(), uneven["rna"].X[::11].toarray())
    assert 3 < len(read) == len(set(read))


def test_minibatches_are_those_of_the_data_in_memory(uneven, opened):
    in_memory, on_disk = (model_of(m).adata_manager.create_torch_dataset() for m in (uneven, opened))
    assert on_disk.on_disk
    assert not in_memory.on_disk
    loader = StreamedLoader(on_disk, np.arange(500)[::-1], 64, buffer_mb=1.0)
    loader._per_buffer = 2
    seen = []
    for cells, found in zip((c for buffer in plan_of_next_epoch(loader) for c in buffer), loader, strict=True):
        expected = in_memory[cells]
        assert set(found) == set(expected)
        for key, value in expected.items():
            torch.testing.assert_close(dense(found[key]), dense(value), rtol=0, atol=0)
        seen.append(cells)
    seen = np.concatenate(seen)
    assert len(seen) == len(np.unique(seen)) == 500 // 64 * 64


def plan_of_next_epoch(loader):
    """Cells of its minibatches, buffer by buffer."""
    state = torch.random.get_rng_state()
    plan = list(loader._plan())
    torch.random.set_rng_state(state)
    return plan


def test_a_model_learns_from_a_file_as_from_memory(uneven, opened):
    in_memory, on_disk = (train(model_of(m)) for m in (uneven, opened))
    assert on_disk.history["foscttm_validation"].iloc[-1, 0] == pytest.approx(
        in_memory.history["foscttm_validation"].iloc[-1, 0], abs=0.05
    )
    z = on_disk.get_latent_representation()
    np.testing.assert_allclose(z, on_disk.get_latent_representation(uneven), atol=1e-5)
    order = np.random.default_rng(0).permutation(500)
    np.testing.assert_allclose(z[order], on_disk.get_latent_representation(indices=order), atol=1e-5)


def test_the_same_seed_gives_the_same_model(opened):
    first, second = (train(model_of(opened)).get_latent_representation() for _ in range(2))
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_buffer_that_is_too_small_is_refused_with_a_size_that_is_enough(opened):
    model = model_of(opened)
    with pytest.raises(ScmambaError, match=r"fewer than the 64 of a minibatch: choose plan_kwargs=\{'buffer_mb'"):
        train(model, plan_kwargs={"buffer_mb": 0.01})
