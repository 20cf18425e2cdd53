"""Everything that wants a GPU, in one run of about ten minutes, the most important first.

    python benchmarks/on_gpu.py                              # every step
    python benchmarks/on_gpu.py --only calls kernels         # some of them
    python benchmarks/on_gpu.py --within 560 --logs DIR      # what can be done in this time, and all that is to be kept in DIR
    python benchmarks/on_gpu.py --tiny                       # a rehearsal on any machine, which keeps no result

Every step has a process of its own and a limit of time, so that one that breaks does not end the others. What they print is
appended to `on_gpu.log` in the folder `--logs`, and after each step results that have changed are copied there. Results and
pages are those of the scripts that run. Ends with code 1 if a step failed or there was no time for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TypeAlias

from harness import command
from harness.paths import RESULTS, ROOT
from harness.sets import SETS

HERE = Path(__file__).parent
#: Seconds that a process has for its last words, of which pytest waits 10 for its own processes, and those without which nothing
#: is begun.
GRACE_S, LEAST_S = 20, 20
WELL = "ended with code 0"
#: For this Python, relative to the folder of the benchmarks.
Command: TypeAlias = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Step:
    """What is run, one after the other within one limit, and what in a rehearsal."""

    commands: tuple[Command, ...]
    limit_s: int
    rehearsal: tuple[Command, ...]
    sets: tuple[str, ...] = ()  # the data that it reads


def gpu_calls(part: str, limit_s: int, sets: tuple[str, ...] = ()) -> Step:
    """A part of `gpu_calls.py`."""
    rehearsal = ("gpu_calls.py", "--device", "cpu", "--tiny", "--parts", part)
    return Step((("gpu_calls.py", "--parts", part),), limit_s, (rehearsal,), sets)


def tests() -> tuple[Command, ...]:
    """Tests marked `gpu`, of the files that have any, and those of kernels, which take a GPU where there is one.

    To collect all others would take longer than the tests. Several processes compile side by side.
    """
    kernels = sorted((ROOT / "tests" / "ops").glob("test_triton_*.py"))
    marked = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    of_pytest = ("-m", "pytest", "-q", "--timeout", "90", "--durations", "5", "--continue-on-collection-errors")
    side_by_side = importlib.util.find_spec("xdist") is not None
    workers = ("-n", str(min(8, os.cpu_count() or 1))) if side_by_side else ()
    # tests of one file share trainings, and measure memory
    by_file = ("--dist", "loadfile") if side_by_side else ()
    return (
        (*of_pytest, "-m", "gpu", *workers, *by_file, *map(str, marked)),
        (*of_pytest, "-m", "not slow", *workers, *map(str, kernels)),
    )


PAPER = ("paper_preset.py", "--sets", "bmmc_multiome_5k", "--variants", "as published", "preset")
STEPS = {
    "calls": gpu_calls("calls", 180),
    "kernels": Step((("speed.py", "--gpu"),), 100, (("speed.py", "--gpu", "--tiny"),)),
    "large": gpu_calls("large", 90),
    "tests": Step(tests(), 150, tests()),
    "paper": Step(
        # as many epochs as the stored results of this set have
        ((*PAPER, "--size", "full", "--device", "cuda", "--epochs", "30"),), 150, ((*PAPER, "--tiny"),), ("bmmc_multiome_5k",)
    ),
    "precision": gpu_calls("precision", 180, ("snareseq_mouse_cortex",)),
    "scan": Step((("scan.py", "--rounds", "3"),), 60, (("scan.py", "--tiny", "--rounds", "1"),)),
    "sweep": Step((("scan.py", "--sweep", "--rounds", "5"),), 90, (("scan.py", "--sweep", "--tiny", "--rounds", "1"),)),
    "profile": Step((("speed.py", "--profile"),), 60, (("speed.py", "--profile", "--tiny"),)),
}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = command.parser(__doc__)
    command.add_names(parser, "--only", list(STEPS), "names of steps, or all", list(STEPS))
    parser.add_argument(
        "--within", type=float, default=math.inf, metavar="SECONDS", help="end before, with what there is"
    )
    parser.add_argument(
        "--logs", type=Path, default=Path("gpu-logs"), help="folder for what is printed and for results"
    )
    parser.add_argument("--tiny", action="store_true", help="a rehearsal with tiny sizes on any machine")
    arguments = parser.parse_args(argv)
    ends = time.monotonic() + arguments.within
    check_data(arguments.only)
    arguments.logs.mkdir(parents=True, exist_ok=True)
    before, incomplete = versions_of_results(), []
    for name in arguments.only:
        step = STEPS[name]
        commands = step.rehearsal if arguments.tiny else step.commands
        # what is tiny for a GPU takes others longer
        limit_s = min(step.limit_s * (3 if arguments.tiny else 1), ends - time.monotonic() - GRACE_S)
        try:
            if not run(name, commands, limit_s, arguments.logs / "on_gpu.log"):
                incomplete.append(name)
        finally:
            copy_results(before, arguments.logs)
    if incomplete:
        sys.exit(f"not complete: {', '.join(incomplete)}; what they printed is in {arguments.logs}")


def check_data(names: list[str]) -> None:
    """End here if a step would only say that its data are missing."""
    needed = [(name, SETS[one]) for name in names for one in STEPS[name].sets]
    missing = [f"{name} needs {dataset.name}: {dataset.missing()}" for name, dataset in needed if dataset.missing()]
    if missing:
        sys.exit("\n".join(["Nothing was run.", *missing]))


def run(name: str, commands: tuple[Command, ...], limit_s: float, log: Path) -> bool:
    """Whether the step is complete; what it printed is appended to ``log``."""
    begun = time.monotonic()
    outcomes = []
    for one in commands:
        left_s = limit_s - (time.monotonic() - begun)
        outcomes.append("not run, as no time is left" if left_s < LEAST_S else _run(one, left_s, log, name))
    shown = f"{name}: {', '.join(outcomes)}; {time.monotonic() - begun:.0f} s"
    print(shown, flush=True)
    with log.open("a") as file:
        print(f"\n== {shown}", file=file)
    return set(outcomes) == {WELL}


def _run(one: Command, limit_s: float, log: Path, name: str) -> str:
    """How the command ended. Its output goes to a file and no pipe, which compilers keep open."""
    with log.open("a") as file:
        print(f"\n== {name}: {' '.join(one)}", file=file, flush=True)
        process = subprocess.Popen(
            [sys.executable, *one], cwd=HERE, stdout=file, stderr=subprocess.STDOUT, process_group=0,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},  # what was printed is there, however it ends
            # a shell that started this in the background has Ctrl-C ignored, by those that are started here too
            preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        try:
            return f"ended with code {process.wait(limit_s)}"
        except subprocess.TimeoutExpired:
            return f"stopped after {limit_s:.0f} s"
        finally:
            _end(process)


def _end(process: subprocess.Popen) -> None:
    """End it as Ctrl-C does, so that pytest shows what has failed so far; then by force, with the processes that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # a driver may hold what is killed
        process.wait(GRACE_S)


def versions_of_results() -> dict[Path, int]:
    """When each file of results was written."""
    return {path: path.stat().st_mtime_ns for path in RESULTS.glob("[!.]*.json*")}


def copy_results(before: dict[Path, int], folder: Path) -> None:
    """Copy what is newer into ``folder``."""
    for path, written in versions_of_results().items():
        if before.get(path) != written:
            shutil.copy2(path, folder)


if __name__ == "__main__":
    main()
