from __future__ import annotations

import errno
import io
import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy
import torch
import typer
from rich.console import Console
from tenx import write_10x, write_10x_folder
from typer.testing import CliRunner

from scmamba_scvi import SCMAMBA, cli
from scmamba_scvi._files import atomic_write
from scmamba_scvi.cli import _console
from scmamba_scvi.cli._console import reporting, say
from scmamba_scvi.data import convert_mudata, simulate_multiome
from scmamba_scvi.errors import ScmambaError, written
from scmamba_scvi.metrics import evaluate_integration, mixing_by_type

LAUNCH = [sys.executable, "-c", "from scmamba_scvi.cli import main; main()"]


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A file of 300 cells, 20 of which lack ATAC, whose rows come in another order."""
    mdata = simulate_multiome(n_cells=300, n_genes=200, n_peaks=600, n_cell_types=3, seed=0)
    atac = mdata["atac"][np.random.default_rng(0).permutation(300)[:280]].copy()
    labels, batches = mdata.obs["cell_type"].astype(str), mdata.obs["batch"].astype(str)
    mixed = mudata.MuData({"rna": mdata["rna"], "atac": atac})
    mixed.obs["cell_type"], mixed.obs["batch"] = labels[mixed.obs_names], batches[mixed.obs_names]
    path = tmp_path_factory.mktemp("input") / "multiome.h5mu"
    mixed.write_h5mu(path)
    return path


@pytest.fixture(scope="module")
def input_bytes(simulated):
    """What the file holds before any command has read it."""
    return simulated.read_bytes()


@pytest.fixture(scope="module")
def integrated(simulated, input_bytes, tmp_path_factory):
    """Folder with the outputs of one run, and what it printed."""
    folder = tmp_path_factory.mktemp("output") / "new" / "folder"
    result = run(
        "integrate", simulated, "--out", folder / "out.h5mu", "--labels-key", "cell_type", "--batch-key", "batch",
        "--max-epochs", 2, "--modality", "rna=rna", "--modality", "atac=atac", "--preset", "small", "--n-latent", 8,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder, result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(
            ["--report", "r.html", "--model-dir", "r.html"], "--report and --model-dir both name", id="report"
        ),
        pytest.param(["--model-dir", "o.h5mu"], "--out and --model-dir both name o.h5mu", id="model"),
        pytest.param(["--figure-dir", "o.h5mu"], "--figure-dir is to lie in o.h5mu, which --out makes a file", id="in"),
        pytest.param(["--model-dir", "in.zarr"], "--model-dir is the input file, in.zarr", id="input"),
        pytest.param(["--report", "in.zarr/r.html"], "--report, in.zarr/r.html, lies in a zarr", id="in input"),
        pytest.param(["--model-dir", "a/b/m"], "--model-dir, a/b/m, lies in a zarr", id="in a zarr of another name"),
    ],
)
def test_two_outputs_of_one_name_are_refused(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    for zarr in ("in.zarr", "a"):
        (tmp_path / zarr).mkdir()
        (tmp_path / zarr / "zarr.json").touch()
    result = run("integrate", "in.zarr", "--out", "o.h5mu", *arguments)
    assert result.exit_code == 2 and says in " ".join(result.stderr.split())
    assert {path.name for path in tmp_path.rglob("*")} == {"in.zarr", "a", "zarr.json"}


def test_a_report_never_replaces_a_file_of_another_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.zarr").mkdir()
    (tmp_path / "thesis.docx").write_text("years of work")
    result = run("integrate", "in.zarr", "--out", "o.h5mu", "--report", "thesis.docx", "--overwrite")
    assert result.exit_code == 2 and "--report must end in .html, got 'thesis.docx'" in result.stderr
    assert (tmp_path / "thesis.docx").read_text() == "years of work"


def test_a_folder_in_place_of_a_file_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.zarr").mkdir()
    for command, folder in itertools.product(("evaluate", "convert"), (".", "..")):
        assert f"{folder} has no name that the output could have: name it with --out" in run(command, folder).stderr
    assert "--gtf '.' is a folder" in run("integrate", "in.zarr", "--out", "o.h5mu", "--gtf", ".").stderr


def test_an_output_that_cannot_be_written_is_answered_with_its_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.zarr").mkdir()
    (tmp_path / "file").touch()
    assert "Not a directory. Choose another folder with --out." in run("convert", "in.zarr", "-o", "file/a.zarr").stderr
    command = ("integrate", "in.zarr", "--out", "o.h5mu")
    assert "Choose another folder with --report." in run(*command, "--report", "file/r.html").stderr
    assert (
        "the shell replaces ~ only after a space, --out ~/a.zarr" in run("convert", "in.zarr", "--out=~/a.zarr").stderr
    )
    assert "--out must end in .h5mu, got ''" in run("integrate", "in.zarr", "--out", "").stderr
    assert {path.name for path in tmp_path.iterdir()} == {"in.zarr", "file"}


# -- what integrate writes -------------------------------


def test_warnings_of_the_library_are_notes(integrated):
    assert "Note: mdata['rna'].X: " in integrated[1]


def test_everything_is_written_and_nothing_else(integrated):
    folder, output = integrated
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names - {name for name in names if name.startswith("out_model/")} == {
        "out.h5mu", "out_figures/integration.png", "out_figures/training.png",
    }  # fmt: skip
    assert "out_model/model.pt" in names
    for name in ("out.h5mu", "integration.png", "training.png", "out_model"):
        assert name in "".join(output.split())  # lines are wrapped at the width of the terminal


def test_embeddings_follow_the_cells_of_each_modality(integrated, simulated):
    import scmamba_scvi

    folder, _ = integrated
    out, given = mudata.read_h5mu(folder / "out.h5mu"), mudata.read_h5mu(simulated)
    assert list(out["atac"].obs_names) == list(given["atac"].obs_names)
    model = scmamba_scvi.SCMAMBA.load(str(folder / "out_model"), adata=given)
    for kind, part in (("rna", out["rna"]), ("atac", out["atac"]), (None, out)):
        z = model.get_latent_representation(modality=kind)[given.obs_names.get_indexer(part.obs_names)]
        np.testing.assert_allclose(part.obsm["X_scmamba"], z, atol=1e-5)
        assert part.obsm["X_scmamba"].shape == (part.n_obs, 8)
        assert np.isfinite(part.obsm["X_umap_scmamba"]).all() and part.obsm["X_umap_scmamba"].shape == (part.n_obs, 2)
    assert out.obs["leiden_scmamba"].notna().all()


def test_counts_come_out_as_they_went_in(integrated, simulated):
    out, given = mudata.read_h5mu(integrated[0] / "out.h5mu"), mudata.read_h5mu(simulated)
    for key in given.mod:
        assert (out[key].X != given[key].X).nnz == 0


def test_scores_are_printed_beside_chance_and_say_whose_they_are(integrated):
    _, output = integrated
    assert "validation cells" in output and "they chose the epoch" in " ".join(output.split())
    assert not set(output) & set("\r\b\x1b")  # no bars and colours in a file
    assert "never saw" not in output and "scmamba-scvi" in output
    for word in ("FOSCTTM", "recall@10", "ARI", "chance", "0.000"):
        assert word in output


def test_what_was_read_and_how_long_it_took_stand_on_one_line_each(integrated):
    lines = integrated[1].splitlines()
    (read,) = [line for line in lines if line.startswith("Read ")]
    assert read == (
        "Read multiome.h5mu: 300 cells, 200 features of rna and 600 features of atac (in 280 cells); "
        "280 have several modalities."
    )
    assert sum(line.startswith("Integrated in ") for line in lines) == 1
    assert [line.split(" ")[0] for line in lines if line.startswith("Wrote")] == ["Wrote"] * 4


@pytest.mark.usefixtures("integrated")
def test_the_input_and_its_folder_are_never_changed(simulated, input_bytes):
    assert simulated.read_bytes() == input_bytes
    assert [path.name for path in simulated.parent.iterdir()] == ["multiome.h5mu"]


def test_a_column_of_too_many_groups_is_not_drawn_and_nothing_else_is_lost(simulated, tmp_path):
    mdata = mudata.read_h5mu(simulated)
    mdata.obs["cell"] = [f"group {i}" for i in range(mdata.n_obs)]
    mdata.write_h5mu(tmp_path / "many.h5mu")
    result = run(
        "integrate", tmp_path / "many.h5mu", "--out", tmp_path / "out.h5mu", "--labels-key", "cell", "--max-epochs", 1,
        "--n-latent", 8, "--report", tmp_path / "report.html",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Not drawn, for too many values: cell." in result.output
    assert (tmp_path / "out_figures" / "integration.png").exists()
    assert "Not drawn, for too many values: cell." in (tmp_path / "report.html").read_text()


def test_existing_outputs_are_kept_unless_overwritten(integrated, simulated):
    file = integrated[0] / "out.h5mu"
    before = file.stat().st_mtime_ns
    result = run("integrate", simulated, "--out", file)
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr and file.stat().st_mtime_ns == before
    again = run("integrate", simulated, "--out", file, "--overwrite", "--max-epochs", 1, "--no-umap")
    assert again.exit_code == 0, again.output
    assert file.stat().st_mtime_ns > before


def test_no_figure_and_no_score_of_an_earlier_run_stays_beside_the_results_of_another(simulated, tmp_path):
    figure, scores = tmp_path / "out_figures" / "integration.png", tmp_path / "out_scores.csv"
    figure.parent.mkdir()
    for file in (figure, scores):
        file.write_text("of an earlier run")
    command = ("integrate", simulated, "-o", tmp_path / "out.h5mu", "--max-epochs", 1, "--no-umap", "--preset", "small")
    refused = run(*command)
    assert refused.exit_code == 2 and figure.exists() and scores.exists()
    assert "integration.png" in refused.stderr and "out_scores.csv" in refused.stderr
    assert run(*command, "--overwrite").exit_code == 0
    assert [path.name for path in figure.parent.iterdir()] == ["training.png"] and not scores.exists()


# -- bad input -------------------------------


def cut_off(simulated, folder):
    (folder / "cut.h5mu").write_bytes(simulated.read_bytes()[:50_000])
    return folder / "cut.h5mu"


def of_text(simulated, folder):
    (folder / "text.h5mu").write_text("gene,cell\n")
    return folder / "text.h5mu"


def of_one_modality(simulated, folder):
    mudata.MuData({"rna": mudata.read_h5mu(simulated)["rna"]}).write_h5mu(folder / "one.h5mu")
    return folder / "one.h5mu"


def two_of_rna(simulated, folder):
    mdata = mudata.read_h5mu(simulated)
    mudata.MuData({**mdata.mod, "gex": mdata["rna"].copy()}).write_h5mu(folder / "two.h5mu")
    return folder / "two.h5mu"


def without_atac_cells(simulated, folder):
    mdata = mudata.read_h5mu(simulated)
    atac = mdata["atac"]
    atac.obs_names = [f"other{i}" for i in range(atac.n_obs)]
    mudata.MuData({"rna": mdata["rna"], "atac": atac}).write_h5mu(folder / "apart.h5mu")
    return folder / "apart.h5mu"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        pytest.param(lambda s, f: f / "no.h5mu", [], "There is no file", id="no_such_file"),
        pytest.param(lambda s, f: f, [], "is a folder", id="folder"),
        pytest.param(cut_off, [], "cannot be read", id="truncated"),
        pytest.param(of_text, [], "not a file of counts", id="not_hdf5"),
        pytest.param(of_one_modality, [], "modalit", id="one_modality"),
        pytest.param(without_atac_cells, [], "do not overlap", id="no_shared_cells"),
        pytest.param(
            two_of_rna, [], "of the other kinds, such as --modality rna=... --modality atac=...", id="two_of_a_kind"
        ),
        pytest.param(lambda s, f: s, ["--modality", "rna"], "KIND=KEY", id="modality_without_key"),
        pytest.param(lambda s, f: s, ["--modality", "rna=a", "--modality", "rna=b"], "twice", id="kind_named_twice"),
        pytest.param(lambda s, f: s, ["--modality", "rna=rna", "--modality", "dna=atac"], "'dna'", id="unknown_kind"),
        pytest.param(
            lambda s, f: s, ["--layer", "rna=counts"], "To read X, give no --layer for rna", id="missing_layer"
        ),
        pytest.param(lambda s, f: s, ["--batch-key", "donor"], "donor", id="missing_batch_column"),
        pytest.param(lambda s, f: s, ["--labels-key", "celltype"], "celltype", id="missing_labels_column"),
        pytest.param(lambda s, f: s, ["--preset", "huge"], "'small'", id="unknown_preset"),
        pytest.param(lambda s, f: s, ["--encoder", "cnn"], "'linear'", id="unknown_encoder"),
        pytest.param(lambda s, f: s, ["--gtf", "no.gtf"], "no.gtf", id="no_such_annotation"),
        pytest.param(
            lambda s, f: s,
            ["--batch-size", "1000"],
            "--batch-size 1000 does not fit 270 training cells: choose 2 to 135, or leave it out",
            id="minibatch_larger_than_data",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(simulated, tmp_path, source, options, message):
    source, folder = source(simulated, tmp_path), tmp_path / "results"
    result = run("integrate", source, "--out", folder / "out.h5mu", *options)
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()
    assert "Error:" in last[0] or "Error:" in last[-1]
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not folder.exists()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        pytest.param("out.h5ad", "must end in .h5mu", id="another_format"),
        pytest.param("file.txt/out.h5mu", "Nothing can be written", id="folder_is_a_file"),
        pytest.param("taken.h5mu", "is a folder", id="name_of_a_folder"),
        pytest.param("multiome.h5mu", "is the input file", id="the_input_itself"),
        pytest.param(f"{'a' * 246}.h5mu", "too long for a file", id="a_long_name"),
    ],
)
def test_outputs_are_checked_before_the_input_is_read(tmp_path, out, message):
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "taken.h5mu").mkdir()
    source = tmp_path / "multiome.h5mu"
    source.write_text("never read")
    result = run("integrate", source, "--out", tmp_path / out, "--overwrite")
    assert result.exit_code == 2 and message in result.stderr
    assert source.read_text() == "never read"


def test_a_full_disk_is_said_before_training(simulated, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30, 1000))
    result = run("integrate", simulated, "--out", tmp_path / "new" / "out.h5mu")
    assert result.exit_code == 2 and "0 MB left" in result.stderr and "Training" not in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argument", "in_python", "at_the_shell"),
    [
        (("layers", {"rna": ...}), "layers={'rna': ...}", "--layer rna=..."),
        (("layers", {"rna": None}), "layers={'rna': None}", "no --layer for rna"),
        (("modalities", {"rna": "gex", "atac": ...}), "modalities={'rna': 'gex', 'atac': ...}", "--modality rna=gex --modality atac=..."),
        (("modality", ...), "modality=...", "--modality rna=KEY"),
        (("paths", {"rna": "a b.h5", "atac": ...}), "paths={'rna': 'a b.h5', 'atac': ...}", "'rna=a b.h5' atac=..."),
        (("require_counts", False), "require_counts=False", "--no-require-counts"),
        (("overwrite", True), "overwrite=True", "--overwrite"),
        (("batch_size", 32), "batch_size=32", "--batch-size 32"),
        (("batch_key", "donor"), "batch_key='donor'", "--batch-key 'donor'"),
        (("labels_key",), "labels_key", "--labels-key"),
        (("column of obs",), "column of obs", "column of obs"),
    ],
    ids=str,
)  # fmt: skip
def test_messages_name_options_in_place_of_arguments(argument, in_python, at_the_shell):
    assert written(*argument) == in_python
    with reporting():
        assert written(*argument) == at_the_shell
    assert written(*argument) == in_python


@pytest.mark.parametrize("name", ["my batch_key file.h5mu", "batch_size=1 overwrite=True.h5mu", "(labels_key).h5mu"])
def test_words_in_the_names_of_the_user_stay_as_they_are(tmp_path, name):
    assert f"There is no file {tmp_path / name}." in run("integrate", tmp_path / name, "-o", tmp_path / "o.h5mu").stderr


def of_corrected_counts(simulated, folder):
    mdata = mudata.read_h5mu(simulated)
    mdata["rna"].X = mdata["rna"].X.astype(np.float32) * 0.97
    mdata["rna"].layers["other"] = mdata["rna"].X
    mdata.write_h5mu(folder / "corrected.h5mu")
    return folder / "corrected.h5mu"


def test_advice_for_corrected_counts_works_when_typed(simulated, tmp_path):
    file = of_corrected_counts(simulated, tmp_path)
    command = ("integrate", file, "-o", tmp_path / "out.h5mu", "--max-epochs", 1, "--no-umap", "--preset", "small")
    refused = run(*command)
    assert refused.exit_code == 2
    assert "--layer rna=..." in refused.stderr and "--no-require-counts" in refused.stderr
    assert "setup_mudata" not in refused.stderr and "require_counts=" not in refused.stderr
    taken = run(*command, "--no-require-counts")
    assert taken.exit_code == 0, taken.output


def test_the_model_without_a_network_is_an_option(simulated, tmp_path):
    options = ("--encoder", "linear", "--max-epochs", 1, "--no-umap")
    result = run("integrate", simulated, "-o", tmp_path / "out.h5mu", *options)
    assert result.exit_code == 0, result.output
    assert "linear branch 1." in " ".join(result.output.split())
    assert SCMAMBA.load(tmp_path / "out_model").config.encoder == "linear"


def test_a_genome_given_is_used(simulated, tmp_path):
    file = tmp_path / "in.h5mu"
    mdata = mudata.read_h5mu(simulated)
    mdata["rna"].uns["genome"] = "hg38"
    mdata.write_h5mu(file)
    result = run("integrate", file, "-o", tmp_path / "out.h5mu", "--genome", "mm10")
    assert result.exit_code == 2 and "mm10" in result.stderr and "hg38" in result.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps", "tpu"])
def test_a_device_that_is_not_there_is_one_line_before_the_file_is_read(tmp_path, accelerator, monkeypatch):
    monkeypatch.setattr("scmamba_scvi.data.read", lambda _: pytest.fail("was read"))
    source = tmp_path.parent / "not_read.h5mu"
    source.write_text("")
    result = run("integrate", source, "--out", tmp_path / "out.h5mu", "--accelerator", accelerator)
    assert result.exit_code == 2 and "Traceback" not in result.output
    (line,) = [line for line in result.stderr.splitlines() if "Error:" in line]
    assert f"--accelerator {accelerator!r} cannot be used on this machine" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["integrate", "evaluate"])
def test_a_file_of_one_modality_is_named_with_the_way_to_give_both(tmp_path, command):
    write_10x(tmp_path / "cells.h5", types=["Gene Expression"] * 5)
    result = run(command, tmp_path / "cells.h5", "--out", tmp_path / "out.h5mu")
    assert result.exit_code == 2 and "file with rna only" in result.stderr and "atac=" in result.stderr


def test_integrate_takes_a_file_of_each_modality(tmp_path):
    for name, part in simulate_multiome(n_cells=60, n_genes=40, n_peaks=60, seed=0).mod.items():
        part.write_h5ad(tmp_path / f"{name}.h5ad")
    sources = [f"{name}={tmp_path / name}.h5ad" for name in ("rna", "atac")]
    options = ("--max-epochs", 1, "--no-umap", "--encoder", "linear")
    result = run("integrate", *sources, "--out", tmp_path / "out.h5mu", *options)
    assert result.exit_code == 0, result.output
    assert "Read rna.h5ad, atac.h5ad: 60 cells" in " ".join(result.output.split())
    assert mudata.read_h5mu(tmp_path / "out.h5mu").obsm["X_scmamba"].shape[0] == 60


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        pytest.param(["rna={0}", "{0}"], "modality of every file", id="one_is_not_named"),
        pytest.param(["{0}", "{0}"], "of several samples are joined first", id="none_is_named"),
        pytest.param(["rna={0}", "rna={0}"], "Each modality takes one file", id="one_modality_twice"),
        pytest.param(["rna={0}", "atac=no.h5ad"], "There is no file no.h5ad", id="one_is_not_there"),
    ],
)
def test_files_of_modalities_are_checked_before_they_are_read(simulated, tmp_path, sources, says):
    result = run("integrate", *(source.format(simulated) for source in sources), "--out", tmp_path / "out.h5mu")
    assert result.exit_code == 2 and says in result.stderr


@pytest.mark.parametrize("name", ["run=5/missing.h5mu", "./run=5/missing.h5mu", "{0}/run=5/missing.h5mu"])
def test_a_path_with_an_equals_sign_is_no_modality(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for there in (False, True):
        result = run("convert", name.format(tmp_path))
        assert result.exit_code == 2 and "run=5/missing.h5mu" in result.stderr
        assert ("There is no file 5" in result.stderr) == (not there and name.startswith("run"))
        (tmp_path / "run=5").mkdir(exist_ok=True)
    (tmp_path / "run=5" / "mising.h5mu").touch()
    assert "Did you mean" in run("convert", name.format(tmp_path)).stderr


@pytest.mark.parametrize("name", ["demo", "integrate", "evaluate"])
def test_a_seed_that_no_generator_takes_is_refused_before_the_data_are_read(tmp_path, name):
    sources = [] if name == "demo" else [tmp_path / "missing.h5mu"]
    result = run(name, *sources, "--out", tmp_path / "out.h5mu", "--seed", 2**32)
    assert result.exit_code == 2 and "--seed" in result.stderr and "4294967295" in result.stderr


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), reporting():
        raise ZeroDivisionError


def test_an_output_named_like_an_input_is_answered_with_its_option(simulated, tmp_path):
    result = run("convert", simulated, tmp_path / "out.zarr")
    assert result.exit_code == 2 and f"name it with --out {tmp_path / 'out.zarr'}" in result.stderr


# -- evaluate -------------------------------


def read_scores(path):
    return pd.read_csv(path, header=[0, 1], index_col=0)


def test_evaluate_writes_what_it_prints(integrated, tmp_path):
    file = integrated[0] / "out.h5mu"
    result = run(
        "evaluate", file, "--labels-key", "cell_type", "--batch-key", "batch", "--out", tmp_path / "new" / "of this.day"
    )
    assert result.exit_code == 0, result.output
    names = {"of this.day.csv", "of this.day.png", "of this.day_by_type.csv"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    assert (tmp_path / "new" / "of this.day.png").stat().st_size > 10_000
    scores = read_scores(tmp_path / "new" / "of this.day.csv")
    mdata = mudata.read_h5mu(file)
    cells = mdata.obs["validation_scmamba"].to_numpy()
    assert 0 < cells.sum() < mdata.n_obs
    assert "validation cells" in result.output and "they chose the epoch" in " ".join(result.output.split())
    # neighbours of another type or batch are looked for among all cells, true matches among those of validation
    embeddings, columns = {"scmamba-scvi": "X_scmamba"}, {"labels_key": "cell_type", "batch_key": "batch"}
    of_all, of_validation = (
        evaluate_integration(mdata, embeddings, **columns, cells=chosen, progress=False) for chosen in (None, cells)
    )
    for group in ("bio", "batch"):
        pd.testing.assert_frame_equal(scores[group], of_all[group], check_names=False)
    for group in ("omics", "single-cell"):
        pd.testing.assert_frame_equal(scores[group], of_validation[group], check_names=False)
    assert f"bio, {mdata.n_obs} cells" in result.output and f"omics, {cells.sum()} cells" in result.output
    assert result.stderr.lstrip().startswith("Note: Not scored: omics mixing (15 neighbours need 60 rows")
    lines = result.output.splitlines()
    for (_, name), value in scores.loc["scmamba-scvi"].items():
        (line,) = [line for line in lines if f" {name} " in line and f"{value:.3f}" in line][:1]
        assert ("↓" in line) == (name in ("FOSCTTM", "median rank", "modality gap"))
    for group in ("bio", "omics", "single-cell", "batch", "overall"):
        assert any(line.startswith((f"│ {group} ", f"│ {group}, ")) for line in lines)


def test_evaluate_shows_mixing_by_type_and_warns_of_modalities_that_lie_apart(integrated, tmp_path):
    mdata = mudata.read_h5mu(integrated[0] / "out.h5mu")
    apart = mdata.obs["cell_type"].value_counts().index[0]
    of_type = (mdata.obs.loc[mdata["atac"].obs_names, "cell_type"] == apart).to_numpy()
    mdata["atac"].obsm["X_apart"] = mdata["atac"].obsm["X_scmamba"] + 100 * of_type[:, None]
    mdata["rna"].obsm["X_apart"] = mdata["rna"].obsm["X_scmamba"]
    mdata.write_h5mu(tmp_path / "out.h5mu")
    options = ("--embedding", "X_scmamba", "--embedding", "X_apart", "--labels-key", "cell_type", "--all-cells")
    result = run("evaluate", tmp_path / "out.h5mu", *options, "--metric", "other modality")
    assert result.exit_code == 0, result.output
    by_type = pd.read_csv(tmp_path / "out_scores_by_type.csv", index_col=["method", "modalities", "type"])
    expected = mixing_by_type(mdata, {"X_scmamba": "X_scmamba", "X_apart": "X_apart"}, labels_key="cell_type")
    pd.testing.assert_frame_equal(by_type, expected)
    values = [expected.loc[(method, "rna, atac", apart), "other modality"] for method in ("X_scmamba", "X_apart")]
    note = " ".join(result.stderr.split())
    assert "Note: X_apart: rna and atac lie apart" in note and f"{apart} ({values[1]:.0%})" in note
    (row,) = [line for line in result.stdout.splitlines() if line.startswith(f"│ {apart} ")]
    assert [cell.strip() for cell in row.split("│")[3:5]] == [f"{value:.3f}" for value in values]
    assert values[1] < 0.1 < values[0] and "0.5 is a perfect mix" in result.stdout


def test_evaluate_without_types_in_the_cells_keeps_the_other_scores(integrated, tmp_path):
    mdata = mudata.read_h5mu(integrated[0] / "out.h5mu")
    mdata.obs["cell_type"] = mdata.obs["cell_type"].astype(object).where(~mdata.obs["validation_scmamba"])
    mdata.write_h5mu(tmp_path / "out.h5mu")
    result = run("evaluate", tmp_path / "out.h5mu", "--labels-key", "cell_type", "--metric", "other modality")
    assert result.exit_code == 0, result.output
    assert "Note: None of these cells has a type: name the column in --labels-key." in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"out.h5mu", "out_scores.csv", "out_scores.png"}


def test_evaluate_compares_embeddings_and_says_what_it_left_out(integrated, tmp_path):
    arguments = ("--embedding", "ours=X_scmamba", "--embedding", "X_scmamba", "--metric", "FOSCTTM", "--metric", "ARI")
    result = run(
        "evaluate", integrated[0] / "out.h5mu", *arguments, "--max-cells", 200, "--all-cells", "--out", tmp_path
    )
    assert result.exit_code == 0, result.output
    assert "Note: Not scored: ARI (no --labels-key)." in result.stderr
    assert "200 cells" in result.output and "X_scmamba" in result.output
    assert read_scores(tmp_path / "scores.csv").index.tolist() == ["ours", "X_scmamba"]
    ari = ("--embedding", "X_scmamba", "--metric", "ARI", "--out", tmp_path, "--overwrite")
    again = run("evaluate", integrated[0] / "out.h5mu", *ari)
    assert again.exit_code == 2 and "Nothing could be scored" in again.stderr


def test_no_table_of_an_earlier_evaluation_stays_beside_other_scores(integrated, tmp_path):
    table = tmp_path / "scores_by_type.csv"
    table.write_text("of an earlier evaluation")
    command = ("evaluate", integrated[0] / "out.h5mu", "--metric", "modality gap", "--out", tmp_path)
    refused = run(*command)
    assert refused.exit_code == 2 and table.name in refused.stderr and table.exists()
    assert run(*command, "--overwrite").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"scores.csv", "scores.png"}


@pytest.mark.parametrize("suffix", [".h5mu", ".zarr"])
def test_evaluate_leaves_the_counts_in_the_file(integrated, tmp_path, monkeypatch, suffix):
    """A file larger than memory, made for `open_mudata`, has embeddings to score too."""
    file = integrated[0] / "out.h5mu"
    if suffix == ".zarr":
        file = convert_mudata(file, tmp_path / "out.zarr")
    for name in ("read_h5mu", "read_zarr"):
        monkeypatch.delattr(mudata, name)
    result = run("evaluate", file, "--metric", "FOSCTTM", "--labels-key", "cell_type", "--out", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert read_scores(tmp_path / "s.csv").shape == (1, 1)


def test_evaluate_stands_beside_the_file_and_keeps_what_exists(integrated, tmp_path):
    file = tmp_path / "mine.h5mu"
    shutil.copy(integrated[0] / "out.h5mu", file)
    quick = ("--metric", "modality gap")
    assert run("evaluate", file, *quick).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"mine.h5mu", "mine_scores.csv", "mine_scores.png"}
    (tmp_path / "mine_scores.csv").write_text("mine")
    result = run("evaluate", file, *quick)
    assert result.exit_code == 2 and "--overwrite" in result.stderr
    assert (tmp_path / "mine_scores.csv").read_text() == "mine"
    assert run("evaluate", file, *quick, "--overwrite", "--out", tmp_path / "mine_scores.png").exit_code == 0
    assert read_scores(tmp_path / "mine_scores.csv").shape == (1, 1)
    assert run("evaluate", file, *quick, "--out", f"{tmp_path}/a folder/").exit_code == 0
    assert {path.name for path in (tmp_path / "a folder").iterdir()} == {"scores.csv", "scores.png"}


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        pytest.param("no.h5mu", [], "There is no file", id="no_such_file"),
        pytest.param(None, ["--labels-key", "celltype"], "Did you mean 'cell_type'", id="missing_label_column"),
        pytest.param(None, ["--batch-key", "donor"], "'donor'", id="missing_batch_column"),
        pytest.param(None, ["--embedding", "PCA=X_pca"], "'X_scmamba'", id="missing_key"),
        pytest.param(None, ["--embedding", "PCA="], "NAME=KEY", id="name_without_key"),
        pytest.param(None, ["--embedding", "a=x", "--embedding", "a=y"], "twice", id="method_named_twice"),
        pytest.param(None, ["--metric", "foscttm"], "FOSCTTM", id="unknown_metric"),
    ],
)
def test_evaluate_answers_bad_input_in_one_line(integrated, tmp_path, source, options, message):
    source = tmp_path / source if source else integrated[0] / "out.h5mu"
    result = run("evaluate", source, "--out", tmp_path / "results" / "scores", *options)
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1 and result.stderr.startswith("Error:")
    assert message in result.stderr and not list(tmp_path.iterdir())


def test_validation_cells_are_those_marked_true_however_the_mark_is_kept(integrated, tmp_path):
    mdata = mudata.read_h5mu(integrated[0] / "out.h5mu")
    before = mdata.obs["validation_scmamba"]
    for name, marks in {"text": before.astype(str), "missing": before.astype("boolean").where(before)}.items():
        mdata.obs["validation_scmamba"] = marks
        mdata.write_h5mu(tmp_path / f"{name}.h5mu")
        result = run("evaluate", tmp_path / f"{name}.h5mu", "--metric", "FOSCTTM")
        assert result.exit_code == 0, result.output
        assert f"single-cell, {before.sum()} cells" in result.output
    mdata.obs["validation_scmamba"] = False
    mdata.write_h5mu(tmp_path / "none.h5mu")
    result = run("evaluate", tmp_path / "none.h5mu", "--metric", "FOSCTTM")
    assert result.exit_code == 2 and "holds 0 validation cells: --all-cells scores all" in result.stderr


def test_evaluate_needs_an_embedding(simulated, tmp_path):
    result = run("evaluate", simulated, "--labels-key", "cell_type", "--out", tmp_path / "s")
    assert result.exit_code == 2 and "Unknown key of obsm 'X_scmamba'" in result.stderr
    assert "integrate writes X_scmamba: run it first" in result.stderr


def test_a_sign_that_the_output_cannot_show_loses_no_result(integrated, tmp_path, monkeypatch):
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="cp1252"))  # a pipe on Windows
    arguments = ["evaluate", integrated[0] / "out.h5mu", "--metric", "FOSCTTM", "--out", tmp_path / "s"]
    monkeypatch.setattr(sys, "argv", ["scmamba-scvi", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    sys.stdout.flush()
    assert left.value.code == 0 and (tmp_path / "s.csv").exists()
    assert b"FOSCTTM ?" in printed.getvalue()


@pytest.mark.skipif(os.name == "nt", reason="Windows has another error for it")
@pytest.mark.parametrize("sink", ["head", "/dev/full"])
def test_output_that_cannot_be_written_ends_nothing(sink):
    """A reader that has gone, or a log on a full disk: files were half replaced, and a training lost."""
    if sink != "head" and not os.path.exists(sink):
        pytest.skip("only Linux has it")
    for stream in ("out", "err"):
        if sink == "head":
            reading, writing = os.pipe()
            os.close(reading)
        else:
            writing = os.open(sink, os.O_WRONLY)
        console = getattr(_console, stream)
        with open(writing, "w") as pipe, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, f"std{stream}", pipe)
            for _ in range(2):
                say("Wrote scores.csv.", console=console)
            pipe.write("what Python writes at the end")
        assert console.quiet
        console.quiet = False


def test_what_is_said_is_printed_letter_by_letter(capsys):
    with pytest.raises(typer.Exit), reporting():
        raise ScmambaError("chr1:100:200 [red] is unknown.")
    assert capsys.readouterr().err == "Error: chr1:100:200 [red] is unknown.\n"


# -- Ctrl-C -------------------------------


def test_ctrl_c_exits_with_130_and_a_line(capsys):
    with pytest.raises(typer.Exit) as left, reporting():
        raise KeyboardInterrupt
    assert left.value.exit_code == 130
    assert "Interrupted" in capsys.readouterr().err


def test_ctrl_c_after_training_says_where_the_model_is(simulated, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("scanpy.tl.umap", interrupted)
    result = run("integrate", simulated, "-o", tmp_path / "out.h5mu", "--max-epochs", 1, "--encoder", "linear")
    assert result.exit_code == 130 and "Interrupted" in result.stderr
    assert f"Wrote the model into {tmp_path / 'out_model'}." in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["out_model"]


def test_of_two_runs_into_one_file_the_second_replaces_nothing(simulated, tmp_path, monkeypatch):
    out = tmp_path / "out.h5mu"
    umap = scanpy.tl.umap

    def meanwhile(*arguments, **options):
        out.write_text("of the other run")
        umap(*arguments, **options)

    monkeypatch.setattr(scanpy.tl, "umap", meanwhile)
    result = run("integrate", simulated, "-o", out, "--max-epochs", 1, "--encoder", "linear")
    assert result.exit_code == 2 and f"These exist: {out}." in result.stderr
    assert out.read_text() == "of the other run"


def test_results_are_written_where_the_model_cannot_be_which_is_no_success(simulated, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    out = tmp_path / "out.h5mu"
    result = run("integrate", simulated, "-o", out, "--max-epochs", 1, "--encoder", "linear", "--no-umap")
    assert result.exit_code == 2 and "No space left" in result.stderr
    assert f"The model was not saved into {tmp_path / 'out_model'}; everything else was written." in result.stderr
    assert out.is_file() and not (tmp_path / "out_model").exists()
    monkeypatch.undo()
    arguments = [
        "integrate",
        simulated,
        "-o",
        out,
        "--max-epochs",
        1,
        "--encoder",
        "linear",
        "--no-umap",
        "--overwrite",
    ]
    assert run(*arguments).exit_code == 0
    before = (tmp_path / "out_model" / "model.pt").read_bytes()
    monkeypatch.setattr(torch, "save", full)
    result = run(*arguments, "--seed", 1)
    assert result.exit_code == 2 and "The one that is there is of an earlier run." in result.stderr
    assert (tmp_path / "out_model" / "model.pt").read_bytes() == before


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_a_batch_system_ends_says_so_and_removes_its_temporary_files(tmp_path, capsys, name):
    number = getattr(signal, name, None) or pytest.skip("Windows has no such signal")
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as left, reporting(), atomic_write(tmp_path / "out.h5mu") as unfinished:
            unfinished.write_text("half")
            assert signal.getsignal(number) is not signal.SIG_DFL  # which would end the tests
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert left.value.code == 128 + number and f"Ended by {name}." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c_in_training_keeps_the_model_and_writes_no_result(simulated, tmp_path):
    command = [*LAUNCH, "integrate", simulated, "--out", tmp_path / "out.h5mu", "--max-epochs", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    guard = threading.Timer(300, process.kill)
    guard.start()
    seen = ""
    while "Training on" not in seen and (letter := process.stderr.read(1)):
        seen += letter
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate()
    guard.cancel()
    assert process.returncode == 130, seen[-500:] + rest
    assert "Interrupted" in rest and "Traceback" not in rest
    assert f"the best weights so far are in {tmp_path / 'out_model'}, nothing else was written." in rest
    assert (tmp_path / "out_model").is_dir() and not (tmp_path / "out.h5mu").exists()


@pytest.mark.parametrize(
    ("terminal", "lines"), [(True, ["one two", "three", "four five"]), (False, ["one two three four five"])]
)
def test_a_terminal_gets_whole_words_and_a_pipe_whole_lines(terminal, lines, monkeypatch):
    console = Console(file=io.StringIO(), width=9, force_terminal=terminal)
    say("one two three four five", console=console)
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == lines
    monkeypatch.setattr(_console, "err", console)
    with reporting():
        logging.getLogger("scmamba_scvi").info("one two three four five")
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == 2 * lines
    say("one two three four five", "Error: ", console)  # a command in it can be copied
    assert console.file.getvalue().splitlines()[-1] == "Error: one two three four five"


# -- demo, doctor, version and help -------------------------------


@pytest.mark.parametrize("name", ["integrated.h5mu", "integration.png"])
def test_demo_replaces_no_file_of_the_user(simulated, tmp_path, name):
    mdata = mudata.read_h5mu(simulated)  # not marked as simulated
    mdata.write_h5mu(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    result = run("demo", "--out", tmp_path, "--cells", 100)
    assert result.exit_code == 2 and name in result.stderr and "--overwrite" in result.stderr
    assert (tmp_path / name).read_bytes() == before


def test_demo_replaces_the_files_of_an_earlier_one(tmp_path):
    simulate_multiome(n_cells=20, n_genes=10, n_peaks=10, seed=0).write_h5mu(tmp_path / "integrated.h5mu")
    for name in ("training.png", "integrated_scores.csv"):
        (tmp_path / name).touch()
    result = run("demo", "--out", tmp_path, "--cells", 100)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"integrated.h5mu", "integration.png", "training.png"}
    assert mudata.read_h5mu(tmp_path / "integrated.h5mu").n_obs == 100
    evaluated = run("evaluate", tmp_path / "integrated.h5mu", "--labels-key", "cell_type")
    assert evaluated.exit_code == 0, evaluated.output
    assert (tmp_path / "integrated_scores.png").exists()


def test_doctor_shows_versions_and_devices():
    result = run("doctor")
    assert result.exit_code == 0
    assert torch.__version__ in result.output and "scvi-tools" in result.output and "cpu" in result.output


def test_the_version_and_every_command_are_shown():
    from scmamba_scvi import __version__

    assert run("--version").output.strip() == __version__
    assert all(name in run("--help").output for name in cli.COMMANDS)


def test_help_in_eighty_columns_cuts_nothing_off(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    commands = typer.main.get_command(cli.app).commands
    assert not any(line.endswith("...") for line in run("--help").output.splitlines()[1:])
    for name, command in commands.items():
        lines = run(name, "--help").output.splitlines()
        assert max(map(len, lines)) <= 80
        assert all(
            any(option in line for line in lines) for p in command.params for option in p.opts if option[0] == "-"
        )


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_h_is_help_and_o_is_out(name):
    assert run(name, "-h").output == run(name, "--help").output
    options = {option for p in typer.main.get_command(cli.app).commands[name].params for option in p.opts}
    assert ("--out" in options) == ("-o" in options)


def test_an_option_has_one_name_in_all_commands():
    """Options that share their meaning are found by the Python name of their parameter."""
    names = {}
    for command in typer.main.get_command(cli.app).commands.values():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                names.setdefault(parameter.name, set()).add(tuple(parameter.opts))
    assert all(len(of_one) == 1 for of_one in names.values()), names
    # and the other way round: the columns have no second name
    assert not {"label", "batch", "label_key"} & set(names)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_option_has_a_help_text(name):
    command = typer.main.get_command(cli.app).commands[name]
    assert f" scmamba-scvi {name}" in run(name, "-h").output  # an example
    for parameter in command.params:
        assert parameter.help, f"{name} {parameter.name}"


# -- convert ------------------------------------------------


def test_convert_writes_a_file_that_opens_on_disk(simulated, tmp_path):
    from scmamba_scvi.data import open_mudata

    result = run("convert", simulated, "-o", tmp_path / "m.zarr")
    assert result.exit_code == 0, result.output
    assert "m.zarr" in result.stdout
    assert open_mudata(tmp_path / "m.zarr").obs_names.equals(mudata.read_h5mu(simulated).obs_names)
    again = run("convert", simulated, "-o", tmp_path / "m.zarr")
    assert again.exit_code == 2
    assert "m.zarr exists" in again.stderr and "--overwrite" in again.stderr
    assert run("convert", simulated, "-o", tmp_path / "m.zarr", "--overwrite").exit_code == 0
    absent = run("convert", tmp_path / "absent.h5mu", "-o", tmp_path / "b.zarr")
    assert absent.exit_code == 2
    assert "no file" in absent.stderr


@pytest.mark.parametrize("form", ["zarr", "h5mu"])
@pytest.mark.parametrize("of", ["h5ad", "h5mu"])
def test_convert_writes_matrices_by_columns_as_rows(simulated, tmp_path, of, form):
    """As scanpy, Seurat's converters and others leave them; training from the file needs rows."""
    from scmamba_scvi.data import open_mudata

    mdata = mudata.read_h5mu(simulated)
    for part in mdata.mod.values():
        part.X = part.X.tocsc()
        part.layers["counts"] = part.X.copy()
    if of == "h5mu":
        mdata.write_h5mu(tmp_path / "m.h5mu")
        sources = [tmp_path / "m.h5mu"]
    else:
        for key, part in mdata.mod.items():
            part.write_h5ad(tmp_path / f"{key}.h5ad")
        sources = [f"{key}={tmp_path / key}.h5ad" for key in mdata.mod]
    result = run("convert", *sources, "-o", tmp_path / f"out.{form}")
    assert result.exit_code == 0, result.output
    for key, part in open_mudata(tmp_path / f"out.{form}").mod.items():
        assert part.X.format == part.layers["counts"].format == "csr"
        np.testing.assert_array_equal(part.X[:9].toarray(), mdata[key].X[:9].toarray())


def test_convert_takes_the_modality_that_is_named_from_a_mudata(simulated, tmp_path):
    alone = run("convert", f"rna={simulated}", "-o", tmp_path / "one.zarr")
    assert alone.exit_code == 2 and "At least two modalities are needed" in alone.stderr
    assert not (tmp_path / "one.zarr").exists()
    both = run("convert", f"rna={simulated}", f"atac={simulated}", "-o", tmp_path / "both.zarr")
    assert both.exit_code == 0, both.output
    assert [*mudata.read_zarr(tmp_path / "both.zarr").mod] == ["rna", "atac"]


def test_the_home_folder_is_known_behind_the_name_of_a_modality(simulated, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(simulated.parent))
    monkeypatch.setenv("USERPROFILE", str(simulated.parent))
    sources = [f"{name}=~/{simulated.name}" for name in ("rna", "atac")]
    result = run("convert", *sources, "-o", tmp_path / "m.h5mu")
    assert result.exit_code == 0, result.output


def test_outputs_are_named_after_the_input_whose_dots_belong_to_its_name(integrated, tmp_path):
    convert_mudata(integrated[0] / "out.h5mu", tmp_path / "m.zarr").rename(tmp_path / "sample.v2")
    assert run("convert", f"{tmp_path}/sample.v2/").exit_code == 0
    assert run("evaluate", f"{tmp_path}/sample.v2/", "--metric", "FOSCTTM").exit_code == 0
    outputs = {"sample.v2.zarr", "sample.v2_scores.csv", "sample.v2_scores.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"sample.v2", *outputs}


def test_convert_reads_the_folder_it_is_in(tmp_path, monkeypatch):
    write_10x_folder(tmp_path / "cells")
    monkeypatch.chdir(tmp_path / "cells")
    result = run("convert", ".", "-o", "../cells.h5mu")
    assert result.exit_code == 0, result.output


def test_convert_does_not_replace_what_it_reads(simulated, tmp_path):
    mudata.read_h5mu(simulated)["rna"].write_zarr(tmp_path / "cells.zarr")
    result = run("convert", tmp_path / "cells.zarr", "--overwrite")
    assert result.exit_code == 2 and "is the input file" in result.stderr
    assert "X" in {path.name for path in (tmp_path / "cells.zarr").iterdir()}
