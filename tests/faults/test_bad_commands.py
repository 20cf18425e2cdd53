"""Every command exits with status 2 and one readable line, and changes neither its input nor an existing output."""

from __future__ import annotations

import shutil
import signal

import mudata
import numpy as np
import pytest
from faults import bounded, needs_proc
from typer.testing import CliRunner

from scmamba_scvi import cli

pytestmark = [pytest.mark.filterwarnings("ignore"), needs_proc]


def bad_file(change):
    """``data.h5mu`` written from an object that was changed."""

    def make(files, tmp_path):
        mdata = mudata.read_h5mu(files / "integrated.h5mu")
        change(mdata)
        mdata.write_h5mu(tmp_path / "data.h5mu")

    return make


def bytes_of(change):
    """``data.h5mu`` whose bytes were changed."""

    def make(files, tmp_path):
        (tmp_path / "data.h5mu").write_bytes(change((files / "integrated.h5mu").read_bytes()))

    return make


def good(files, tmp_path):
    shutil.copy(files / "integrated.h5mu", tmp_path / "data.h5mu")


def set_value(value):
    def change(mdata):
        mdata["rna"].X.data[3] = value

    return bad_file(change)


def without(key):
    def change(mdata):
        for part in (mdata, *mdata.mod.values()):
            part.obsm.pop(key, None)

    return bad_file(change)


def embedding(value):
    def change(mdata):
        for part in (mdata, *mdata.mod.values()):
            part.obsm["X_scmamba"] = np.full(part.obsm["X_scmamba"].shape, value, dtype=np.float32)

    return bad_file(change)


IN, OUT = "data.h5mu", "out.h5mu"
COMMANDS = {
    "integrate: an empty file": (bytes_of(lambda b: b""), ["integrate", IN, "--out", OUT]),
    "integrate: NaN": (set_value(np.nan), ["integrate", IN, "--out", OUT]),
    "integrate: negative counts": (set_value(-1), ["integrate", IN, "--out", OUT]),
    "integrate: counts too large": (set_value(1e38), ["integrate", IN, "--out", OUT]),
    "integrate: the model is the report": (good, ["integrate", IN, "--out", OUT, "--report", "r", "--model-dir", "r"]),
    "integrate: the report is a figure": (good, ["integrate", IN, "--out", OUT, "--figure-dir", ".", "--report", "training.png"]),
    "integrate: a seed below zero": (good, ["integrate", IN, "--out", OUT, "--seed", "-1"]),
    "integrate: a modality that is not there": (good, ["integrate", IN, "--out", OUT, "--modality", "rna=x", "--modality", "atac=atac"]),
    "integrate: a minibatch as text": (good, ["integrate", IN, "--out", OUT, "--batch-size", "all"]),
    "integrate: no epoch": (good, ["integrate", IN, "--out", OUT, "--max-epochs", "0"]),
    "integrate: a device that is not there": (good, ["integrate", IN, "--out", OUT, "--accelerator", "warp"]),
    "integrate: a device of another machine": (good, ["integrate", IN, "-o", OUT, "--accelerator", "hpu"]),
    "integrate: an annotation of something else": (good, ["integrate", IN, "--out", OUT, "--gtf", "note.txt"]),
    "integrate: a width of none": (good, ["integrate", IN, "--out", OUT, "--n-latent", "0"]),
    "integrate: a width out of all proportion": (good, ["integrate", IN, "--out", OUT, "--n-latent", "1000000"]),
    "integrate: an option that is not there": (good, ["integrate", IN, "--out", OUT, "--depth", "3"]),
    "evaluate: half a file": (bytes_of(lambda b: b[: len(b) // 2]), ["evaluate", IN]),
    "evaluate: no embedding": (without("X_scmamba"), ["evaluate", IN]),
    "evaluate: an embedding of NaN": (embedding(np.nan), ["evaluate", IN]),
    "evaluate: an embedding that is infinite": (embedding(np.inf), ["evaluate", IN]),
    "evaluate: an output below a file": (good, ["evaluate", IN, "--out", "there.h5mu/scores"]),
    "evaluate: too few cells": (good, ["evaluate", IN, "--max-cells", "1"]),
    "convert: half a file": (bytes_of(lambda b: b[: len(b) // 2]), ["convert", IN]),
    "convert: text": (bytes_of(lambda b: b"gene,cell"), ["convert", IN]),
    "convert: an output below a file": (good, ["convert", IN, "-o", "there.h5mu/out.zarr"]),
    "convert: an output of another kind": (good, ["convert", IN, "-o", "out.csv"]),
    "convert: one file without a name": (good, ["convert", IN, "atac=note.txt"]),
    "demo: an output below a file": (good, ["demo", "--out", "there.h5mu/demo"]),
    "demo: too few cells": (good, ["demo", "--cells", "3"]),
    "demo: cells as text": (good, ["demo", "--cells", "many"]),
    "doctor: an option that is not there": (good, ["doctor", "--fix"]),
    "a command that is not there": (good, ["train"]),
}  # fmt: skip


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_that_cannot_run_says_why_in_a_line_and_changes_nothing(files, tmp_path, monkeypatch, case):
    make, arguments = COMMANDS[case]
    make(files, tmp_path)
    (tmp_path / "there.h5mu").write_text("from before")
    (tmp_path / "note.txt").write_text("remember the milk")
    for name in ("folder.h5mu", "folder.zarr"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    on_interrupt = signal.getsignal(signal.SIGINT)
    with bounded(seconds=60, more_bytes=4 << 30):
        result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2, f"{result.exit_code}: {result.output} {result.exception!r}"
    assert "Traceback" not in result.output
    errors = [line for line in result.stderr.splitlines() if "Error" in line]
    assert len(errors) == 1, result.stderr
    assert signal.getsignal(signal.SIGINT) is on_interrupt
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before
    assert {p.name for p in tmp_path.iterdir()} == {*before, "folder.h5mu", "folder.zarr"}
