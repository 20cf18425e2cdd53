"""The code of every notebook runs, on a small stand-in of the data sets that the stored outputs are from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scmamba_scvi.data import simulate_multiome

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
TYPES = ["HSC", "MK/E prog", "Proerythroblast", "Erythroblast", "Normoblast", "Naive CD20+ B", "CD14+ Mono"]
GENES = ["MS4A1", "BANK1", "VCAN", "LYZ", "HBB", "SLC4A1", "IL7R", "CD8A", "KLRD1", "MSI2", "CDK6", "TFRC"]
PROTEINS = ["CD19", "CD3", "CD8", "CD14", "CD16", "CD56", "CD71"]
#: Runs the cells one after the other, in a process of its own.
RUN = """
import json, sys
from scmamba_scvi.model.training import sizes

sizes.STEPS = 8  # the cells have to run; how well training works is tested elsewhere
names = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), sys.argv[1], "exec"), names)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `SCMAMBA_DATA` names: both sets, with the names of types, genes, proteins and columns that notebooks use."""
    root = tmp_path_factory.mktemp("data")
    options = {"n_cells": 420, "n_genes": 120, "n_cell_types": len(TYPES), "n_batches": 3, "seed": 0}
    multiome = simulate_multiome(n_peaks=300, **options)
    cite = simulate_multiome(n_peaks=0, n_proteins=20, **options)
    cite.mod["prot"] = cite.mod.pop("protein")
    for name, mdata in {"multiome": multiome, "cite": cite}.items():
        rng = np.random.default_rng(1)
        number = mdata.obs["cell_type"].astype(str).str.removeprefix("type_").astype(int)
        columns = {
            "cell_type": np.array(TYPES)[number.to_numpy() - 1], "batch": mdata.obs["batch"].astype(str).to_numpy(),
            "site": mdata.obs["batch"].astype(str).str.replace("batch", "site").to_numpy(),
            "donor": np.array(["d1", "d2", "d3"])[rng.integers(3, size=mdata.n_obs)],
        }  # fmt: skip
        mdata["rna"].var_names = [*GENES, *mdata["rna"].var_names[len(GENES) :]]
        if name == "cite":
            mdata["prot"].var_names = [*PROTEINS, *mdata["prot"].var_names[len(PROTEINS) :]]
        for part in (mdata, *mdata.mod.values()):
            part.obs = part.obs.assign(**columns)
        mdata.update()
        (root / f"bmmc_{name}_5k").mkdir()
        mdata.write_h5mu(root / f"bmmc_{name}_5k" / f"bmmc_{name}_5k.h5mu")
    return root


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("notebook", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_code_runs(notebook, folder, tmp_path):
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, str(NOTEBOOKS / f"{notebook}.ipynb")],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "MPLBACKEND": "Agg", "SCMAMBA_DATA": str(folder)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_stored_outputs_are_complete_and_without_warnings(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert any(cell["outputs"] for cell in cells)
    for cell in cells:
        source, outputs = "".join(cell["source"]), json.dumps(cell["outputs"])
        assert "simplefilter" not in source and "filterwarnings" not in source and "setLevel" not in source
        assert "Warning" not in outputs and '"error"' not in outputs and "stderr" not in outputs


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_says_that_the_download_differs_from_what_it_shows(path):
    cells = json.loads(path.read_text())["cells"]
    downloads = any("fetch_bone_marrow" in "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert ("Your numbers and figures will differ" in "".join(cells[0]["source"])) == downloads
