"""Every script shows its help; those on a trained model, and those for a GPU at tiny sizes, run to the end."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
#: Scripts on a trained model; each writes the results of its name.
AFTER_INTEGRATION = ("annotation", "matching", "imputation", "agreement", "mosaic", "region_importance", "region_links")


@pytest.fixture
def results(load, monkeypatch, tmp_path):
    """An empty folder of results, with a set that is trained in a second."""

    sets, after = load("harness.sets"), load("harness.after")
    arguments = {"n_cells": 300, "n_genes": 80, "n_peaks": 200, "n_cell_types": 3, "seed": 1}
    monkeypatch.setitem(sets.SETS, "tiny", sets.simulated("tiny", "simulated", **arguments))
    monkeypatch.setattr(after, "RESULTS", tmp_path)
    from scmamba_scvi.model.training import sizes

    monkeypatch.setattr(sizes, "STEPS", 8)  # how well the model is trained does not matter here
    return tmp_path


@pytest.mark.parametrize("topic", AFTER_INTEGRATION)
def test_a_script_writes_the_results_that_it_names_and_the_page_reads_them(load, results, topic):
    script = load(topic)
    assert f"Writes benchmarks/results/{topic}.json" in script.__doc__
    script.main(["--sets", "tiny"])
    assert [path.name for path in results.iterdir()] == [f"{topic}.json"]
    assert list(json.loads((results / f"{topic}.json").read_text())["sets"]) == ["tiny"]
    assert any(line.startswith(("| tiny |", "### tiny")) for line in load("harness.after_page").page_lines(results))


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_shows_the_docstring_and_measures_nothing(load, monkeypatch, capsys, name):
    script = load(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as left:
        script.main()
    assert left.value.code == 0
    assert script.__doc__.strip().splitlines()[0] in capsys.readouterr().out


def test_the_readme_has_every_script_with_its_results():
    rows = re.findall(r"^\| `(\w+)\.py` \|.*?\| (.*?) \|", (BENCHMARKS / "README.md").read_text(), flags=re.MULTILINE)
    results = set(re.findall(r"[\w.]+\.jsonl?", " ".join(written for _, written in rows)))
    assert sorted(name for name, _ in rows) == SCRIPTS
    assert {path.name for path in (BENCHMARKS / "results").iterdir() if path.is_file()} <= results


def test_results_of_a_users_file_stay_out_of_those_that_count(load, tmp_path, monkeypatch):
    """They are on no page and no row of the README, so they must not lie where these tests and git look."""
    from scmamba_scvi.data import simulate_multiome

    mdata = simulate_multiome(n_cells=100, n_genes=60, n_peaks=120, n_cell_types=3, seed=0)
    file = tmp_path / f"{tmp_path.name}.h5mu"  # the folder of results is the real one, the name that of this run alone
    mdata.write_h5mu(file)
    script, runner, paths = load("quality"), load("harness.runner"), load("harness.paths")
    monkeypatch.setattr(runner, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(runner, "in_process", lambda function, *arguments: function(*arguments))
    there = paths.LOCAL_RESULTS / f"quality_{file.stem}.jsonl"
    before = {path.name for path in paths.RESULTS.iterdir() if path.is_file()}
    try:
        script.main(["--file", str(file), "--labels-key", "cell_type", "--methods", "RNA PCA", "--seeds", "0"])
        (line,) = runner.read(there)
        assert line["method"] == "RNA PCA" and line["scores"]["kNN accuracy"] > 0
        assert {path.name for path in paths.RESULTS.iterdir() if path.is_file()} == before
        test_the_readme_has_every_script_with_its_results()
        assert f"/{there.parent.relative_to(paths.ROOT)}/" in (paths.ROOT / ".gitignore").read_text().splitlines()
    finally:
        there.unlink(missing_ok=True)
        if there.parent.exists() and not any(there.parent.iterdir()):
            there.parent.rmdir()


def test_all_stands_for_every_method_and_every_set(load):
    command = load("harness.command")
    parser = command.parser("about")
    command.add_sets(parser, ["snareseq_mouse_cortex"])
    command.add_runs(parser, ["one", "another"])
    everything = parser.parse_args(["--methods", "all", "--sets", "all"])
    assert everything.methods == ["one", "another"]
    assert everything.sets == list(load("harness.sets").SETS)
    named = parser.parse_args(["--methods", "another"])
    assert (named.methods, named.sets) == (["another"], ["snareseq_mouse_cortex"])


def test_the_calls_for_a_gpu_can_be_rehearsed_without_one():
    """They run for minutes on a lent card, where a mistake costs the most."""
    command = [sys.executable, "gpu_calls.py", "--device", "cpu", "--tiny", "--parts", "calls", "large"]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^what=(.*?) cells=", done.stdout, re.M) == [
        "paper: first step of a process, caches empty",
        "defaults: train() to the joint embedding",
        "paper: a step within train(), with reading its cells",
        "small: get_latent_representation",
        "paper, 14 + 16 blocks, 1.15 million peaks: step",
    ]
    (parts,) = re.findall(r" parts=({.*})", done.stdout)
    assert {"kept_on", "_initialize", "stage linear", "stage full", "stage full/compile_kernels"} <= set(
        ast.literal_eval(parts)
    )


@pytest.mark.filterwarnings("ignore")
def test_the_step_and_the_embedding_that_are_timed_run(load):
    step, embed, dataset = load("speed").training_step((60, 30, 60), "small", 16)
    step()
    embed()
    assert len(dataset) == 60


def test_rows_of_a_run_that_is_ended_are_kept(load, monkeypatch, tmp_path):
    speed, steps = load("speed"), load("harness.gpu_steps")
    monkeypatch.setattr(speed, "RESULTS", tmp_path)

    def measure(*, tiny, report):
        report({"preset": "paper", "what": "step", "ms": 1.0})
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "measure", measure)
    for tiny in (True, False):
        with pytest.raises(KeyboardInterrupt):
            speed.measure_gpu(tiny)
        assert (tmp_path / "gpu.json").exists() is not tiny
    assert json.loads((tmp_path / "gpu.json").read_text())["rows"] == [{"preset": "paper", "what": "step", "ms": 1.0}]


@pytest.mark.parametrize("option", ["--gpu", "--profile"])
def test_steps_of_a_gpu_are_not_measured_without_one(option):
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "speed.py", option], cwd=BENCHMARKS, env=hidden, capture_output=True, text=True
    )
    assert (done.returncode, "want a GPU" in done.stderr) == (2, True)


def test_a_step_that_fails_leaves_the_others_their_rows(load, monkeypatch, capsys):
    steps, rows = load("harness.gpu_steps"), []
    monkeypatch.setattr(steps, "SWITCHED_OFF", dict.fromkeys(steps.SWITCHED_OFF, ()))
    monkeypatch.setattr(steps.Work, "embed", lambda self: 1 / 0)
    with pytest.raises(SystemExit) as left:
        steps.measure(tiny=True, report=rows.append)
    assert left.value.code == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert [(row["preset"], row["what"]) for row in rows] == [("paper", "step"), ("base", "step"), ("small", "step")]


def test_that_no_kernels_are_timed_is_said(load, monkeypatch):
    """Times of plain torch would be taken for theirs."""
    from scmamba_scvi.ops import fused

    monkeypatch.setattr(fused, "check_kernels", lambda *_: (None, "the compiler failed"))
    with pytest.warns(UserWarning) as found:
        load("harness.command").hide_warnings()
        warnings.warn("of something else", stacklevel=1)
        fused.load_kernels.__wrapped__("a GPU", "bf16")
    assert [str(one.message)[:34] for one in found] == ["Layers and scan run in plain torch"]


def test_a_call_that_fails_leaves_the_others_their_rows(load, monkeypatch, tmp_path, capsys):
    script = load("gpu_calls")
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    (tmp_path / "gpu_calls.json").write_text('{"rows": [{"what": "before"}, {"what": "fast", "s": 9}]}')
    monkeypatch.setitem(script.PARTS, "calls", lambda *_: [lambda: 1 / 0, lambda: {"what": "fast", "s": 1}])
    with pytest.raises(SystemExit) as left:
        script.main(["--parts", "calls"])
    assert left.value.code == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    rows = json.loads((tmp_path / "gpu_calls.json").read_text())["rows"]
    assert rows == [{"what": "before"}, {"what": "fast", "s": 1}]


def test_a_training_that_was_interrupted_is_no_measurement(load):
    script = load("gpu_calls")
    script.check_ended(SimpleNamespace(training_summary_={"interrupted": False}))
    with pytest.raises(KeyboardInterrupt):
        script.check_ended(SimpleNamespace(training_summary_={"interrupted": True}))


def test_the_sweep_is_kept_beside_the_other_rows_of_the_scan(load, monkeypatch, tmp_path):
    script, page = load("scan"), load("harness.performance_page")
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    script._keep({"sweep": {"rows": [{"ms": 1.0}]}})
    script._keep({"device": "cuda", "rows": [{"shape": "base", "cells": 2, "backend": "torch", "forward_ms": 2.0}]})
    found = json.loads((tmp_path / "scan.json").read_text())
    assert found["sweep"]["rows"] == [{"ms": 1.0}]
    assert "| base | 2 | torch | 2.0 |" in "\n".join(page._scan(found))
