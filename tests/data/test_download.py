from __future__ import annotations

import pooch
import pytest
from tenx import write_10x

from scmamba_scvi.data import fetch_pbmc_multiome
from scmamba_scvi.data._download import PBMC_URL
from scmamba_scvi.errors import ScmambaError


@pytest.fixture
def file_of_10x(tmp_path):
    path = tmp_path / "filtered_feature_bc_matrix.h5"
    write_10x(path)
    return path


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
