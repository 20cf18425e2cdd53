from __future__ import annotations

import gzip
import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pooch
import pytest
from scipy import sparse

from scmamba_scvi.data import fetch_bone_marrow
from scmamba_scvi.data._download import BONE_MARROW_URL
from scmamba_scvi.errors import ScmambaError, UnknownNameError


@pytest.fixture
def file_of_geo(tmp_path):
    """A file as GEO has it: counts in a layer, types of features in var, names of columns of its own."""
    n = 40
    counts = sparse.random(n, 12, 0.5, format="csr", random_state=0, data_rvs=lambda k: np.arange(1, k + 1.0))
    obs = pd.DataFrame(
        {"cell_type": ["HSC"] * n, "batch": ["s1d1"] * n, "Site": "site1", "DonorID": 15078, "phase": "G1"},
        index=[f"cell{i}" for i in range(n)],
    )
    var = pd.DataFrame({"feature_types": ["GEX"] * 8 + ["ADT"] * 4, "gene_id": "x"}, index=[f"f{i}" for i in range(12)])
    path = tmp_path / "geo.h5ad"
    ad.AnnData(counts / 7, obs=obs, var=var, layers={"counts": counts}).write_h5ad(path)
    return path, counts


def test_a_file_downloaded_by_hand_is_found_by_path_or_folder(file_of_geo, tmp_path):
    path, _ = file_of_geo
    assert fetch_bone_marrow("cite", path).n_obs == 40
    (tmp_path / "kept").mkdir()
    name = BONE_MARROW_URL.format(assay="cite").rpartition("/")[2].removesuffix(".gz")
    path.rename(tmp_path / "kept" / name)
    assert fetch_bone_marrow("cite", tmp_path / "kept").n_obs == 40


def test_cells_of_bone_marrow_are_drawn_with_their_raw_counts(file_of_geo):
    path, counts = file_of_geo
    mdata = fetch_bone_marrow("cite", path, n_cells=10)
    rows = [int(name.removeprefix("cell")) for name in mdata.obs_names]
    assert len(rows) == 10 and rows != list(range(10))
    np.testing.assert_array_equal(mdata["rna"].X.toarray(), counts[rows, :8].toarray())
    np.testing.assert_array_equal(mdata["protein"].X.toarray(), counts[rows, 8:].toarray())
    assert {"cell_type", "batch", "site", "donor"} <= set(mdata["rna"].obs)
    assert fetch_bone_marrow("cite", path, n_cells=None).n_obs == 40


@pytest.mark.parametrize("n_cells", [0, -5, 2.5])
def test_a_number_of_cells_that_cannot_be_drawn_is_refused(file_of_geo, n_cells):
    with pytest.raises(ScmambaError, match="n_cells must be"):
        fetch_bone_marrow("cite", file_of_geo[0], n_cells=n_cells)


def test_a_packed_download_is_unpacked_once(file_of_geo, tmp_path, monkeypatch):
    name = BONE_MARROW_URL.format(assay="cite").rpartition("/")[2]
    calls = []

    def download(url, known_hash, fname, path, processor):
        calls.append(url)
        packed = path / fname
        with open(file_of_geo[0], "rb") as source, gzip.open(packed, "wb") as target:
            shutil.copyfileobj(source, target)
        return processor(str(packed), "download", None)

    monkeypatch.setattr(pooch, "retrieve", download)
    folder = tmp_path / "cache"
    folder.mkdir()
    for _ in range(2):
        assert fetch_bone_marrow("cite", folder).n_obs == 40
    assert len(calls) == 1 and calls[0].endswith(name)


def test_an_unpacking_that_was_interrupted_is_done_again(file_of_geo, tmp_path, monkeypatch):
    """pooch unpacks into the name that it is told, and takes whatever lies there for the result."""
    packed = tmp_path / BONE_MARROW_URL.format(assay="cite").rpartition("/")[2]
    packed.write_bytes(gzip.compress(file_of_geo[0].read_bytes()))
    copy = shutil.copyfileobj

    def interrupted(source, target):
        target.write(source.read(100))
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_bone_marrow("cite", tmp_path)
    monkeypatch.setattr(shutil, "copyfileobj", copy)
    assert fetch_bone_marrow("cite", tmp_path).n_obs == 40
    assert len(list(tmp_path.iterdir())) == 3  # with the packed file and that of the fixture


def test_two_processes_unpack_each_into_a_file_of_its_own(file_of_geo, tmp_path, monkeypatch):
    names = []

    def download(url, known_hash, fname, path, processor):
        names.append(processor.name)
        raise ConnectionError("no network")

    monkeypatch.setattr(pooch, "retrieve", download)
    for process in (1, 2):
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        with pytest.raises(ScmambaError, match="by hand"):
            fetch_bone_marrow("cite", tmp_path)
    assert names[0] != names[1]


def test_the_folder_of_the_benchmarks_comes_before_a_download(tmp_path, monkeypatch):
    from scmamba_scvi.data import simulate_multiome

    (tmp_path / "bmmc_cite_5k").mkdir()
    simulate_multiome(n_peaks=0, n_cells=20, n_genes=30, n_proteins=5, seed=0).write_h5mu(
        tmp_path / "bmmc_cite_5k/bmmc_cite_5k.h5mu"
    )
    monkeypatch.setenv("SCMAMBA_DATA", str(tmp_path))
    every = fetch_bone_marrow("cite", n_cells=20)
    few = fetch_bone_marrow("cite", n_cells=8)
    assert every.n_obs == fetch_bone_marrow("cite", n_cells=None).n_obs == 20
    assert few.n_obs == 8 and set(few.obs_names) < set(every.obs_names)
    assert few.obs_names.equals(fetch_bone_marrow("cite", n_cells=8).obs_names) and set(few.obs) == set(every.obs)
    with pytest.raises(ScmambaError, match="n_cells=21 are more than the 20 of"):
        fetch_bone_marrow("cite", n_cells=21)


def test_without_a_network_the_error_says_what_to_get_and_where_to_put_it(tmp_path, monkeypatch):
    url = BONE_MARROW_URL.format(assay="multiome")

    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(pooch, "retrieve", offline)
    with pytest.raises(ScmambaError, match="by hand") as caught:
        fetch_bone_marrow(path=tmp_path)
    said = str(caught.value)
    assert url in said
    assert str(tmp_path / url.rpartition("/")[2].removesuffix(".gz")) in said


@pytest.mark.parametrize("name", ["goe.h5ad", "folder", "new/folder"])
def test_a_path_that_is_not_there_begins_no_download(file_of_geo, monkeypatch, name):
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: pytest.fail("a download began"))
    folder = file_of_geo[0].parent
    with pytest.raises(ScmambaError, match=f"There is no file .*{name}"):
        fetch_bone_marrow("cite", folder / name)
    assert [path.name for path in folder.iterdir()] == ["geo.h5ad"]


def test_a_file_that_is_packed_or_another_is_named(file_of_geo, tmp_path):
    packed, other, cut_off = (tmp_path / name for name in ("cite.h5ad.gz", "other.h5ad", "cut_off.h5ad"))
    packed.write_bytes(gzip.compress(file_of_geo[0].read_bytes()))
    ad.AnnData(np.ones((3, 2))).write_h5ad(other)
    cut_off.write_bytes(file_of_geo[0].read_bytes()[:5000])
    for path, says in (
        (packed, "is compressed: gunzip it first"),
        (other, "not the file of GEO"),
        (cut_off, "damaged"),
    ):
        with pytest.raises(ScmambaError, match=f"{path} .*{says}"):
            fetch_bone_marrow("cite", path)


def test_an_unknown_assay_is_named():
    with pytest.raises(UnknownNameError, match="multiome"):
        fetch_bone_marrow("multiom")
