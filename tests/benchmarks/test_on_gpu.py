"""The run on a GPU: what takes too long is ended, and what was printed and measured until then is in the folder of logs."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

#: A step that writes a row and then takes too long; Ctrl-C has it say so.
SLOW = """
import pathlib, sys, time
pathlib.Path({results!r}, "rows.json").write_text("[1]")
try:
    print("begun")
    time.sleep(60)
except KeyboardInterrupt:
    print("last words")
    sys.exit(1)
"""
#: One that does not listen, like the process that it started.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("child", child.pid)
time.sleep(60)
"""
QUICK = "print('all is well')"


@pytest.fixture
def on_gpu(load, monkeypatch, tmp_path):
    """The script with an empty folder of results, and steps of Python code that `steps` sets."""
    script = load("on_gpu")
    results = tmp_path / "results"
    results.mkdir()
    (results / "before.json").write_text("[]")
    monkeypatch.setattr(script, "RESULTS", results)
    monkeypatch.setattr(script, "GRACE_S", 20)
    monkeypatch.setattr(script, "LEAST_S", 0.5)

    def run(*options, **codes):
        steps = {
            name: script.Step((("-c", code.format(results=str(results))),), 3, (("-c", QUICK),))
            for name, code in codes.items()
        }
        monkeypatch.setattr(script, "STEPS", steps)
        script.main(["--logs", str(tmp_path / "logs"), *options])

    run.script, run.logs = script, tmp_path / "logs"
    return run


def test_a_step_that_takes_too_long_is_interrupted_and_its_results_are_copied(on_gpu, capsys):
    with pytest.raises(SystemExit, match="not complete: slow; "):
        on_gpu(slow=SLOW, quick=QUICK)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("slow: stopped after 3 s")
    assert shown[1].startswith("quick: ended with code 0")
    assert sorted(path.name for path in on_gpu.logs.iterdir()) == ["on_gpu.log", "rows.json"]
    assert json.loads((on_gpu.logs / "rows.json").read_text()) == [1]
    log = (on_gpu.logs / "on_gpu.log").read_text()
    assert log.index("begun") < log.index("last words") < log.index("all is well")


def test_what_does_not_listen_is_killed_with_what_it_started(on_gpu, monkeypatch):
    monkeypatch.setattr(on_gpu.script, "GRACE_S", 0.5)
    begun = time.monotonic()
    with pytest.raises(SystemExit, match="not complete: stubborn"):
        on_gpu(stubborn=STUBBORN)
    assert time.monotonic() - begun < 30
    log = (on_gpu.logs / "on_gpu.log").read_text()
    child = log.split("child ")[1].split()[0]
    state = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True).stdout
    assert state.strip()[:1] in ("", "Z")


def test_what_cannot_be_killed_holds_nothing_up(on_gpu, monkeypatch, capsys):
    monkeypatch.setattr(on_gpu.script, "GRACE_S", 0.5)
    monkeypatch.setattr(os, "killpg", lambda *_: None)
    begun = time.monotonic()
    with pytest.raises(SystemExit, match="not complete: held;"):
        on_gpu(held="import time; time.sleep(30)", quick=QUICK)
    assert time.monotonic() - begun < 20
    assert "quick: ended with code 0" in capsys.readouterr().out


def test_what_has_no_time_left_is_not_begun(on_gpu, capsys):
    with pytest.raises(SystemExit, match="not complete: quick"):
        on_gpu("--within", "20.2", quick=QUICK)
    assert "quick: not run, as no time is left" in capsys.readouterr().out


def test_a_failure_is_named_and_the_rehearsal_is_run_instead(on_gpu, capsys):
    with pytest.raises(SystemExit, match="not complete: broken"):
        on_gpu(broken="1 / 0")
    assert "ZeroDivisionError" in (on_gpu.logs / "on_gpu.log").read_text()
    on_gpu("--tiny", broken="1 / 0")
    assert "broken: ended with code 0" in capsys.readouterr().out


def test_missing_data_are_named_before_anything_is_run(load, monkeypatch, tmp_path):
    script, sets = load("on_gpu"), load("harness.sets")
    for name in ("snareseq_mouse_cortex", "bmmc_multiome_5k"):
        missing = sets.DataSet(name, "", tmp_path / f"{name}.h5mu")
        monkeypatch.setitem(sets.SETS, name, missing)
    with pytest.raises(
        SystemExit, match=r"paper needs bmmc_multiome_5k: .*\nprecision needs snareseq_mouse_cortex: .*SCMAMBA_DATA"
    ):
        script.main(["--logs", str(tmp_path / "logs")])
    assert not (tmp_path / "logs").exists()


def test_pytest_shows_what_failed_before_it_was_interrupted(on_gpu, monkeypatch, tmp_path):
    """The tests of a GPU may take longer than there is time."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "test_some.py").write_text(
        "import time\n\ndef test_one():\n    assert 'this' == 'that'\n\ndef test_two():\n    time.sleep(60)\n"
    )
    log = tmp_path / "log"
    assert not on_gpu.script.run("tests", (("-m", "pytest", "-q", str(tmp_path)),), 10, log)
    assert "assert 'this' == 'that'" in log.read_text()
    assert "stopped after 10 s" in log.read_text()


def test_steps_name_files_that_are_there(load):
    script = load("on_gpu")
    for step in script.STEPS.values():
        for one in (*step.commands, *step.rehearsal):
            paths = [part for part in one if part.endswith(".py")]
            assert paths
            assert all((script.HERE / path).exists() for path in paths)
    of_a_gpu = script.STEPS["tests"].commands[0]
    assert any(part.endswith("test_gpu.py") for part in of_a_gpu)
