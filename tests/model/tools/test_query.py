"""Counts of a query become those of the model's features: every count once, none of another place."""

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from shapes import mudata_of, poisson

from scmamba_scvi import SCMAMBA, read
from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.model.tools.query import _apply, _check_coverage


@pytest.mark.parametrize("store", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_counts_are_summed_where_features_meet_and_dropped_where_none_does(store):
    counts = store(np.array([[200, 100, 5, 1], [0, 2, 3, 4]], dtype=np.uint8))
    x, kept = _apply(counts, np.array([2, 2, -1, 0]), 3)
    np.testing.assert_array_equal(x.toarray() if sparse.issparse(x) else x, [[1, 0, 300], [4, 0, 2]])
    assert kept == pytest.approx(307 / 315)


def test_the_model_s_own_features_are_not_copied():
    counts = sparse.csr_matrix(np.eye(3))
    assert _apply(counts, np.arange(3), 3) == (counts, 1.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layers": {"protein": None}}, UnknownNameError, "kind of modality in layers"),
        ({"layers": {"rna": "counts"}}, UnknownNameError, "layer of mdata"),
        ({"layers": "counts"}, ScmambaError, "layers must be a dict from kind to layer, got 'counts'"),
        ({"min_coverage": 2}, ScmambaError, "min_coverage is a fraction"),
        ({"min_coverage": "0.5"}, ScmambaError, "min_coverage is a fraction.*got '0.5'"),
        ({"min_coverage": None}, ScmambaError, "min_coverage is a fraction.*got None"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(trained, arguments, error, message):
    with pytest.raises(error, match=message):
        SCMAMBA.prepare_query_mudata(trained.adata, trained, **arguments)


@pytest.mark.parametrize("of", ["a MuData", "an AnnData", "a modality"])
def test_a_query_without_cells_is_named(trained, of):
    query = trained.adata[:0] if of == "a MuData" else trained.adata["rna"][:0]
    query = mudata.MuData({"rna": query.copy()}) if of == "a modality" else query
    for use in (SCMAMBA.prepare_query_mudata, SCMAMBA.load_query_data):
        with pytest.raises(ScmambaError, match="The query has no cells"):
            use(query, trained)


def test_two_modalities_of_one_kind_are_not_chosen_between(trained):
    rna = trained.adata["rna"][:30].copy()
    with pytest.raises(ScmambaError, match="'gex' and 'expression' both look like rna"):
        SCMAMBA.prepare_query_mudata(mudata.MuData({"gex": rna, "expression": rna.copy()}), trained)
    only = SCMAMBA.prepare_query_mudata(mudata.MuData({"gex": rna.copy()}), trained)
    assert list(only.mod) == ["rna"] and (only["rna"].X != rna.X).nnz == 0
    # one has the key of the model
    query = SCMAMBA.prepare_query_mudata(mudata.MuData({"gex": rna[:, ::-1].copy(), "rna": rna}), trained)
    assert (query["rna"].X != rna.X).nnz == 0


def test_features_of_one_name_are_refused_as_in_setup(trained):
    """Which of them the model means is not known: added up, one would have the counts of both."""
    rna = trained.adata["rna"][:30].copy()
    rna.var_names = [rna.var_names[1], *rna.var_names[1:]]
    with pytest.raises(ScmambaError, match="1 feature names that occur more than once"):
        SCMAMBA.prepare_query_mudata(rna, trained)


def test_versions_of_ensembl_are_named_where_they_are_the_difference():
    hint = _coverage_error([f"ENSG{i:011d}" for i in range(9)], [f"ENSG{i:011d}.{i + 1}" for i in range(8)])
    assert "Without the versions of Ensembl, 8 are found" in hint
    assert "Ensembl" not in _coverage_error(["GENE1.1", "GENE2.1"], ["GENE1.2", "GENE2.3"])


def _coverage_error(known, names):
    with pytest.raises(ScmambaError) as error:
        _check_coverage(np.zeros(len(known), bool), pd.Index(known), pd.DataFrame(index=names), "rna", 0.5)
    return str(error.value)


def test_the_report_adds_up(trained):
    rna = trained.adata["rna"][:30, 10:].copy()
    rna.var_names = [*rna.var_names[:-5], *(f"new {i}" for i in range(5))]
    report = SCMAMBA.prepare_query_mudata(rna, trained).uns["query_mapping"]["rna"]
    assert report["found"] == report["by_name"] == 150 - 15 and report["coverage"] == 135 / 150
    assert report["features_of_query"] == report["by_name"] + report["by_overlap"] + report["ignored"] == 140


def test_a_kind_without_a_layer_of_its_own_is_read_from_that_of_the_model():
    mdata = mudata_of({"rna": poisson(60, 20), "atac": poisson(60, 30)})
    for part in mdata.mod.values():
        part.layers["counts"] = part.X.copy()
    SCMAMBA.setup_mudata(mdata, layers={"rna": "counts", "atac": "counts"})
    model, counts = SCMAMBA(mdata, encoder="linear"), mdata["atac"].layers["counts"].copy()
    mdata["atac"].X *= 3
    query = SCMAMBA.prepare_query_mudata(mdata, model, layers={"rna": None})
    assert (query["atac"].layers["counts"] != counts).nnz == 0
    with pytest.raises(UnknownNameError, match="layer of mdata"):  # `None` is X, here of no layers at all
        SCMAMBA.prepare_query_mudata(mudata_of({"atac": poisson(60, 30)}), model)
    assert SCMAMBA.prepare_query_mudata(mudata_of({"atac": poisson(60, 30)}), model, layers={"atac": None}).n_obs == 60


def undivided(mdata):
    """Genes and peaks in one AnnData, all with an interval, as `scanpy.read_10x_h5` gives them with ``gex_only=False``."""
    parts = {"Gene Expression": mdata["rna"], "Peaks": mdata["atac"]}
    var = pd.concat([
        pd.DataFrame({"feature_types": name, "interval": [
            f"{chrom}:{start}-{end}" for chrom, start, end in part.var[["chrom", "start", "end"]].itertuples(index=False)
        ]}, index=part.var_names) for name, part in parts.items()
    ])  # fmt: skip
    x = sparse.hstack([sparse.csr_matrix(part.X) for part in parts.values()], format="csr")
    return AnnData(x, obs=mdata["rna"].obs[[]], var=var)


def test_genes_and_peaks_that_are_not_divided_are_refused(trained):
    """The genes would be counted into the peaks that they overlap."""
    adata = undivided(trained.adata)
    with pytest.raises(ScmambaError, match=r"atac and rna, not divided.*scmamba_scvi.read\(adata\)"):
        SCMAMBA.prepare_query_mudata(adata, trained)
    report = SCMAMBA.prepare_query_mudata(read(adata), trained).uns["query_mapping"]
    assert report["rna"]["by_name"] == 150 and report["atac"]["by_name"] == 400


def test_a_gene_among_peaks_is_not_counted_into_the_peak_that_it_overlaps(trained):
    adata = undivided(trained.adata)
    adata.var_names = [f"other {name}" for name in adata.var_names]
    query = SCMAMBA.prepare_query_mudata(mudata.MuData({"atac": adata}), trained)
    assert query.uns["query_mapping"]["atac"]["ignored"] == 150
    assert query["atac"].X.sum() == trained.adata["atac"].X.sum()


def test_a_query_has_counts_of_its_own():
    """scanpy normalises in place: neither the user's data nor the layer of counts may change with it."""
    mdata = mudata_of({"rna": poisson(60, 20), "atac": poisson(60, 30)})
    for part in mdata.mod.values():
        part.layers["counts"] = part.X.copy()
    SCMAMBA.setup_mudata(mdata, layers={"rna": "counts"})
    query = SCMAMBA.prepare_query_mudata(mdata, SCMAMBA(mdata, encoder="linear"), layers={"rna": "counts"})
    for key in ("rna", "atac"):
        before = mdata[key].X.copy()
        query[key].X *= 3
        assert (query[key].X != 3 * before).nnz == 0 if sparse.issparse(before) else (query[key].X == 3 * before).all()
        for kept in (mdata[key].X, mdata[key].layers["counts"], query["rna"].layers["counts"]):
            assert abs(kept - (before if kept.shape == before.shape else mdata["rna"].X)).max() == 0


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        pytest.param(lambda x: np.ma.masked_less(x, 1), "is a masked array", id="masked"),
        pytest.param(lambda x: x.astype(complex), "values of type complex128: counts must be numbers", id="complex"),
        pytest.param(lambda x: x.astype(object), "values of type object: counts must be numbers", id="objects"),
        pytest.param(lambda x: out_of_bounds(sparse.csr_matrix(x)), "is a damaged sparse matrix", id="damaged"),
    ],
)
def test_counts_that_no_setup_takes_are_refused_in_a_query(trained, counts, message):
    """The positions of a damaged matrix were read past its end, and those of another type summed as they are."""
    rna = trained.adata["rna"]
    query = AnnData(counts(rna.X.toarray()), obs=rna.obs[[]], var=rna.var)
    with pytest.raises(ScmambaError, match=message):
        SCMAMBA.prepare_query_mudata(query, trained)


def out_of_bounds(x):
    x.indices[0] = 10 * x.shape[1]
    return x
