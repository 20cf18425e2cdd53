"""Files whose matrices stay in the file."""

import errno
import os
import shutil
import warnings
from pathlib import Path

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata import AnnData
from scipy import sparse

from scmamba_scvi import SCMAMBA, read
from scmamba_scvi.data import _on_disk, _row_blocks, convert_mudata, open_mudata, simulate_multiome, write_obsm
from scmamba_scvi.errors import ScmambaError


@pytest.fixture(scope="module")
def mdata():
    mdata = simulate_multiome(n_cells=150, n_genes=60, n_peaks=120, seed=1)
    mdata["rna"].layers["counts"] = mdata["rna"].X.copy()
    mdata["atac"].obsm["X_lsi"] = np.arange(300.0).reshape(150, 2)
    mdata.uns["note"] = "kept"
    return mdata


@pytest.fixture(scope="module")
def h5mu(mdata, tmp_path_factory):
    path = tmp_path_factory.mktemp("disk") / "m.h5mu"
    mdata.write_h5mu(path)
    return path


def dense(x):
    return x.toarray() if sparse.issparse(x) else np.asarray(x)


def assert_same(found, mdata):
    assert list(found.mod) == list(mdata.mod)
    assert found.obs_names.equals(mdata.obs_names)
    assert found.uns["note"] == "kept"
    np.testing.assert_array_equal(found["atac"].obsm["X_lsi"], mdata["atac"].obsm["X_lsi"])
    for key, modality in mdata.mod.items():
        assert found[key].var_names.equals(modality.var_names)
        pd.testing.assert_frame_equal(found[key].obs, modality.obs, check_categorical=False)
        np.testing.assert_array_equal(dense(found[key].X[:]), dense(modality.X))
    np.testing.assert_array_equal(dense(found["rna"].layers["counts"][:]), dense(mdata["rna"].layers["counts"]))


def test_opened_file_is_the_mudata_with_matrices_left_in_it(mdata, h5mu):
    found = open_mudata(h5mu)
    assert not sparse.issparse(found["rna"].X)
    assert not sparse.issparse(found["rna"].layers["counts"])
    assert_same(found, mdata)


@pytest.mark.parametrize("values_per_copy", [2**24, 300], ids=["one_block", "many_blocks"])
def test_converted_file_holds_the_same(mdata, h5mu, tmp_path, monkeypatch, values_per_copy):
    monkeypatch.setattr(_row_blocks, "VALUES_PER_COPY", values_per_copy)
    path = convert_mudata(h5mu, tmp_path / "m.zarr")
    assert_same(open_mudata(path), mdata)
    assert_same(mudata.read_zarr(path), mdata)
    # 32 bits would end at two billion values, which a later block may pass
    assert zarr.open_group(path)["mod/rna/X/indptr"].dtype == np.int64


@pytest.mark.parametrize("part", ["data", "indices"])
@pytest.mark.parametrize("use", [open_mudata, read, lambda path: convert_mudata(path, path.with_name("new.zarr"))])
def test_a_zarr_that_was_not_copied_to_its_end_is_refused(h5mu, tmp_path, monkeypatch, part, use):
    monkeypatch.setattr(_row_blocks, "VALUES_PER_CHUNK", 500)
    path = convert_mudata(h5mu, tmp_path / "m.zarr")
    (path / f"mod/atac/X/{part}/2").unlink()
    with pytest.raises(ScmambaError, match=f"1 of .* pieces of mod/atac/X/{part} are not there"):
        use(path)


def test_a_zarr_that_vanishes_while_it_is_used_is_named(h5mu, tmp_path):
    """zarr would read the rest as zeros, on which a training goes on."""
    path = convert_mudata(h5mu, tmp_path / "m.zarr")
    counts = open_mudata(path)["rna"].X
    assert dense(counts[:5]).any()
    path.rename(tmp_path / "elsewhere.zarr")
    with pytest.raises(ScmambaError, match="m.zarr is not there any more"):
        counts[5:10]


def test_a_layer_of_stored_zeros_is_complete(mdata, tmp_path):
    changed = mdata.copy()
    changed["rna"].layers["zeros"] = changed["rna"].X * 0
    changed.write_zarr(tmp_path / "m.zarr")
    assert open_mudata(tmp_path / "m.zarr")["rna"].layers["zeros"][:].sum() == 0


def test_cells_that_have_only_the_first_of_two_features_are_complete(mdata, tmp_path, monkeypatch):
    monkeypatch.setattr(_row_blocks, "VALUES_PER_CHUNK", 50)
    first = np.tile([1, 0], (150, 1))
    first[-5:] = [0, 2]
    changed = mudata.MuData({"rna": mdata["rna"], "protein": AnnData(sparse.csr_matrix(first), mdata["rna"].obs[[]])})
    changed.write_h5mu(tmp_path / "m.h5mu")
    path = convert_mudata(tmp_path / "m.h5mu", tmp_path / "m.zarr")
    np.testing.assert_array_equal(read(path)["protein"].X.toarray(), first)


@pytest.mark.parametrize("ending", [".h5mu", ".zarr"])
def test_a_file_that_was_opened_is_found_from_another_folder(mdata, h5mu, tmp_path, monkeypatch, ending):
    monkeypatch.chdir(tmp_path)
    shutil.copy(h5mu, "m.h5mu")
    convert_mudata("m.h5mu", "m.zarr")
    found = open_mudata(f"m{ending}")
    monkeypatch.chdir("/")
    assert_same(found, mdata)


def test_dense_matrices_of_mostly_zeros_become_sparse(mdata, tmp_path, monkeypatch):
    monkeypatch.setattr(_row_blocks, "VALUES_PER_COPY", 1000)
    changed = mdata.copy()
    changed["rna"].X = changed["rna"].X.toarray()  # mostly zeros
    changed["atac"].X = changed["atac"].X.toarray() + 1
    changed.write_h5mu(tmp_path / "m.h5mu")
    found = open_mudata(convert_mudata(tmp_path / "m.h5mu", tmp_path / "m.zarr"))
    assert sparse.issparse(found["rna"].X[:10])
    assert isinstance(found["atac"].X[:10], np.ndarray)
    assert_same(found, changed)


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_raw_counts_are_copied_like_those_of_x(mdata, tmp_path, monkeypatch, form):
    """Of more features than X, as scanpy leaves them."""
    changed = mdata.copy()
    rna = changed["rna"]
    counts = rna.X.toarray() + 1 if form == "dense" else rna.X.asformat(form)
    raw = AnnData(counts, obs=rna.obs[[]], var=rna.var)
    changed.mod["rna"] = rna[:, :20].copy()
    changed["rna"].raw = raw
    changed.update()
    changed.write_h5mu(tmp_path / "m.h5mu")
    whole = []

    def read_elem(element):
        whole.append(element.name)
        return anndata.io.read_elem(element)

    monkeypatch.setattr(_on_disk, "read_elem", read_elem)
    monkeypatch.setattr(_row_blocks, "VALUES_PER_COPY", 1000)
    found = anndata.io.read_zarr(convert_mudata(tmp_path / "m.h5mu", tmp_path / "m.zarr") / "mod" / "rna")
    np.testing.assert_array_equal(dense(found.raw.X), dense(counts))
    assert found.raw.var_names.equals(mdata["rna"].var_names)
    assert not any(name.endswith(("/raw", "/X")) for name in whole)


def test_a_modality_without_x_has_its_counts_in_a_layer(mdata, tmp_path):
    changed = mdata.copy()
    changed["rna"].X = None
    changed.write_h5mu(tmp_path / "m.h5mu")
    changed.write_zarr(tmp_path / "whole.zarr")
    for path in (tmp_path / "m.h5mu", tmp_path / "whole.zarr"):
        target = convert_mudata(path, tmp_path / "m.zarr", overwrite=True)
        for found in (open_mudata(path), open_mudata(target), read(target)):
            assert found["rna"].X is None and found["rna"].shape == mdata["rna"].shape
            counts = found["rna"].layers["counts"]
            np.testing.assert_array_equal(dense(counts[:]), dense(mdata["rna"].layers["counts"]))
            SCMAMBA.setup_mudata(found, layers={"rna": "counts"})
            assert SCMAMBA(found).kinds == {"rna": "rna", "atac": "atac"}


def test_matrices_by_columns_become_those_by_rows(mdata, tmp_path):
    """Of which a few cells can be read."""
    changed = mdata.copy()
    for part in changed.mod.values():
        part.X = part.X.tocsc()
        part.layers["counts"] = part.X.copy()
    changed.write_h5mu(tmp_path / "m.h5mu")
    found = open_mudata(convert_mudata(tmp_path / "m.h5mu", tmp_path / "m.zarr"))
    for key, part in found.mod.items():
        for x in (part.X, part.layers["counts"]):
            np.testing.assert_array_equal(x[3:9].toarray(), mdata[key].X[3:9].toarray())
            assert x.format == "csr"


def test_embedding_is_added_and_nothing_else_changes(mdata, h5mu, tmp_path):
    z = np.random.default_rng(0).normal(size=(150, 3)).astype(np.float32)
    copy = tmp_path / "m.h5mu"
    copy.write_bytes(h5mu.read_bytes())
    order = np.random.default_rng(1).permutation(150)
    for path in (copy, convert_mudata(h5mu, tmp_path / "m.zarr")):
        write_obsm(path, "X_scmamba", z[order], obs_names=mdata.obs_names[order])
        found = open_mudata(path)
        np.testing.assert_array_equal(found.obsm["X_scmamba"], z)
        assert_same(found, mdata)
        del found


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_an_embedding_is_added_to_a_zarr_with_consolidated_metadata(mdata, tmp_path, zarr_format):
    path = tmp_path / "m.zarr"
    with anndata.settings.override(zarr_write_format=zarr_format):
        mdata.write_zarr(path)
    zarr.consolidate_metadata(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Consolidated metadata")
        for n in (2, 3):  # added, then replaced
            write_obsm(path, "X_scmamba", np.ones((150, n)), obs_names=mdata.obs_names)
    for consolidated in (True, False):
        root = zarr.open_group(path, mode="r", use_consolidated=consolidated)
        assert root["obsm/X_scmamba"].shape == (150, 3)
    assert_same(open_mudata(path), mdata)


def test_an_embedding_is_added_to_a_file_once_its_mudata_is_dropped(mdata, h5mu, tmp_path):
    path = tmp_path / "m.h5mu"
    path.write_bytes(h5mu.read_bytes())
    opened = open_mudata(path)
    with pytest.raises(ScmambaError, match="cannot be written: it is open elsewhere"):
        write_obsm(path, "X", np.ones((150, 2)), obs_names=mdata.obs_names)
    del opened
    write_obsm(path, "X", np.ones((150, 2)), obs_names=mdata.obs_names)


def test_a_file_without_space_for_an_embedding_stays_as_it_was(mdata, h5mu, tmp_path, monkeypatch):
    """HDF5 leaves a file that is full midway damaged; of a quota only writing tells."""
    path = tmp_path / "m.h5mu"
    path.write_bytes(h5mu.read_bytes())

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ScmambaError, match=r"m.h5mu stays as it was: 1 MB more do not fit there, No space left"):
        write_obsm(path, "X_scmamba", np.ones((150, 2)), obs_names=mdata.obs_names)
    assert path.read_bytes() == h5mu.read_bytes() and os.listdir(tmp_path) == ["m.h5mu"]


def test_a_file_is_changed_in_a_folder_that_may_not_be(mdata, h5mu, tmp_path, monkeypatch):
    path = tmp_path / "m.h5mu"
    path.write_bytes(h5mu.read_bytes())

    def refused(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    write_obsm(path, "X_scmamba", np.ones((150, 2)), obs_names=mdata.obs_names)
    assert "X_scmamba" in open_mudata(path).obsm


@pytest.mark.parametrize("n_pieces", [0, 1])
def test_an_embedding_of_a_zarr_is_replaced_by_a_whole_one_or_stays(mdata, h5mu, tmp_path, monkeypatch, n_pieces):
    """zarr reads pieces that are not there as zeros."""
    path = convert_mudata(h5mu, tmp_path / "m.zarr")
    write_obsm(path, "X", np.ones((150, 2)), obs_names=mdata.obs_names)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    put, n_put = zarr.storage.LocalStore.set, 0

    async def full(self, key, value):
        nonlocal n_put
        n_put += 1
        if n_put > n_pieces + 4:  # what describes the group and the matrix
            raise OSError(errno.ENOSPC, "No space left on device")
        await put(self, key, value)

    monkeypatch.setattr(zarr.storage.LocalStore, "set", full)
    # one after the other, as one that is being written when another fails is still written
    with pytest.raises(ScmambaError, match="No space left"), zarr.config.set({"async.concurrency": 1}):
        write_obsm(path, "X", np.random.default_rng(0).random((150, 2000)), obs_names=mdata.obs_names)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_names_that_differ_in_case_only_are_refused_where_a_disk_has_no_case(h5mu, tmp_path, monkeypatch):
    """On macOS and Windows one column would replace the other."""
    path = tmp_path / "m.h5mu"
    changed = read(h5mu)
    changed["rna"].obs["Batch"], changed["rna"].obs["batch"] = "a", "b"
    changed.write_h5mu(path)
    exists = Path.exists
    if not exists(tmp_path / "M.H5MU"):  # this disk knows case
        convert_mudata(path, tmp_path / "m.zarr", overwrite=True)
    monkeypatch.setattr(Path, "exists", lambda self: exists(self) or exists(self.with_name(self.name.lower())))
    with pytest.raises(ScmambaError, match="'Batch' and 'batch' of /mod/rna/obs differ in case only"):
        convert_mudata(path, tmp_path / "other.zarr")
    assert "other.zarr" not in os.listdir(tmp_path)
    convert_mudata(h5mu, tmp_path / "other.zarr")


def test_a_conversion_that_failed_leaves_the_file_closed(mdata, h5mu, tmp_path, monkeypatch):
    path = tmp_path / "m.h5mu"
    path.write_bytes(h5mu.read_bytes())

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(_on_disk, "_copy", full)
    with pytest.raises(ScmambaError, match="no space left") as error:
        convert_mudata(path, tmp_path / "m.zarr")
    assert error.tb  # holds every frame, as in a notebook after an error
    write_obsm(path, "X", np.ones((150, 2)), obs_names=mdata.obs_names)


@pytest.mark.parametrize(
    ("key", "values", "says"),
    [
        pytest.param("scVI/v2", np.ones((150, 2)), "key must be text without a slash", id="slash"),
        pytest.param("", np.ones((150, 2)), "key must be text", id="empty"),
        pytest.param(3, np.ones((150, 2)), "key must be text.*got 3", id="number"),
        pytest.param("rna", np.ones((150, 2)), "key 'rna' is a modality", id="modality"),
        pytest.param("X", np.ones(150), r"values must be a matrix.*\(150,\)", id="vector"),
        pytest.param("X", np.full((150, 2), "a"), "values must be a matrix of numbers", id="text"),
    ],
)
def test_what_cannot_be_in_obsm_is_refused_and_the_file_stays(mdata, h5mu, tmp_path, key, values, says):
    for path in (tmp_path / "m.h5mu", convert_mudata(h5mu, tmp_path / "m.zarr")):
        if path.suffix == ".h5mu":
            shutil.copy(h5mu, path)
        with pytest.raises(ScmambaError, match=says):
            write_obsm(path, key, values, obs_names=mdata.obs_names)
        found = open_mudata(path)
        assert_same(found, mdata)
        assert set(found.obsm) == {*mdata.obsm} and found.obsm["rna"].all()
        del found


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_not_replaced_by_one(h5mu, tmp_path, kind):
    target = tmp_path / "m.zarr"
    if kind == "file":
        target.write_text("mine")
    else:
        (tmp_path / "elsewhere").mkdir()
        target.symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ScmambaError, match="m.zarr is no MuData or AnnData stored as zarr: choose another name"):
        convert_mudata(h5mu, target, overwrite=True)
    assert sorted(tmp_path.iterdir()) == before and target.is_symlink() == (kind == "link")


def test_a_file_that_a_program_writes_is_not_only_called_damaged(h5mu):
    fcntl = pytest.importorskip("fcntl")
    with h5mu.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as HDF5 does
        for use in (open_mudata, read):
            with pytest.raises(ScmambaError, match="m.h5mu cannot be read: it is being written, .*lock"):
                use(h5mu)


def test_errors_name_the_file_and_what_to_do(mdata, h5mu, tmp_path):
    zarr = convert_mudata(h5mu, tmp_path / "m.zarr")
    names = mdata.obs_names
    z = np.zeros((150, 2))
    with pytest.raises(ScmambaError, match="no file"):
        open_mudata(tmp_path / "absent.h5mu")
    with pytest.raises(ScmambaError, match="m.zarr exists"):
        convert_mudata(h5mu, zarr)
    with pytest.raises(ScmambaError, match="exists: choose another name"):
        convert_mudata(zarr, zarr, overwrite=True)
    with pytest.raises(ScmambaError, match=r"call it out\.zarr"):
        convert_mudata(h5mu, tmp_path / "out.h5mu")
    with pytest.raises(ScmambaError, match="not those of"):
        write_obsm(zarr, "X", z, obs_names=names + "x")
    with pytest.raises(ScmambaError, match="149 rows of values for 150"):
        write_obsm(zarr, "X", z[1:], obs_names=names)
    mdata["rna"].write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ScmambaError, match="not a MuData"):
        open_mudata(tmp_path / "a.h5ad")
    half = tmp_path / "half.h5mu"
    half.write_bytes(h5mu.read_bytes()[: h5mu.stat().st_size // 2])
    with pytest.raises(ScmambaError, match="damaged"):
        open_mudata(half)
    half.write_bytes(half.read_bytes().ljust(h5mu.stat().st_size, b"\0"))  # a copy on its way to its size
    with pytest.raises(ScmambaError, match=r"half\.h5mu cannot be read: .*damaged"):
        open_mudata(half)
    broken = convert_mudata(h5mu, tmp_path / "broken.zarr")
    shutil.rmtree(broken / "mod" / "rna" / "X" / "indptr")
    with pytest.raises(ScmambaError, match=r"broken\.zarr cannot be converted to .*again\.zarr: "):
        convert_mudata(broken, tmp_path / "again.zarr")
    assert not [*tmp_path.glob("*again.zarr*")], "nothing half-written stays"


@pytest.mark.parametrize("how", [open_mudata, read])
def test_a_file_of_different_cells_with_the_same_features_stays_one(tmp_path, how):
    """Else its cells would be taken for cells that lack all modalities but one."""
    parts = {name: AnnData(np.ones((4, 3), np.float32)) for name in ("rna", "atac")}
    parts["atac"].obs_names = [f"other_{i}" for i in range(4)]
    mudata.MuData(parts, axis=1).write(tmp_path / "cells.h5mu")
    assert how(tmp_path / "cells.h5mu").axis == 1


@pytest.mark.parametrize("empty", [sparse.csr_matrix((0, 5), dtype=np.float32), np.zeros((0, 5), dtype=np.float32)],
                         ids=["sparse", "dense"])  # fmt: skip
def test_a_modality_that_no_cell_has_keeps_its_features(tmp_path, empty):
    rna = AnnData(sparse.csr_matrix(np.eye(5, dtype=np.float32)), obs=pd.DataFrame(index=list("abcde")))
    mudata.MuData({"rna": rna, "atac": AnnData(empty)}).write_h5mu(tmp_path / "m.h5mu")
    found = open_mudata(convert_mudata(tmp_path / "m.h5mu", tmp_path / "m.zarr"))
    assert found["atac"].X.shape == (0, 5)
    np.testing.assert_array_equal(dense(found["rna"].X[:]), np.eye(5))


def notes(path):
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def images(path):
    zarr.open_group(path, mode="w").create_array("0", data=np.zeros((2, 2)))


def store_with_notes(path):
    AnnData(np.ones((2, 2))).write_zarr(path)
    (path / "notes.txt").write_text("mine")


@pytest.mark.parametrize("make", [notes, images, store_with_notes, lambda path: path.mkdir()])
def test_only_a_store_of_cells_is_overwritten(h5mu, tmp_path, make):
    target = tmp_path / "m.zarr"
    make(target)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(ScmambaError, match="m.zarr is no MuData or AnnData stored as zarr: choose another name"):
        convert_mudata(h5mu, target, overwrite=True)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("made_by", ["this package", "mudata", "anndata"])
def test_a_store_of_cells_is_overwritten(mdata, h5mu, tmp_path, made_by):
    target = tmp_path / "m.zarr"
    if made_by == "this package":
        convert_mudata(h5mu, target)
    else:
        (mdata if made_by == "mudata" else mdata["rna"]).write_zarr(target)
    assert_same(open_mudata(convert_mudata(h5mu, target, overwrite=True)), mdata)
    assert [path.name for path in tmp_path.iterdir()] == ["m.zarr"]


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
@pytest.mark.parametrize("moved", ["m.zarr", "new"])
def test_a_store_that_cannot_be_replaced_stays(mdata, h5mu, tmp_path, monkeypatch, moved, error):
    target = convert_mudata(h5mu, tmp_path / "m.zarr")
    move = os.replace

    def replace(source, destination):
        if os.path.basename(source) == moved:
            raise error
        move(source, destination)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises((ScmambaError, KeyboardInterrupt), match="m.zarr cannot be replaced: no space left|^$"):
        convert_mudata(h5mu, target, overwrite=True)
    assert_same(open_mudata(target), mdata)
    assert [path.name for path in tmp_path.iterdir()] == ["m.zarr"]
