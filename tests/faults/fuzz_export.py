"""Coverage-guided fuzzing of `SCMAMBA.from_export`, run on demand: ``python tests/faults/fuzz_export.py --seconds 60``.

It reads mutations of an intact ``model.json`` and of an intact header of the weights, entry by entry and byte by byte.
Anything but a model or a `ScmambaError` ends the run; atheris then writes the input into the working folder. With atheris
(``pip install atheris``) coverage guides the choice of mutations; without it they are drawn at random, and the first line
says so.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import json
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
try:
    import atheris
except ImportError:
    atheris = None

#: What replaces a value: extremes of types and sizes, and paths.
VALUES = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**40, 0.5, float("nan"), float("inf"), "", "rna", "../x", "/etc/passwd", "\0",
    "a" * 10_000, [], [[]], {}, {"rna": 1}, {"rna": {"rna": 1}}, [0] * 1000,
]  # fmt: skip


def make_good(folder: Path) -> None:
    from shapes import mudata_of, poisson

    from scmamba_scvi import SCMAMBA

    mdata = mudata_of({"rna": poisson(30, 12), "atac": poisson(30, 8)})
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, n_latent=2, d_feature=2, d_model=4, headdim=4, d_state=2, d_mlp=2, d_head=2)
    model.export(folder)


def paths_in(value: object, path: tuple = ()) -> list[tuple]:
    """Paths to every entry of nested lists and dicts; of lists only to their first three entries."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return [path, *(deeper for key, part in inner for deeper in paths_in(part, (*path, key)))]


def mutate(value: object, choose) -> object:
    """One to three entries replaced, removed or doubled; ``choose(n)`` is a number below ``n``."""
    value = copy.deepcopy(value)
    for _ in range(1 + choose(3)):
        paths = paths_in(value)
        path = paths[choose(len(paths))]
        if not path:
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        action = choose(4)
        if action == 0:
            parent.pop(path[-1])
        elif action == 1 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
        else:  # a copy, as the next mutation may change it
            parent[path[-1]] = copy.deepcopy(VALUES[choose(len(VALUES))])
    return value


def damage(raw: bytes, choose) -> bytes:
    """One to three bytes replaced, or the rest cut off."""
    raw = bytearray(raw)
    for _ in range(1 + choose(3)):
        place = choose(len(raw))
        if choose(4):
            raw[place] = choose(256)
        else:
            raw = raw[: max(place, 1)]
    return bytes(raw)


class Target:
    """Reads mutations of an intact export, each written over the one before; counts inputs, and those that were a model."""

    def __init__(self, folder: Path) -> None:
        from scmamba_scvi import SCMAMBA
        from scmamba_scvi.errors import ScmambaError

        self.read, self.error, self.folder = SCMAMBA.from_export, ScmambaError, folder
        self.description = json.loads((folder / "model.json").read_text())
        self.weights = (folder / "weights.safetensors").read_bytes()
        self.n_header = 8 + int.from_bytes(self.weights[:8], "little")
        self.header = json.loads(self.weights[8 : self.n_header])
        self.n = self.n_read = 0

    def __call__(self, choose) -> None:
        kind, description, weights = choose(4), self.description, self.weights
        if kind == 0:
            description = mutate(description, choose)
        elif kind == 1:
            header = json.dumps(mutate(self.header, choose)).encode()
            weights = len(header).to_bytes(8, "little") + header + self.weights[self.n_header :]
        elif kind == 2:
            weights = damage(self.weights[: self.n_header], choose) + self.weights[self.n_header :]
        if weights is not self.weights:  # with the digest of the damaged file, or it would never be read
            description = {**description, "weights_sha256": hashlib.sha256(weights).hexdigest()}
        text = json.dumps(description).encode()
        (self.folder / "weights.safetensors").write_bytes(weights)
        (self.folder / "model.json").write_bytes(damage(text, choose) if kind == 3 else text)
        self.n += 1
        with contextlib.suppress(self.error):
            self.read(self.folder)
            self.n_read += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "m"
        if atheris is None:
            fuzz_at_random(folder, arguments.seconds, arguments.seed)
        else:
            fuzz_by_coverage(folder, arguments.seconds, arguments.seed)


def fuzz_at_random(folder: Path, seconds: int, seed: int) -> None:
    print("atheris is not installed: mutations are drawn at random, without guidance by coverage.", flush=True)
    make_good(folder)
    target, rng, end = Target(folder), random.Random(seed), time.monotonic() + seconds
    while time.monotonic() < end:
        target(rng.randrange)
    print(f"{target.n:,} inputs, {target.n_read:,} of them a model, every other one a named error.")


def fuzz_by_coverage(folder: Path, seconds: int, seed: int) -> None:
    # before anything else imports these modules: coverage is recorded only of what is imported within this block
    with atheris.instrument_imports(include=["scmamba_scvi.model", "scmamba_scvi.pp", "scmamba_scvi.config"]):
        import scmamba_scvi.model  # noqa: F401
    make_good(folder)
    target = Target(folder)

    def test_one(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        target(lambda n: provider.ConsumeIntInRange(0, n - 1))
        if target.n % 1000 == 0:
            print(f"{target.n:,} inputs, {target.n_read:,} of them a model.", flush=True)

    options = [f"-max_total_time={seconds}", "-max_len=256", "-len_control=0", f"-seed={seed + 1}"]
    atheris.Setup([sys.argv[0], *options], test_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
