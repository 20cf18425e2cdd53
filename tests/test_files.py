from __future__ import annotations

import datetime
import os
import warnings

import pytest

from scmamba_scvi._compat import without_pulling
from scmamba_scvi._files import atomic_write, check_content, remove_unfinished
from scmamba_scvi.errors import ScmambaError


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with atomic_write(path) as unfinished:
        unfinished.write_text("new")
        assert unfinished.suffix == ".csv"  # writers choose their format by it
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["scores.csv"]


def test_folders_are_made_and_a_folder_is_not_replaced(tmp_path):
    with atomic_write(tmp_path / "new" / "folder" / "scores.csv") as unfinished:
        unfinished.write_text("new")
    assert (tmp_path / "new" / "folder" / "scores.csv").read_text() == "new"
    with pytest.raises(ScmambaError, match="folder is a folder"), atomic_write(tmp_path / "new" / "folder"):
        pytest.fail("nothing is written")


def test_after_an_error_the_old_file_stays_alone(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as unfinished:
        unfinished.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["scores.csv"]


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    for name in (".last.4711.ckpt", ".last.notes.ckpt", ".other.4711.ckpt", "last.ckpt"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path / "last.ckpt")
    assert sorted(os.listdir(tmp_path)) == [".last.notes.ckpt", ".other.4711.ckpt", "last.ckpt"]


def test_columns_of_features_that_share_a_name_are_tried_without_a_warning(mdata):
    """A gene and its protein are often called the same; columns of `var` are no columns of cells."""
    with without_pulling():
        mdata["atac"].var_names = [*mdata["rna"].var_names, *mdata["atac"].var_names[150:]]
        shared = type(mdata)(dict(mdata.mod))
    shared.var["n_cells"], shared.var["text"] = 1, "a"
    assert not shared.var.index.is_unique
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_content(shared)
    shared.var["date"] = datetime.date(2024, 1, 1)
    with pytest.raises(ScmambaError, match=r"mdata.var\['date'\]"):
        check_content(shared)
