from __future__ import annotations

import h5py
import numpy as np
import pooch
import pytest
from scipy import sparse

from scmamba_scvi.data import fetch_pbmc_multiome, read_10x_multiome
from scmamba_scvi.data._download import PBMC_URL
from scmamba_scvi.errors import ScmambaError

X = sparse.csr_matrix(np.array([[1, 0, 2, 0, 7], [0, 3, 0, 0, 0], [0, 0, 0, 5, 1], [4, 0, 0, 0, 0]], dtype=np.int32))


@pytest.fixture
def file_of_10x(tmp_path):
    """As Cell Ranger ARC writes it: barcodes as columns, strings of fixed length."""
    path = tmp_path / "filtered_feature_bc_matrix.h5"
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.array([b"AAA-1", b"CCC-1", b"GGG-1", b"TTT-1"])
        matrix["data"], matrix["indices"], matrix["indptr"] = (
            X.data,
            X.indices.astype("int64"),
            X.indptr.astype("int64"),
        )
        matrix["shape"] = np.array([5, 4])
        features = matrix.create_group("features")
        features["id"] = np.array([b"ENSG1", b"ENSG2", b"chr1:5-9", b"ENSG3", b"chr2:1-4"])
        features["name"] = np.array([b"A", b"B", b"chr1:5-9", b"A", b"chr2:1-4"])
        gene, peak = b"Gene Expression", b"Peaks"
        features["feature_type"] = np.array([gene, gene, peak, gene, peak])
        features["genome"] = np.array([b"GRCh38"] * 5)
        features["interval"] = np.array([b"chr1:1-2", b"NA", b"chr1:5-9", b"chr3:7-8", b"chr2:1-4"])
        features["_all_tag_keys"] = np.array([b"genome", b"interval"])
    return path


def test_reads_modalities_by_feature_type(file_of_10x):
    mdata = read_10x_multiome(file_of_10x)
    assert [*mdata.mod] == ["rna", "atac"]
    assert mdata["rna"].var_names.tolist() == ["A", "B", "A-1"]
    assert mdata["rna"].var["gene_ids"].tolist() == ["ENSG1", "ENSG2", "ENSG3"]
    assert mdata["rna"].var["interval"].tolist() == ["chr1:1-2", "NA", "chr3:7-8"]
    assert mdata["atac"].var_names.tolist() == ["chr1:5-9", "chr2:1-4"]
    assert set(mdata["atac"].var["feature_types"]) == {"Peaks"}
    assert mdata.obs_names.tolist() == ["AAA-1", "CCC-1", "GGG-1", "TTT-1"]
    np.testing.assert_array_equal(mdata["rna"].X.toarray(), X.toarray()[:, [0, 1, 3]])
    np.testing.assert_array_equal(mdata["atac"].X.toarray(), X.toarray()[:, [2, 4]])
    assert mdata["rna"].X.dtype == np.float32 and sparse.isspmatrix_csr(mdata["rna"].X)


def test_a_file_downloaded_by_hand_is_found_by_path_or_folder(file_of_10x, tmp_path):
    assert fetch_pbmc_multiome(file_of_10x).n_obs == 4
    (tmp_path / "kept").mkdir()
    file_of_10x.rename(tmp_path / "kept" / PBMC_URL.rpartition("/")[2])
    assert fetch_pbmc_multiome(tmp_path / "kept").n_obs == 4


def test_without_a_network_the_error_says_what_to_get_and_where_to_put_it(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(pooch, "retrieve", offline)
    with pytest.raises(ScmambaError, match="by hand") as caught:
        fetch_pbmc_multiome(tmp_path)
    said = str(caught.value)
    assert PBMC_URL in said
    assert str(tmp_path / PBMC_URL.rpartition("/")[2]) in said


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(None, "There is no file", id="missing"),
        pytest.param(b"barcode,count\n", "is not an HDF5 file", id="text"),
        pytest.param("other", r"no group 'matrix' .*it has \['X'\]", id="other_hdf5"),
    ],
)
def test_a_file_that_is_not_of_10x_is_refused(tmp_path, content, says):
    path = tmp_path / "file.h5"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        with h5py.File(path, "w") as file:
            file["X"] = [1]
    with pytest.raises(ScmambaError, match=says):
        read_10x_multiome(path)
