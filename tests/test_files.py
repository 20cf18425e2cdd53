from __future__ import annotations

import datetime
import errno
import os
import re
import warnings
from pathlib import Path

import mudata
import numpy as np
import pytest
from scipy import sparse

from scmamba_scvi._compat import without_pulling
from scmamba_scvi._files import atomic_write, check_content, check_folder, remove_unfinished
from scmamba_scvi.data import open_mudata, read
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.workflow import write_mudata


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


def test_a_disk_that_is_full_midway_is_named_with_the_file_that_stays(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with (
        pytest.raises(ScmambaError, match="report.html cannot be written: No space left on device"),
        atomic_write(path) as new,
    ):
        new.write_text("half")
        raise OSError(errno.ENOSPC, "what HDF5 says, with addresses in memory")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["report.html"]


def test_a_folder_that_is_a_file_or_vanishes_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ScmambaError, match="scores.csv cannot be written"),
        atomic_write(tmp_path / "file" / "scores.csv"),
    ):
        pytest.fail("nothing is written")
    folder = tmp_path / "unmounted"
    with pytest.raises(ScmambaError, match="scores.csv cannot be written"), atomic_write(folder / "scores.csv"):
        folder.rmdir()


def test_a_link_stays_one_and_what_it_leads_to_is_written(tmp_path):
    (tmp_path / "large disk").mkdir()
    (tmp_path / "scores.csv").symlink_to("large disk/scores.csv")
    for text in ("old", "new"):
        with atomic_write(tmp_path / "scores.csv") as unfinished:
            unfinished.write_text(text)
        assert (tmp_path / "scores.csv").is_symlink()
        assert (tmp_path / "large disk" / "scores.csv").read_text() == text
    (tmp_path / "types.csv").symlink_to("unmounted/types.csv")
    with (
        pytest.raises(ScmambaError, match="types.csv is a link to unmounted.* whose folder is not there"),
        atomic_write(tmp_path / "types.csv"),
    ):
        pytest.fail("nothing is written")
    assert sorted(os.listdir(tmp_path)) == ["large disk", "scores.csv", "types.csv"]


@pytest.mark.parametrize("name", ["open", "fsync"])
def test_a_disk_that_cannot_say_that_a_name_is_on_it_has_the_file(tmp_path, monkeypatch, name):
    """As some network drives, Windows, and folders that the user may write into but not list."""
    of_system = getattr(os, name)

    def refusing(what, *arguments):
        if os.path.isdir(what):
            raise OSError(errno.EINVAL, "Invalid argument")
        return of_system(what, *arguments)

    monkeypatch.setattr(os, name, refusing)
    with atomic_write(tmp_path / "scores.csv") as unfinished:
        unfinished.write_text("new")
    assert (tmp_path / "scores.csv").read_text() == "new"


def test_a_drive_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(os.path, "lexists", lambda _: False)  # on Windows, not even the root of Z: is
    with pytest.raises(ScmambaError, match="There is no drive"):
        check_folder(Path("results"), overwrite=True)


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    for name in (".last.4711.ckpt", ".last.notes.ckpt", ".other.4711.ckpt", "last.ckpt"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path / "last.ckpt")
    assert sorted(os.listdir(tmp_path)) == [".last.notes.ckpt", ".other.4711.ckpt", "last.ckpt"]


def test_a_file_of_somebody_else_is_not_called_damaged(tmp_path, monkeypatch):
    (tmp_path / "cells.h5mu").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # no permission keeps root from reading
    for use in (read, open_mudata):
        with pytest.raises(ScmambaError, match="may not be read by you"):
            use(tmp_path / "cells.h5mu")


def test_a_link_to_nothing_is_named_before_the_work(tmp_path):
    for name in ("results", "cells.h5mu"):
        (tmp_path / name).symlink_to("unmounted")
    with pytest.raises(ScmambaError, match="cells.h5mu is a link to unmounted, which is not there"):
        read(tmp_path / "cells.h5mu")
    for folder in (tmp_path / "results", tmp_path / "results" / "model"):
        with pytest.raises(ScmambaError, match="results is a link to unmounted, which is not there"):
            check_folder(folder, overwrite=True)


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


@pytest.mark.parametrize("where", ["", "rna"])
@pytest.mark.parametrize("name", ["layers", "obsm", "varm", "obsp", "varp", "uns"])
def test_a_name_with_a_slash_is_to_be_changed_before_it_is_written(mdata, tmp_path, where, name):
    """It would be written, and the file could not be read."""
    part = mdata[where] if where else mdata
    if name == "layers" and not where:
        return  # a MuData has none
    n_obs, n_vars = part.shape
    values = {"layers": part.X if where else None, "obsm": np.ones((n_obs, 2)), "varm": np.ones((n_vars, 2)),
              "obsp": sparse.eye_array(n_obs, format="csr"), "varp": sparse.eye_array(n_vars, format="csr"), "uns": 1}  # fmt: skip
    getattr(part, name)["a/b"] = values[name]
    said = f"mdata['rna'].{name}" if where else f"mdata.{name}"
    with pytest.raises(ScmambaError, match=re.escape(f"{said}['a_b'] = {said}.pop('a/b')")) as error:
        write_mudata(mdata, tmp_path / "cells.h5mu")
    assert not os.listdir(tmp_path)
    exec(str(error.value).rpartition("rename it, ")[2].removesuffix("."), {"mdata": mdata})
    write_mudata(mdata, tmp_path / "cells.h5mu")
    assert "a_b" in getattr(mudata.read_h5mu(tmp_path / "cells.h5mu")[where] if where else mdata, name)


def test_a_slash_within_uns_or_in_the_name_of_a_modality_is_named(mdata):
    mdata["atac"].uns["colors"] = {"T/NK": "red"}
    with pytest.raises(ScmambaError, match=r"mdata\['atac'\].uns\['colors'\]\['T/NK'\] cannot be written"):
        check_content(mdata)
    del mdata["atac"].uns["colors"]
    named = type(mdata)({"rna": mdata["rna"], "ADT/HTO": mdata["atac"]})
    with pytest.raises(ScmambaError, match=r"'ADT/HTO' cannot be written.*MuData\(\{'ADT_HTO': mdata\['ADT/HTO'\]"):
        check_content(named)


@pytest.mark.parametrize("where", ["mdata", "mdata['rna']"])
@pytest.mark.parametrize("name", ["obs", "var"])
def test_an_index_named_like_a_column_is_to_be_renamed(mdata, tmp_path, where, name):
    table = getattr(mdata if where == "mdata" else mdata["rna"], name)
    table["gene"] = "other"
    table.index.name = "gene"
    with pytest.raises(ScmambaError, match=f"rename the index, {re.escape(where)}.{name}.index.name = None") as error:
        write_mudata(mdata, tmp_path / "cells.h5mu")
    exec(str(error.value).rpartition("index, ")[2].removesuffix("."), {"mdata": mdata})
    write_mudata(mdata, tmp_path / "cells.h5mu")
    table["gene"], table.index.name = table.index, "gene"  # the same values are no harm
    write_mudata(mdata, tmp_path / "cells.h5mu")


@pytest.mark.parametrize("of", ["mdata['rna'].obs", "mdata['rna'].raw.var"])
def test_a_column_with_the_name_that_files_give_to_the_names_of_rows_is_to_be_removed(mdata, tmp_path, of):
    """SeuratDisk leaves one in `raw.var`."""
    mdata["rna"].raw = mdata["rna"]
    table = eval(of, {"mdata": mdata})
    table["_index"] = table.index
    with pytest.raises(ScmambaError, match=re.escape(f"First remove it, del {of}['_index']")) as error:
        write_mudata(mdata, tmp_path / "cells.h5mu")
    exec(str(error.value).rpartition("remove it, ")[2].removesuffix("."), {"mdata": mdata})
    write_mudata(mdata, tmp_path / "cells.h5mu")
