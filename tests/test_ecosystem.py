"""Every recipe of docs/ecosystem.md runs as it is written, where the package it is for is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "ecosystem.md"

#: What the recipes start from: small data and a model trained on them.
SETUP = """
import warnings

import scmamba_scvi

warnings.simplefilter("ignore")
if __name__ == "__main__":
    mdata = scmamba_scvi.data.simulate_multiome(n_cells=300, n_genes=200, n_peaks=600, n_cell_types=3, seed=0)
    scmamba_scvi.SCMAMBA.setup_mudata(mdata, batch_key="batch")
    model = scmamba_scvi.SCMAMBA(mdata, encoder="linear")
    model.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    for block in open("recipe.py").read().split("# ---\\n"):
        exec(compile(block, "ecosystem.md", "exec"))
"""


def blocks(title: str) -> list[str]:
    section = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return re.findall(r"^```python\n(.*?)^```$", section.group(1), flags=re.MULTILINE | re.DOTALL)


def run(folder: Path, code: list[str], last: str) -> str:
    """What ``last`` prints after the recipe, in an interpreter of its own."""
    (folder / "recipe.py").write_text("# ---\n".join([*code, last]))
    (folder / "main.py").write_text(SETUP)
    ran = subprocess.run(
        [sys.executable, "main.py"], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "MPLBACKEND": "Agg"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_recipes_for_scanpy_and_muon_run(tmp_path):
    pytest.importorskip("muon")
    last = "print(mdata.obsm['X_umap'].shape, rna.obs['leiden'].notna().all())"
    assert run(tmp_path, blocks("scanpy") + blocks("muon"), last) == "(300, 2) True"


@pytest.mark.slow
@pytest.mark.timeout(1800)  # jax compiles every score
def test_the_recipe_for_scib_metrics_runs(tmp_path):
    pytest.importorskip("scib_metrics")
    last = "print(*scores.index, scores.loc['X_scmamba', 'Total'] > 0, scores.isna().any().any())"
    assert run(tmp_path, blocks("scib-metrics"), last) == "X_pca X_scmamba Metric Type True False"


@pytest.mark.slow
@pytest.mark.timeout(1800)  # every trial is a process that imports everything
def test_the_recipe_for_autotune_runs(tmp_path):
    pytest.importorskip("ray.tune")
    pytest.importorskip("hyperopt")
    (code,) = blocks("scvi.autotune")
    for written, quick in {"num_samples=8": "num_samples=2", '"max_epochs": 60': '"max_epochs": 2'}.items():
        assert written in code
        code = code.replace(written, quick)
    last = "print(len(search.result_grid), search.result_grid.num_errors, model.is_trained)"
    assert run(tmp_path, [code], last) == "2 0 True"


@pytest.mark.slow
def test_the_recipe_for_the_hub_runs(tmp_path):
    pytest.importorskip("huggingface_hub")
    code, plain = blocks("scvi.hub")
    code = re.sub(r"^hub_model.push_to.*\n", "", code, flags=re.MULTILINE)  # a network, and somebody's name
    plain = re.sub(r"^HfApi.*?\)\n", "", plain, flags=re.MULTILINE | re.DOTALL)
    code += re.sub(r"snapshot_download\(.*\)", '"exported"', plain)
    last = "print(type(hub_model.model).__name__, abs(hub_model.model.get_latent_representation() - model.get_latent_representation()).max() < 1e-6)"
    assert run(tmp_path, [code], last) == "SCMAMBA True"
