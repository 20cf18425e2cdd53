from __future__ import annotations

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest

from scmamba_scvi._compat import without_pulling
from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.metrics._inputs import read_inputs

N = 12
JOINT = np.arange(2.0 * N).reshape(N, 2)


@pytest.fixture
def mdata():
    """The rna of all cells in another order, the atac without the last two; embeddings in ``obsm`` of each."""
    names = np.array([f"c{i}" for i in range(N)])
    order = np.random.default_rng(0).permutation(N)
    parts = {}
    for key, rows in (("rna", order), ("atac", np.arange(N - 2))):
        parts[key] = ad.AnnData(np.ones((len(rows), 1), np.float32), obs=pd.DataFrame(index=names[rows]))
        parts[key].var_names = [key]
        parts[key].obsm["X_e"] = JOINT[rows] + (10 if key == "rna" else 20)
    with without_pulling():
        mdata = mudata.MuData(parts)
    rows = pd.Index(names).get_indexer(mdata.obs_names)
    mdata.obsm["X_e"] = JOINT[rows]
    mdata.obs["cell_type"] = [f"t{i % 3}" for i in rows]
    return mdata


def rows_of(inputs):
    return np.array([int(name[1:]) for name in inputs.cells])


@pytest.mark.parametrize("embeddings", ["rna", {"m": {"joint": "rna"}}])
def test_the_mask_of_the_cells_that_have_a_modality_is_no_embedding(mdata, embeddings):
    assert "rna" in mdata.obsm
    with pytest.raises(UnknownNameError, match="'rna'. Known: 'X_e'"):
        read_inputs(mdata, embeddings, None, None)


def test_a_row_of_nan_is_counted_where_the_cell_has_the_modality(mdata):
    x = np.repeat(JOINT[:1], N, axis=0)
    x[rows_of(read_inputs(mdata, "X_e", None, None)) > 8] = np.nan  # one that has ATAC, and two that lack it
    inputs = read_inputs(mdata, {"m": {"atac": x}}, None, None)
    assert inputs.cells[inputs.unusable["m", "atac"]].tolist() == ["c9"]


@pytest.mark.parametrize("is_slice", [False, True])
def test_a_matrix_out_of_a_modality_has_the_order_of_the_modality(mdata, is_slice):
    mdata.mod["rna"] = mdata["rna"][::-1] if is_slice else mdata["rna"][::-1].copy()
    given = {"m": {key: part.obsm["X_e"] for key, part in mdata.mod.items()}}
    of_key, of_matrix = (read_inputs(mdata, e, None, None).methods for e in ("X_e", given))
    for key in mdata.mod:
        np.testing.assert_array_equal(of_matrix["m"][key], of_key["X_e"][key])
    copied = read_inputs(mdata, {"m": {"rna": mdata["rna"].obsm["X_e"].copy()}}, None, None)
    np.testing.assert_array_equal(copied.methods["m"]["rna"], of_key["X_e"]["rna"])


def test_names_must_tell_cells_apart(mdata):
    double = ad.AnnData(np.ones((2, 1)), obs=pd.DataFrame(index=["c", "c"]), obsm={"X_e": np.eye(2)})
    with pytest.raises(ScmambaError, match="obs_names_make_unique"):
        read_inputs(double, "X_e", None, None)
    with pytest.raises(ScmambaError, match="names some cells twice"):
        read_inputs(mdata, "X_e", pd.Series(["a", "b"], index=["c1", "c1"]), None)


def test_labels_that_name_other_cells_are_not_taken_by_row(mdata):
    labels = pd.Series(list("ab") * (N // 2), index=[f"sample-c{i}" for i in range(N)])
    with pytest.raises(ScmambaError, match=r"labels_key names none of the cells: it has 'sample-c0', the data 'c\d"):
        read_inputs(mdata, "X_e", labels, None)
    for by_row in (labels.reset_index(drop=True), labels.to_numpy()):
        assert read_inputs(mdata, "X_e", by_row, None).labels.tolist() == list(labels)


@pytest.mark.parametrize("cells", ["c1", {"c1", "c2"}, slice(0, 5), 3])
def test_cells_that_are_no_list_are_named(mdata, cells):
    inputs = read_inputs(mdata, "X_e", None, None)
    with pytest.raises(ScmambaError, match="cells must be a list of positions or of names, or a mask"):
        inputs.choose(cells, None, 0)
