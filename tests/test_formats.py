"""Real cells in every format that is read go through the command line, and give the same embedding."""

from __future__ import annotations

import re
from pathlib import Path

import anndata
import mudata
import numpy as np
import pytest
from scipy import sparse
from tenx import write_10x, write_10x_folder
from typer.testing import CliRunner

from scmamba_scvi import SCMAMBA, cli

pytestmark = pytest.mark.filterwarnings("ignore")
TYPES = {"rna": "Gene Expression", "atac": "Peaks"}


def run(*arguments):
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def cells(real_data):
    """300 cells of bone marrow with their 150 most frequent genes and peaks."""
    whole = mudata.read_h5mu(real_data / "bmmc_multiome_starter" / "bmmc_multiome_starter.h5mu")
    parts = {}
    for name, part in whole.mod.items():
        frequent = np.sort(np.argsort(-np.asarray((part.X > 0).sum(axis=0)).ravel(), kind="stable")[:150])
        parts[name] = anndata.AnnData(
            part.X[:300, frequent], part.obs[[]][:300], part.var[["chrom", "start", "end"]].iloc[frequent]
        )
    return mudata.MuData(parts)


def joined(cells):
    adata = anndata.concat(list(cells.mod.values()), axis=1, merge="same")
    adata.var["feature_types"] = np.repeat(
        [TYPES[name] for name in cells.mod], [part.n_vars for part in cells.mod.values()]
    )
    return adata


def as_10x(cells):
    adata = joined(cells)
    places = [f"{v.chrom}:{v.start}-{v.end}" if v.chrom else "NA" for v in adata.var.itertuples()]
    return [*adata.var["feature_types"]], [*adata.var_names], {
        "x": sparse.csr_matrix(adata.X), "barcodes": [*adata.obs_names], "ids": [*adata.var_names], "intervals": places,
    }  # fmt: skip


def tenx_h5(cells, folder):
    types, names, rest = as_10x(cells)
    write_10x(folder / "filtered_feature_bc_matrix.h5", types, names, **rest)
    return [folder / "filtered_feature_bc_matrix.h5"]


def tenx_folder(cells, folder):
    types, names, rest = as_10x(cells)
    write_10x_folder(folder / "filtered_feature_bc_matrix", types, names, **rest)
    return [folder / "filtered_feature_bc_matrix"]


def one_h5ad(cells, folder):
    joined(cells).write_h5ad(folder / "cells.h5ad")
    return [folder / "cells.h5ad"]


def h5ad_of_each(cells, folder):
    for name, part in cells.mod.items():
        part.write_h5ad(folder / f"{name}.h5ad")
    return [f"{name}={folder / name}.h5ad" for name in cells.mod]


def h5mu(cells, folder):
    cells.write_h5mu(folder / "cells.h5mu")
    return [folder / "cells.h5mu"]


def zarr(cells, folder):
    cells.write_zarr(folder / "cells.zarr")
    return [folder / "cells.zarr"]


def embedded(sources, out):
    quick = ("--max-epochs", 1, "--no-umap", "--n-latent", 8, "--encoder", "linear", "--accelerator", "cpu")
    run("integrate", *sources, "-o", out, *quick)
    return mudata.read_h5mu(out)


@pytest.fixture(scope="module")
def expected(cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return embedded(h5mu(cells, folder), folder / "out.h5mu")


@pytest.mark.parametrize("form", [tenx_h5, tenx_folder, one_h5ad, h5ad_of_each, zarr], ids=lambda form: form.__name__)
def test_integrate_reads_every_format(cells, expected, tmp_path, form):
    sources = form(cells, tmp_path)
    found = embedded(sources, tmp_path / "out.h5mu")
    assert found.obs_names.equals(expected.obs_names)
    np.testing.assert_allclose(found.obsm["X_scmamba"], expected.obsm["X_scmamba"], atol=1e-4)


@pytest.mark.parametrize(
    ("form", "target"),
    [(tenx_h5, "new.zarr"), (h5ad_of_each, "new.zarr"), (h5mu, "new.zarr"), (zarr, "new.zarr"), (zarr, "new.h5mu")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_convert_reads_every_format(cells, tmp_path, form, target):
    sources = form(cells, tmp_path)
    run("convert", *sources, "-o", tmp_path / "folder" / target)
    run("convert", *sources, "-o", tmp_path / "folder" / target, "--overwrite")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == [target]
    found = (mudata.read_zarr if target.endswith("zarr") else mudata.read_h5mu)(tmp_path / "folder" / target)
    for name, part in cells.mod.items():
        assert (found[name][cells.obs_names, part.var_names].X != part.X).nnz == 0


def test_samples_are_joined_as_the_guide_says(cells, tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "guide.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    (joining,) = (block for block in code if "anndata.concat" in block)
    for name, rows in (("S1", slice(100)), ("S2", slice(100, 300))):
        (tmp_path / name / "outs").mkdir(parents=True)
        part = cells[rows].copy()
        for modality in part.mod.values():  # the same barcodes in every sample
            modality.obs_names = [f"cell{i}" for i in range(modality.n_obs)]
        tenx_h5(mudata.MuData(dict(part.mod)), tmp_path / name / "outs")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code[0] + joining, "guide.md", "exec"), names)
    found = names["mdata"]
    assert found.n_obs == 300 and SCMAMBA(found).batches.tolist() == ["S1", "S2"]
    for kind, modality in cells.mod.items():
        assert set(found[kind].var_names) == set(modality.var_names)
        np.testing.assert_array_equal(found[kind][:, modality.var_names].X.toarray(), modality.X.toarray())
        assert (found[kind].obs["sample"].astype(str) == np.repeat(["S1", "S2"], [100, 200])).all()
