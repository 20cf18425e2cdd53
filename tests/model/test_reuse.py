"""Several models, threads, worker processes and many rounds; the state of the process is left as it was."""

from __future__ import annotations

import concurrent.futures
import gc
import logging
import multiprocessing
import os
import random
import subprocess
import sys
import textwrap
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback
from shapes import QUICK, TINY, fitted, small

from scmamba_scvi import SCMAMBA
from scmamba_scvi.errors import ScmambaError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model():
    return fitted(small())


# -- several at once -------------------------------


def test_two_models_share_a_mudata():
    mdata = small()
    first = fitted(mdata, batch_key="batch")
    before = first.get_latent_representation()
    second = fitted(mdata, n_latent=3)
    np.testing.assert_allclose(first.get_latent_representation(), before, atol=1e-6)
    assert first.get_latent_representation().shape[1] == 4 and second.get_latent_representation().shape[1] == 3
    assert first.batch_key == "batch" and second.batch_key is None
    first.train(**QUICK)
    assert np.isfinite(first.get_latent_representation()).all()


def test_a_model_keeps_its_features_and_batches_when_its_data_are_set_up_again():
    mdata = small()
    first = fitted(mdata, batch_key="batch")
    before = first.get_latent_representation()
    for key in list(mdata.mod):
        mdata.mod[key] = mdata[key][:, ::-1].copy()
    mdata.obs["other"] = [f"other {i // 30}" for i in range(60)]
    fitted(mdata, batch_key="other")
    np.testing.assert_allclose(first.get_latent_representation(), before, atol=1e-6)
    assert first.batches.tolist() == ["batch 0", "batch 1"]
    mdata.mod["rna"] = mdata["rna"][:, 3:].copy()
    SCMAMBA.setup_mudata(mdata)
    with pytest.raises(ScmambaError, match=r"features of mdata\['rna'\] are not those of the model.*3 are missing"):
        first.get_latent_representation()


def test_training_reads_the_batches_of_its_own_setup():
    runs = []
    for again in (False, True):
        mdata = small()
        SCMAMBA.setup_mudata(mdata, batch_key="batch")
        scvi.settings.seed = 0
        model = SCMAMBA(mdata, **TINY)
        if again:
            mdata.obs["other"] = [f"other {i // 30}" for i in range(60)]
            SCMAMBA.setup_mudata(mdata, batch_key="other")
        scvi.settings.seed = 0
        model.train(**QUICK)
        runs.append(model.get_latent_representation())
    np.testing.assert_array_equal(*runs)


def test_training_with_batches_that_the_model_does_not_know_is_refused():
    mdata = small()
    model = fitted(mdata, batch_key="batch")
    mdata.obs["batch"] = "new"
    SCMAMBA.setup_mudata(mdata, batch_key="batch")
    with pytest.raises(ScmambaError, match="60 cells are of batches.*such as 'new'.*make a new model"):
        model.train(**QUICK)


def test_a_modality_that_is_gone_is_named():
    mdata = small()
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, **TINY)
    mdata.mod["gex"] = mdata.mod.pop("rna")
    with pytest.raises(ScmambaError, match=r"'rna' is not among its modalities \['atac', 'gex'\].*setup_mudata again"):
        model.train(**QUICK)


def test_other_data_that_were_changed_are_registered_again(model):
    """Nobody set them up, so nobody has to set them up again."""
    other = small(30)
    model.get_latent_representation(other)
    atac, kept = other.mod["atac"], other.obs_names[:20]
    del other.mod["atac"]
    other.update()
    assert model.get_latent_representation(other).shape == (30, 4)
    other.mod["atac"] = atac
    other.update()
    np.testing.assert_allclose(model.get_latent_representation(other), model.get_latent_representation(other.copy()))
    for key in ("rna", "atac"):
        other.mod[key] = other[key][kept].copy()
    other.update()
    assert model.get_latent_representation(other).shape == (20, 4)


def test_threads_embed_as_one_thread_does(model):
    queries = [small(40, seed) for seed in range(6)]
    alone = [model.get_latent_representation(q) for q in queries]
    again = [small(40, seed) for seed in range(6)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        together = list(pool.map(model.get_latent_representation, again))
        own = list(pool.map(lambda kind: model.get_latent_representation(modality=kind), ["rna", "atac", None] * 3))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for i in range(3):
        np.testing.assert_array_equal(own[i], own[i + 3])


# -- workers -------------------------------


class ReadRows(Callback):
    """Keeps the cells of every minibatch that comes out of the loader, with their counts."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_start(self, *_):
        self.epochs.append([])

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        counts = np.hstack([batch[f"X_{kind}"].to_dense().numpy() for kind in ("rna", "atac")])
        self.epochs[-1].append((batch["cells"].numpy().copy(), counts))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_forked_workers_read_every_training_cell_once_in_the_same_order(recwarn):
    mdata, read, alone = small(), ReadRows(), ReadRows()
    truth = np.hstack([mdata[key].X.toarray() for key in ("rna", "atac")])
    SCMAMBA.setup_mudata(mdata)
    workers = {"num_workers": 2, "multiprocessing_context": "fork"}
    for callback, options in ((alone, {}), (read, workers)):
        torch.manual_seed(0)
        model = SCMAMBA(mdata, **TINY)
        model.train(**QUICK, batch_size=18, callbacks=[callback], datasplitter_kwargs=options)
    for mine, theirs in zip(read.epochs, alone.epochs, strict=True):
        np.testing.assert_array_equal([cells for cells, _ in mine], [cells for cells, _ in theirs])
    assert not [warning for warning in recwarn if "Sparse invariant" in str(warning.message)]
    assert len(read.epochs) == QUICK["max_epochs"]
    for minibatches in read.epochs:
        assert len(minibatches) > 1
        cells, counts = (np.concatenate(part) for part in zip(*minibatches, strict=True))
        assert sorted(cells) == sorted(model.train_indices)  # 54 cells are three full minibatches
        np.testing.assert_array_equal(counts, truth[cells])
    assert np.ptp(model.get_latent_representation(), axis=0).min() > 0


NO_GUARD = """
import sys, warnings
sys.path[:0] = {path!r}
warnings.simplefilter("ignore")
import test_reuse as t
from scmamba_scvi import SCMAMBA
mdata = t.small()
SCMAMBA.setup_mudata(mdata)
model = SCMAMBA(mdata, **t.TINY)
model.train(**t.QUICK, datasplitter_kwargs={options!r})
print("finite", bool((model.get_latent_representation() ** 2).sum() > 0))
"""


def script(tmp_path, options, guarded=False):
    here = Path(__file__).parent
    text = textwrap.dedent(NO_GUARD).format(path=[str(here), str(here.parent / "helpers"), *sys.path], options=options)
    if guarded:
        head, body = text.split("import test_reuse as t\n")
        text = head + "import test_reuse as t\nif __name__ == '__main__':\n" + textwrap.indent(body, "    ")
    (tmp_path / "script.py").write_text(text)
    return subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=500)


@pytest.mark.slow
def test_a_script_without_main_guard_runs(tmp_path):
    done = script(tmp_path, {})
    assert "finite True" in done.stdout, done.stderr[-2000:]


@pytest.mark.slow
def test_spawned_workers_read_the_same(tmp_path):
    done = script(
        tmp_path, {"num_workers": 1, "multiprocessing_context": "spawn", "persistent_workers": True}, guarded=True
    )
    assert "finite True" in done.stdout, done.stderr[-2000:]


# -- the state of the process -------------------------------


def state_of_the_process():
    import matplotlib
    import scvi

    flags = {
        "deterministic": torch.are_deterministic_algorithms_enabled(), "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(), "grad": torch.is_grad_enabled(), "inference": torch.is_inference_mode_enabled(),
        "matmul": torch.get_float32_matmul_precision(), "cudnn": torch.backends.cudnn.deterministic,
        "mkldnn": torch.backends.mkldnn.enabled, "device": str(torch.get_default_device()),
    }  # fmt: skip
    return {
        **flags, "rc": dict(matplotlib.rcParams), "filters": list(warnings.filters), "show": warnings.showwarning,
        "errors": np.geterr(), "seed": scvi.settings.seed, "environment": dict(os.environ), "cwd": os.getcwd(),
        "recursion": sys.getrecursionlimit(), "hook": sys.excepthook,
    }  # fmt: skip


def test_nothing_of_the_process_is_changed(tmp_path):
    fitted(small())  # libraries change some state once, when they are first used
    mdata = small()
    before, python, numpy = state_of_the_process(), random.getstate(), np.random.get_state()
    model = fitted(mdata, batch_key="batch")
    rng = torch.get_rng_state()  # training draws from it, what follows does not
    model.get_latent_representation()
    model.match_cells()
    model.export(tmp_path / "e")
    model.save(tmp_path / "s")
    assert torch.equal(torch.get_rng_state(), rng)
    SCMAMBA.load(tmp_path / "s", adata=False)
    assert random.getstate() == python
    assert np.array_equal(np.random.get_state()[1], numpy[1]) and np.random.get_state()[2] == numpy[2]
    after = state_of_the_process()
    assert {k for k in before if before[k] != after[k]} == set()
    assert [p.name for p in Path.cwd().iterdir() if p.name in ("lightning_logs", "checkpoints", "scvi_log")] == []


def test_a_failing_training_changes_nothing_of_the_process(model):
    before = state_of_the_process()
    with pytest.raises(ScmambaError):
        model.train(**QUICK, batch_size=10**6)
    with pytest.raises(ScmambaError):
        model.train(**QUICK, max_time="soon")
    after = state_of_the_process()
    assert {k for k in before if before[k] != after[k]} == set()


def test_data_are_released_with_the_model_that_embedded_them():
    model, query = fitted(small()), small(20)
    model.get_latent_representation(query)
    gone = [weakref.ref(query), weakref.ref(model)]
    del model, query
    for _ in range(3):  # the model releases its managers, and these release the data
        gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_a_model_without_data_releases_what_it_embedded_unless_the_user_set_it_up(model, tmp_path):
    model.export(tmp_path / "e")
    embedded, theirs = small(20), small(20)
    SCMAMBA.setup_mudata(theirs)
    gone = []
    for query in (embedded, theirs):
        other = SCMAMBA.from_export(tmp_path / "e")
        other.get_latent_representation(query)
        other.get_latent_representation(query)
        gone.append(weakref.ref(query))
    del other, query, embedded
    for _ in range(3):
        gc.collect()
    assert gone[0]() is None
    SCMAMBA(theirs, **TINY)  # still set up


# -- many rounds -------------------------------


def used():
    """Resident memory in bytes, open files, and objects that Python's collector knows."""
    for _ in range(5):  # a model releases its managers, these the data, and data each other
        gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE"), len(os.listdir("/proc/self/fd")), len(gc.get_objects())


def one_round(folder, i):
    mdata = small(40, seed=i)
    model = fitted(mdata)
    model.get_latent_representation()
    model.get_latent_representation(small(20, seed=i))
    model.save(folder / "s", overwrite=True)
    model.export(folder / "e", overwrite=True)
    loaded = SCMAMBA.load(folder / "s", adata=small(40, seed=i))
    loaded.get_latent_representation()
    SCMAMBA.from_export(folder / "e").get_latent_representation(small(20, seed=i + 1))
    for holder in (model, loaded):  # scvi-tools keeps data that were set up until they are deregistered
        holder.deregister_manager(holder.adata)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("rounds", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_memory_and_open_files_stay_flat(tmp_path, rounds, monkeypatch):
    monkeypatch.setattr(logging.root.manager, "disable", logging.INFO)  # pytest keeps all log records
    warm = max(8, rounds // 3)
    for i in range(warm):
        one_round(tmp_path, i)
    before = used()
    for i in range(warm, rounds):
        one_round(tmp_path, i)
    memory, files, objects = (now - then for now, then in zip(used(), before, strict=True))
    n = rounds - warm
    print(f"{n} rounds: {memory / n / 1024:.0f} KiB and {objects / n:.1f} objects per round, {files} more open files")
    assert files <= 0
    assert objects < 10 * n  # a dataset that is not released is 190
    assert memory < 16 << 20  # the allocator holds memory back in steps of some megabytes
