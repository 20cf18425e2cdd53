"""The code of the README runs as it stands, its commands exist, and its links lead to files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from tenx import write_10x

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)


#: Runs the blocks one after the other, as a reader pastes them, and prints what they made.
RUN = """
import sys
from scmamba_scvi.model.training import sizes

sizes.STEPS = 8  # the lines have to run; how well training works is tested elsewhere
names = {}
for block in sys.argv[1:]:
    exec(compile(block, "README.md", "exec"), names)
mdata = names["mdata"]
print(mdata.obsm["X_scmamba"].shape, mdata.obsm["X_umap_scmamba"].shape, names["model"].is_trained)
"""


#: Rows of the table of scores, by the methods of `benchmarks/results/quality.jsonl` on SNARE-seq and on bone marrow.
METHODS = {
    "scmamba-scvi, default": ("scmamba-scvi", "scmamba-scvi"),
    "linear: the same without the network": ("linear", "linear"),
    "weighted CCA": ("weighted CCA", "weighted CCA"),
    "MultiVI, totalVI": ("MultiVI", "totalVI"),
    "RNA PCA": ("RNA PCA", "RNA PCA"),
    "ATAC LSI, protein PCA": ("ATAC LSI / protein PCA", "ATAC LSI / protein PCA"),
}


def measured(name: str, method: str) -> list[dict[str, float]]:
    """Scores of every seed of a method on a set."""
    lines = [json.loads(line) for line in (README.parent / "benchmarks/results/quality.jsonl").read_text().splitlines()]
    return [x["scores"] for x in lines if (x["set"], x["method"]) == (name, method) and "scores" in x]


def test_scores_are_those_that_the_benchmarks_measured():
    expected = {}
    for row, of_sets in METHODS.items():
        cells = []
        for name, method in zip(("snareseq_mouse_cortex", "bmmc_cite_5k"), of_sets, strict=True):
            found = measured(name, method)
            for score in ("FOSCTTM", "other modality", "kNN accuracy"):
                values = [scores[score] for scores in found if score in scores]
                cells.append(f"{np.mean(values):.3f}" if values else "")
        expected[row] = cells
    table = re.findall(r"^\| (.+?) \| (.*) \|$", README.read_text(), flags=re.MULTILINE)
    shown = {row: [cell.strip() for cell in cells.split("|")] for row, cells in table if row in METHODS}
    assert shown == expected


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_sentence_about_the_network_has_the_numbers_of_the_day(page):
    text = " ".join((README.parent / page).read_text().split())
    (shown,) = re.findall(r"FOSCTTM on mouse cortex is ([\d.]+) with it and ([\d.]+) without", text)
    means = [
        np.mean([scores["FOSCTTM"] for scores in measured("snareseq_mouse_cortex", method)])
        for method in ("scmamba-scvi", "linear")
    ]
    assert shown == tuple(f"{mean:.3f}" for mean in means)


def test_python_of_the_readme_runs_from_top_to_bottom(tmp_path):
    from scmamba_scvi.data import simulate_multiome

    cells = simulate_multiome(n_cells=30, n_genes=60, n_peaks=120, n_cell_types=3, seed=0)
    x = sparse.hstack([cells["rna"].X, cells["atac"].X]).tocsr()
    names = [*cells["rna"].var_names, *cells["atac"].var_names]
    write_10x(
        tmp_path / "filtered_feature_bc_matrix.h5", ["Gene Expression"] * 60 + ["Peaks"] * 120, names,
        x=x, barcodes=list(cells.obs_names), ids=names, intervals=["NA"] * 180,
    )  # fmt: skip
    # In an interpreter of its own, as a reader would. To compile UMAP takes numba ten times as long as UMAP takes for 30
    # cells; without it the same lines run in Python.
    run = subprocess.run(
        [sys.executable, "-c", RUN, *blocks("python")],
        cwd=tmp_path, env={**os.environ, "MPLBACKEND": "Agg", "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.splitlines()[-1] == "(30, 64) (30, 2) True"


def test_the_documentation_begins_with_the_same_lines():
    assert blocks("python")[0] in (README.parent / "docs/index.md").read_text()


def commands() -> list[str]:
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if line.startswith("scmamba-scvi")]


@pytest.mark.parametrize("line", commands())
def test_commands_of_the_readme_exist_with_their_options(line):
    from typer.testing import CliRunner

    from scmamba_scvi.cli import COMMANDS, app

    _, command, *arguments = line.split()
    assert command in COMMANDS
    help_text = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    for argument in arguments:
        assert not argument.startswith("--") or argument in help_text


def test_links_into_the_repository_lead_somewhere():
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", README.read_text())
    assert targets
    for target in targets:
        assert (README.parent / target).exists(), target
