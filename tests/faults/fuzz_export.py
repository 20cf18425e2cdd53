"""Coverage-guided fuzzing of `SCMAMBA.from_export`, run on demand: ``python tests/faults/fuzz_export.py --seconds 60``.

Mutations of a good ``model.json`` and of a good header of the weights are read; anything but a model or a `ScmambaError`
ends the run with the input. With atheris (``pip install atheris``) the bytes are atheris' own and coverage guides them;
without it the same mutations are drawn at random, and the first line says so.
"""

from __future__ import annotations

import argparse
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

#: What stands in for a value: edges of types, sizes, paths.
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


def places(value: object, way: tuple = ()) -> list[tuple]:
    """Ways to every entry of nested lists and dicts; of long lists to the first three."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return [way, *(place for key, part in inner for place in places(part, (*way, key)))]


def mutate(value: object, choose) -> object:
    """One to three entries replaced, removed or doubled; ``choose(n)`` is a number below ``n``."""
    value = json.loads(json.dumps(value))
    for _ in range(1 + choose(3)):
        way = (found := places(value))[choose(len(found))]
        if not way:
            continue
        parent = value
        for key in way[:-1]:
            parent = parent[key]
        action = choose(4)
        if action == 0:
            parent.pop(way[-1])
        elif action == 1 and isinstance(parent, list):
            parent.append(parent[way[-1]])
        else:
            parent[way[-1]] = VALUES[choose(len(VALUES))]
    return value


class Target:
    def __init__(self, folder: Path) -> None:
        from scmamba_scvi import SCMAMBA
        from scmamba_scvi.errors import ScmambaError

        self.read, self.error, self.folder = SCMAMBA.from_export, ScmambaError, folder
        self.description = json.loads((folder / "model.json").read_text())
        raw = (folder / "weights.safetensors").read_bytes()
        length = int.from_bytes(raw[:8], "little")
        self.header, self.body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
        self.n = self.n_read = 0

    def __call__(self, choose) -> None:
        description, weights = self.description, None
        if choose(2):
            description = mutate(description, choose)
        else:
            text = json.dumps(mutate(self.header, choose)).encode()
            weights = len(text).to_bytes(8, "little") + text + self.body
            (self.folder / "weights.safetensors").write_bytes(weights)
            description = {**description, "weights_sha256": hashlib.sha256(weights).hexdigest()}
        (self.folder / "model.json").write_text(json.dumps(description))
        self.n += 1
        try:
            self.read(self.folder)
            self.n_read += 1
        except self.error:
            pass
        finally:
            if weights is not None:
                text = json.dumps(self.header).encode()
                (self.folder / "weights.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + self.body)
                self.description["weights_sha256"] = hashlib.sha256(
                    (self.folder / "weights.safetensors").read_bytes()
                ).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp()) / "m"
    make_good(folder)
    if atheris is None:
        print("atheris is not installed: mutations are drawn at random, coverage guides nothing.", flush=True)
        target, rng, end = Target(folder), random.Random(arguments.seed), time.monotonic() + arguments.seconds
        while time.monotonic() < end:
            target(rng.randrange)
        print(f"{target.n:,} inputs, {target.n_read:,} of them a model, every other one a named error.")
        return
    import scmamba_scvi.model._description
    import scmamba_scvi.model._export
    import scmamba_scvi.pp._layout

    for module in (scmamba_scvi.model._description, scmamba_scvi.model._export, scmamba_scvi.pp._layout):
        for name, value in vars(module).items():
            if callable(value) and getattr(value, "__module__", "") == module.__name__ and not isinstance(value, type):
                setattr(module, name, atheris.instrument_func(value))
    target = Target(folder)

    def test_one(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        target(lambda n: provider.ConsumeIntInRange(0, n - 1))
        if target.n % 1000 == 0:
            print(f"{target.n:,} inputs, {target.n_read:,} of them a model.", flush=True)

    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={arguments.seconds}",
            "-max_len=256",
            "-len_control=0",
            f"-seed={arguments.seed + 1}",
        ],
        test_one,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
