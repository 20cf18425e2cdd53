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


def test_a_key_finds_the_joint_embedding_and_those_of_modalities_by_name(mdata):
    inputs = read_inputs(mdata, "X_e", "cell_type", None)
    rows = rows_of(inputs)
    parts = inputs.methods["X_e"]
    np.testing.assert_array_equal(parts["joint"], JOINT[rows])
    np.testing.assert_array_equal(parts["rna"], JOINT[rows] + 10)
    lacking = rows >= N - 2
    np.testing.assert_array_equal(parts["atac"][~lacking], JOINT[rows][~lacking] + 20)
    assert np.isnan(parts["atac"][lacking]).all()
    assert inputs.labels.tolist() == [f"t{i % 3}" for i in rows]
    assert all(batch is None for batch in inputs.batches)


@pytest.mark.parametrize("embeddings", ["rna", {"m": {"joint": "rna"}}])
def test_the_mask_of_the_cells_that_have_a_modality_is_no_embedding(mdata, embeddings):
    assert "rna" in mdata.obsm
    with pytest.raises(UnknownNameError, match="'rna'. Known: 'X_e'"):
        read_inputs(mdata, embeddings, None, None)


def test_tables_are_aligned_by_name_and_rows_that_are_not_finite_are_counted(mdata):
    table = pd.DataFrame(JOINT, index=[f"c{i}" for i in range(N)]).iloc[::-1]
    table.iloc[0] = np.nan
    inputs = read_inputs(mdata, {"m": table}, None, None)
    np.testing.assert_array_equal(inputs.methods["m"]["joint"], table.loc[inputs.cells].to_numpy())
    assert inputs.cells[inputs.unusable["m", "joint"]].tolist() == [table.index[0]]
    others = inputs.choose(inputs.cells != table.index[0], None, 0)
    assert not others.unusable["m", "joint"].any()


def test_a_row_of_nan_is_counted_where_the_cell_has_the_modality(mdata):
    x = np.repeat(JOINT[:1], N, axis=0)
    x[rows_of(read_inputs(mdata, "X_e", None, None)) > 8] = np.nan  # one that has ATAC, and two that lack it
    inputs = read_inputs(mdata, {"m": {"atac": x}}, None, None)
    assert inputs.cells[inputs.unusable["m", "atac"]].tolist() == ["c9"]


def test_a_matrix_out_of_a_modality_has_the_order_of_the_modality(mdata):
    given = {"m": {key: part.obsm["X_e"] for key, part in mdata.mod.items()}}
    of_key, of_matrix = (read_inputs(mdata, e, None, None).methods for e in ("X_e", given))
    for key in mdata.mod:
        np.testing.assert_array_equal(of_matrix["m"][key], of_key["X_e"][key])
    copied = read_inputs(mdata, {"m": {"rna": mdata["rna"].obsm["X_e"].copy()}}, None, None)  # has that of the data
    np.testing.assert_array_equal(copied.methods["m"]["rna"], mdata["rna"].obsm["X_e"])


@pytest.mark.parametrize("how", ["positions", "mask", "mask with names", "names"])
def test_cells_are_chosen_by_position_mask_or_name(mdata, how):
    inputs = read_inputs(mdata, "X_e", "cell_type", None)
    mask = np.isin(np.arange(N), [2, 5])
    asked = {
        "positions": [5, 2], "mask": mask, "mask with names": pd.Series(mask, inputs.cells)[::-1],
        "names": inputs.cells[[5, 2]],
    }[how]  # fmt: skip
    chosen = inputs.choose(asked, None, 0)
    assert chosen.cells.equals(inputs.cells[[2, 5]])
    np.testing.assert_array_equal(chosen.methods["X_e"]["joint"], inputs.methods["X_e"]["joint"][[2, 5]])
    np.testing.assert_array_equal(chosen.labels, inputs.labels[[2, 5]])


def test_at_most_so_many_cells_are_drawn_by_the_seed(mdata):
    inputs = read_inputs(mdata, "X_e", None, None)
    one, same, other = (inputs.choose(None, 6, seed).cells for seed in (0, 0, 1))
    assert len(one) == 6 and one.equals(same) and not one.equals(other)
    assert inputs.choose(None, 100, 0).cells.equals(inputs.cells)


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
