"""Everything that wants a GPU, in one run of about a quarter of an hour, the most important first.

    python benchmarks/on_gpu.py                              # every step
    python benchmarks/on_gpu.py --only calls kernels         # some of them
    python benchmarks/on_gpu.py --tiny                       # a rehearsal on any machine, which keeps no result

Every step is a process of its own with a limit of time, so that one that breaks does not end the others; what it prints goes
to a file of its name in the folder `--logs`. Results and pages are those of the scripts that run. Ends with code 1 if a
step failed.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

from harness import command

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Step:
    """A command for this Python, relative to the folder of the benchmarks, and its rehearsal, if it has one."""

    command: tuple[str, ...]
    limit_s: int
    rehearsal: tuple[str, ...] | None = None


REHEARSED_CALLS = ("gpu_calls.py", "--device", "cpu", "--tiny", "--parts")
STEPS = {
    "calls": Step(("gpu_calls.py", "--parts", "calls"), 120, (*REHEARSED_CALLS, "calls")),
    "kernels": Step(("speed.py", "--gpu"), 180, ("speed.py", "--gpu", "--tiny")),
    "tests": Step(("-m", "pytest", "-q", "-m", "gpu", "../tests"), 240, ("-m", "pytest", "-q", "-m", "gpu", "../tests")),
    "large": Step(("gpu_calls.py", "--parts", "large"), 90, (*REHEARSED_CALLS, "large")),
    "precision": Step(("gpu_calls.py", "--parts", "precision"), 180, (*REHEARSED_CALLS, "precision")),
    "paper": Step(
        ("paper_preset.py", "--size", "full", "--device", "cuda", "--epochs", "20", "--sets", "bmmc_multiome_5k",
         "--variants", "as published", "preset"), 240,
    ),
    "scan": Step(("scan.py", "--rounds", "3"), 120),
}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = command.parser(__doc__)
    command.add_names(parser, "--only", list(STEPS), "names of steps, or all", list(STEPS))
    parser.add_argument("--logs", type=Path, default=Path("gpu-logs"), help="folder for what the steps print")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal with tiny sizes on any machine")
    arguments = parser.parse_args(argv)
    arguments.logs.mkdir(parents=True, exist_ok=True)
    failed = [name for name in arguments.only if not _run(name, arguments.logs / f"{name}.log", arguments.tiny)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; what they printed is in {arguments.logs}")


def _run(name: str, log: Path, tiny: bool) -> bool:
    """Whether the step ended well; what it printed is in ``log``, a file and no pipe, which compilers keep open."""
    step = STEPS[name]
    to_run = step.rehearsal if tiny else step.command
    if to_run is None:
        print(f"{name}: has no rehearsal", flush=True)
        return True
    begun = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, *to_run], cwd=HERE, stdout=file, stderr=subprocess.STDOUT)
        try:
            outcome = f"ended with code {process.wait(step.limit_s)}"
        except subprocess.TimeoutExpired:
            process.kill()
            outcome = f"stopped after its {step.limit_s} s"
    print(f"{name}: {outcome}, {time.perf_counter() - begun:.0f} s", flush=True)
    return process.wait() == 0


if __name__ == "__main__":
    main()
