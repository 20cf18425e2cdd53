"""What 10 million cells x 1.2 million features would take on 1, 8 and 64 GPUs: an estimate from measured slopes.

    python benchmarks/ten_million_cells.py     # reads other results, measures nothing

Slopes come from results/larger_than_memory.json (reading and memory on this kind of machine, by cell) and results/gpu.json (a
training step and an embedded minibatch of preset "small"). Writes benchmarks/results/ten_million_cells.json; `speed.py --page`
shows it.
"""

from __future__ import annotations

import json

from harness import command
from harness.files import write_json
from harness.paths import RESULTS

CELLS, FEATURES, LATENT = 10_000_000, 1_200_000, 64
DEVICES = (1, 8, 64)
#: Bytes a second between GPUs of one machine (NVLink) and of several (400 Gbit/s): data sheets, not measured.
BANDWIDTH = {1: float("inf"), 8: 300e9, 64: 50e9}
#: Held-out cells and the start's sample, whatever the size of the data (`TrainConfig.max_validation_cells`, `MAX_CELLS`).
HELD_OUT, SAMPLE = 5_000, 50_000


def main(argv: list[str] | None = None) -> None:
    command.parser(__doc__).parse_args(argv)
    found = {"cells": CELLS, "features": FEATURES, **slopes()}
    found["rows"] = [estimate(found, n) for n in DEVICES]
    write_json(RESULTS / "ten_million_cells.json", found)
    for row in found["rows"]:
        print(row)


def slopes() -> dict[str, float]:
    """What one cell costs, from the largest measured sets."""
    from scmamba_scvi.model.training.sizes import choose_sizes

    on_disk = json.loads((RESULTS / "larger_than_memory.json").read_text())["rows"]
    atlas = sorted((row for row in on_disk if row["shape"] == "atlas"), key=lambda row: row["cells"])
    small, large = atlas[0], atlas[-1]
    gpu = {
        row["what"]: row["ms"]
        for row in json.loads((RESULTS / "gpu.json").read_text())["rows"]
        if row["preset"] == "small" and not row["without"]
    }
    sizes = choose_sizes(CELLS, CELLS, 512, None, None)
    return {
        "file_kb_per_cell": round(_slope(small, large, "file_mb") * 1e3, 2),
        # an epoch on a CPU reads, and trains a linear model, which takes less: an upper bound of reading alone
        "read_ms_per_cell": round(_slope(small, large, "epoch_s") * 1e3, 3),
        "step_ms_per_cell": round(gpu["step"] / 512, 4), "embed_ms_per_cell": round(gpu["embed"] / 512, 4),
        "passes": sum(sizes.stages(linear_first=True).values()), "start_s": large["start_s"],
    }  # fmt: skip


def estimate(found: dict[str, float], n_devices: int) -> dict[str, object]:
    """Hours, memory and reading with one process for each device; whichever of reading, steps and exchange is slowest counts."""
    cells = CELLS / n_devices
    gradient = 4 * FEATURES * LATENT  # of the feature embeddings, dense, exchanged in every step
    steps = found["passes"] * CELLS / (512 * n_devices)
    hours = {
        "reading": found["passes"] * cells * found["read_ms_per_cell"] / 3.6e6,
        "steps": found["passes"] * cells * found["step_ms_per_cell"] / 3.6e6,
        "exchange": steps * 2 * gradient / BANDWIDTH[n_devices] / 3600,
        "start": found["start_s"] / 3600,
        "embedding": cells * (found["embed_ms_per_cell"] + found["read_ms_per_cell"]) / 3.6e6,
    }
    whole = hours["start"] + max(hours["reading"], hours["steps"] + hours["exchange"]) + hours["embedding"]
    per_cell = found["file_kb_per_cell"] * 4e3  # in memory: values and columns, not compressed
    return {
        "devices": n_devices, **{f"{name}_h": round(value, 2) for name, value in hours.items()}, "whole_h": round(whole, 2),
        # weights, gradient and two moments of the feature embeddings, components of the joint embedding
        "gpu_gb": round((4 * gradient + gradient) / 1e9, 1),
        "host_gb": round(HELD_OUT * per_cell / 1e9 + SAMPLE * per_cell / 1e9 + 1, 1),
        "read_tb": round(found["passes"] * CELLS * found["file_kb_per_cell"] / 1e9, 2),
    }  # fmt: skip


def _slope(small: dict, large: dict, column: str) -> float:
    return (large[column] - small[column]) / (large["cells"] - small["cells"])


if __name__ == "__main__":
    main()
