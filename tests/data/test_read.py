"""`read`: every format that a lab has comes back with the same cells, features and counts."""

from __future__ import annotations

import gzip
import tarfile
import tracemalloc
import warnings
import zipfile

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse
from tenx import BARCODES, X, write_10x, write_10x_folder, write_10x_v2

import scmamba_scvi
from scmamba_scvi.data import open_mudata, simulate_multiome
from scmamba_scvi.errors import ScmambaError

read = scmamba_scvi.read


@pytest.fixture
def multiome():
    return simulate_multiome(n_cells=40, n_genes=30, n_peaks=50, seed=0)


def same(found, wanted):
    assert [*found.mod] == [*wanted.mod]
    assert found.obs_names.tolist() == wanted.obs_names.tolist()
    for name in wanted.mod:
        assert found[name].var_names.tolist() == wanted[name].var_names.tolist()
        assert (found[name].X != wanted[name].X).nnz == 0


def joined(mdata, types):
    """One AnnData of all features, with their types."""
    adata = anndata.concat(list(mdata.mod.values()), axis=1)
    adata.var["feature_types"] = np.repeat(list(types), [m.n_vars for m in mdata.mod.values()])
    return adata


@pytest.mark.parametrize("form", ["h5", "folder", "outs"])
def test_what_cell_ranger_writes_is_read(tmp_path, form):
    if form == "folder":
        write_10x_folder(tmp_path / "filtered_feature_bc_matrix")
        path = tmp_path / "filtered_feature_bc_matrix"
    else:
        path = tmp_path / "filtered_feature_bc_matrix.h5"
        write_10x(path)
    found = read(tmp_path if form == "outs" else path)
    assert [*found.mod] == ["rna", "atac"] and found.obs_names.tolist() == BARCODES
    assert found["rna"].var_names.tolist() == ["A", "B", "A-1"]
    assert found["rna"].var["gene_ids"].tolist() == ["ENSG1", "ENSG2", "ENSG3"]
    assert found["atac"].var_names.tolist() == ["chr1:5-9", "chr2:1-4"]
    np.testing.assert_array_equal(found["rna"].X.toarray(), X.toarray()[:, [0, 1, 3]])
    np.testing.assert_array_equal(found["atac"].X.toarray(), X.toarray()[:, [2, 4]])
    assert all(m.X.format == "csr" for m in found.mod.values())
    where = scmamba_scvi.pp.feature_layout(found["rna"].var, patch_size=2)
    assert where.n_placed == 2  # the third gene has no place in these files


def test_the_folder_names_features_as_the_h5_does(tmp_path):
    """Else a query from one form lacks the proteins of a model from the other, where they share the name of a gene."""
    cite = {
        "types": ["Gene Expression", "Gene Expression", "Antibody Capture", "Gene Expression", "Antibody Capture"],
        "names": ["CD86", "B", "CD86", "CD86", "CD4"], "intervals": ["NA"] * 5,
    }  # fmt: skip
    write_10x(tmp_path / "cells.h5", **cite)
    write_10x_folder(tmp_path / "cells", **cite)
    for form in ("cells.h5", "cells"):
        found = read(tmp_path / form)
        assert found["rna"].var_names.tolist() == ["CD86", "B", "CD86-1"]
        assert found["protein"].var_names.tolist() == ["CD86", "CD4"]


def gunzip(file):
    file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
    file.unlink()


@pytest.mark.parametrize("plain", ["*", "matrix*", "features*", "barcodes*"])
def test_the_files_of_the_folder_may_each_be_compressed_or_not(tmp_path, plain):
    """STARsolo writes them plain, with the names of version 3; of an earlier version one may be left."""
    write_10x_folder(tmp_path / "cells", names=["A", "NA", "chr1:5-9", 'A"', "chr2:1-4"])
    for file in list((tmp_path / "cells").glob(plain)):
        gunzip(file)
    (tmp_path / "cells" / "genes.tsv").write_text("ENSG9\tZ\n")
    found = read(tmp_path / "cells")
    assert found["rna"].var_names.tolist() == ["A", "NA", 'A"'] and found.obs_names.tolist() == BARCODES
    assert found["atac"].var_names.tolist() == ["chr1:5-9", "chr2:1-4"]
    np.testing.assert_array_equal(found["rna"].X.toarray(), X.toarray()[:, [0, 1, 3]])


def test_the_folder_of_cell_ranger_2_is_read(tmp_path):
    write_10x_folder(tmp_path / "cells")
    for file in list((tmp_path / "cells").iterdir()):
        gunzip(file)
    (tmp_path / "cells" / "features.tsv").unlink()
    (tmp_path / "cells" / "genes.tsv").write_text("".join(f"ENSG{i}\tG{i}\n" for i in range(5)))
    write_10x(tmp_path / "both.h5")
    found = read({"rna": tmp_path / "cells", "atac": tmp_path / "both.h5"})
    assert found["rna"].var_names.tolist() == [f"G{i}" for i in range(5)]
    np.testing.assert_array_equal(found["rna"].X.toarray(), X.toarray())


@pytest.mark.parametrize("form", ["h5", "folder"])
def test_the_peaks_of_cell_ranger_atac_are_read(tmp_path, form):
    outs, rows = tmp_path / "outs", ["chr1\t5\t9", "chr2\t1\t4"]
    outs.mkdir()
    kept = {
        "names": ["chr1:5-9", "chr2:1-4"],
        "ids": ["chr1:5-9", "chr2:1-4"],
        "types": ["Peaks"] * 2,
        "x": X[:, [2, 4]],
    }
    kept["intervals"] = kept["names"]
    if form == "h5":
        write_10x(outs / "filtered_peak_bc_matrix.h5", **kept)
    else:
        folder = outs / "filtered_peak_bc_matrix"
        write_10x_folder(folder, **kept)
        for file in list(folder.iterdir()):
            gunzip(file)
        (folder / "features.tsv").unlink()
        (folder / "peaks.bed").write_text("\n".join(rows) + "\n")
    write_10x(tmp_path / "rna.h5")
    found = read({"rna": tmp_path / "rna.h5", "atac": outs})
    assert found["atac"].var_names.tolist() == kept["names"]
    np.testing.assert_array_equal(found["atac"].X.toarray(), X.toarray()[:, [2, 4]])
    assert scmamba_scvi.pp.feature_layout(found["atac"].var, patch_size=2).n_placed == 2
    with pytest.raises(ScmambaError, match=r"10x \(Cell Ranger\) file with atac only"):
        read(outs)


def test_a_folder_that_lacks_a_file_or_has_one_of_other_data_says_so(tmp_path):
    write_10x_folder(tmp_path / "cells")
    features = tmp_path / "cells" / "features.tsv.gz"
    features.write_bytes(gzip.compress(b"ENSG1\tA\tGene Expression\n"))
    with pytest.raises(ScmambaError, match="features.tsv.gz has 1 rows, and matrix.mtx.gz beside it 5"):
        read(tmp_path / "cells")
    features.unlink()
    with pytest.raises(ScmambaError, match="cells has a matrix, and no features.tsv.gz beside it"):
        read(tmp_path / "cells")


@pytest.mark.parametrize("form", ["h5", "folder"])
@pytest.mark.parametrize(
    "of", ["outs", "outs/per_sample_outs", "outs/per_sample_outs/S1", "outs/per_sample_outs/S1/count"]
)
def test_what_cell_ranger_multi_writes_is_read(tmp_path, form, of):
    count = tmp_path / "outs" / "per_sample_outs" / "S1" / "count"
    (tmp_path / "outs" / "multi" / "count" / "raw_feature_bc_matrix").mkdir(parents=True)
    count.mkdir(parents=True)
    write = write_10x if form == "h5" else write_10x_folder
    write(count / ("sample_filtered_feature_bc_matrix" + ".h5" * (form == "h5")))
    assert read(tmp_path / of).obs_names.tolist() == BARCODES


def test_the_samples_of_cell_ranger_multi_are_named(tmp_path):
    for sample in ("S2", "S1"):
        count = tmp_path / "per_sample_outs" / sample / "count"
        count.mkdir(parents=True)
        write_10x(count / "sample_filtered_feature_bc_matrix.h5")
    with pytest.raises(
        ScmambaError, match=r"has 2 samples of Cell Ranger: S1, S2. Pass .*per_sample_outs.S1\. .*'Several samples'"
    ):
        read(tmp_path)


def test_the_h5_of_cell_ranger_2_is_read(tmp_path):
    write_10x_v2(tmp_path / "rna.h5")
    write_10x(tmp_path / "both.h5")
    found = read({"rna": tmp_path / "rna.h5", "atac": tmp_path / "both.h5"})
    assert found["rna"].var_names.tolist() == ["A", "B", "A-1"] and found["rna"].obs_names.tolist() == BARCODES
    np.testing.assert_array_equal(found["rna"].X.toarray(), X.toarray()[:, [0, 1, 3]])
    write_10x_v2(tmp_path / "rna.h5", genomes=["GRCh38", "mm10"])
    with pytest.raises(ScmambaError, match="several genomes.*: GRCh38, mm10. .*genome='GRCh38'"):
        read({"rna": tmp_path / "rna.h5", "atac": tmp_path / "both.h5"})


@pytest.mark.parametrize("form", ["h5mu", "zarr", "h5ad", "h5ad_zarr", "two_files"])
def test_a_multiome_in_each_form_is_the_same(tmp_path, multiome, form):
    if form in ("h5mu", "zarr"):
        path = tmp_path / f"cells.{form}"
        getattr(multiome, f"write_{form}" if form == "h5mu" else "write_zarr")(path)
    elif form == "two_files":
        path = {name: tmp_path / f"my_{name}.h5ad" for name in multiome.mod}
        for name, file in path.items():
            multiome[name].write_h5ad(file)
    else:
        path = tmp_path / ("cells.h5ad" if form == "h5ad" else "cells.zarr")
        adata = joined(multiome, ("Gene Expression", "Peaks"))
        adata.write_h5ad(path) if form == "h5ad" else adata.write_zarr(path)
    same(read(path), multiome)


def test_proteins_in_obsm_become_a_modality(tmp_path):
    mdata = simulate_multiome(n_peaks=0, n_cells=40, n_genes=30, n_proteins=6, seed=0)
    adata = mdata["rna"].copy()
    counts = mdata["protein"].X
    counts = counts.toarray() if sparse.issparse(counts) else counts
    adata.obsm["protein_expression"] = pd.DataFrame(counts, index=adata.obs_names, columns=mdata["protein"].var_names)
    adata.write_h5ad(tmp_path / "cite.h5ad")
    found = read(tmp_path / "cite.h5ad")
    assert [*found.mod] == ["rna", "protein"]
    assert found["protein"].var_names.tolist() == mdata["protein"].var_names.tolist()
    np.testing.assert_array_equal(found["protein"].X.toarray(), counts)

    adata.obsm["protein_expression"] = counts  # without names
    adata.write_h5ad(tmp_path / "bare.h5ad")
    with pytest.raises(ScmambaError, match="6 proteins without names"):
        read(tmp_path / "bare.h5ad")
    adata.uns["protein_names"] = ["CD3", "CD3", "CD4", "CD8", "CD19", "CD3"]
    table = pd.DataFrame(counts, adata.obs_names, adata.uns["protein_names"])
    for values in (counts, table):
        adata.obsm["protein_expression"] = values
        with warnings.catch_warnings(action="error", category=UserWarning):
            assert read(adata)["protein"].var_names.tolist() == ["CD3", "CD3-1", "CD4", "CD8", "CD19", "CD3-2"]
    adata.obsm["protein_expression"] = counts
    adata.uns["protein_names"] = mdata["protein"].var_names.to_numpy()
    adata.write_h5ad(tmp_path / "named.h5ad")
    assert read(tmp_path / "named.h5ad")["protein"].var_names.tolist() == mdata["protein"].var_names.tolist()


@pytest.mark.parametrize("key", ["X_umap_adt", "X_pca_protein", "X_readthrough", "readthrough"])
def test_an_embedding_in_obsm_holds_no_counts_of_proteins(multiome, key):
    adata = joined(multiome, ("Gene Expression", "Peaks"))
    adata.obsm[key] = np.ones((adata.n_obs, 2))
    assert [*read(adata).mod] == ["rna", "atac"]


@pytest.mark.parametrize(
    ("key", "dtype"),
    [("protein_counts", "Int64"), ("proteinCounts", "int32"), ("ADT", "int32"), ("antibody_capture", "Int64"), ("denoised_proteins", "int32")],
)  # fmt: skip
def test_counts_of_proteins_are_found_by_a_word_and_of_any_type_of_numbers(multiome, key, dtype):
    adata = multiome["rna"].copy()
    counts = pd.DataFrame(np.arange(80).reshape(40, 2), adata.obs_names, ["CD3", "CD4"])
    adata.obsm[key] = counts.astype(dtype)
    np.testing.assert_array_equal(read(adata)["protein"].X.toarray(), counts)


def test_a_column_of_text_among_the_proteins_is_named(multiome):
    adata = multiome["rna"].copy()
    adata.obsm["protein"] = pd.DataFrame({"CD3": 1, "donor": "d1", "CD4": 2}, adata.obs_names)
    with pytest.raises(ScmambaError, match=r"obsm\['protein'\] is a table.*'donor'. Leave them out") as error:
        read(adata)
    exec(str(error.value).rpartition("out, ")[2].removesuffix("."), {"adata": adata})
    assert read(adata)["protein"].var_names.tolist() == ["CD3", "CD4"]


def test_an_anndata_in_memory_is_split_and_stays_as_it_is(multiome):
    adata = joined(multiome, ("Gene Expression", "Peaks"))
    adata.var_names = ["twice", "twice", *adata.var_names[2:]]
    before = adata.copy()
    found = read(adata)
    assert [*found.mod] == ["rna", "atac"] and (found["atac"].X != multiome["atac"].X).nnz == 0
    assert adata.var_names.equals(before.var_names) and (adata.X != before.X).nnz == 0
    for call in (scmamba_scvi.SCMAMBA.setup_mudata, scmamba_scvi.SCMAMBA.setup_anndata, scmamba_scvi.SCMAMBA):
        with pytest.raises(ScmambaError, match=r"scmamba_scvi.read\(adata\)"):
            call(adata)
        with pytest.raises(ScmambaError, match=r"mudata.MuData\(\{'rna'.*scmamba_scvi.read\(path\)"):
            call(multiome["rna"])


@pytest.mark.parametrize("told_by", ["column", "names", "nothing"])
def test_raw_of_each_modality_holds_its_own_features(tmp_path, multiome, told_by):
    adata = joined(multiome, ("Gene Expression", "Peaks"))
    raw = adata.copy() if told_by == "column" else anndata.AnnData(adata.X.copy(), adata.obs[[]], adata.var[[]])
    kept = np.r_[:20, 30:80] if told_by != "names" else np.arange(80)
    adata.raw = raw
    adata[:, kept].write_h5ad(tmp_path / "cells.h5ad")
    found = read(tmp_path / "cells.h5ad")
    for name, wanted in multiome.mod.items():
        if told_by == "nothing":  # ten genes are in raw only
            assert found[name].raw is None
        else:
            assert found[name].raw.var_names.equals(wanted.var_names)
            assert (found[name].raw.X != wanted.X).nnz == 0
    scmamba_scvi.workflow.write_mudata(found, tmp_path / "cells.h5mu")
    assert adata.raw.shape == (40, 80)


def test_an_anndata_in_memory_is_copied_once():
    """As its parts, and not as a whole before that; a part takes as much again while it is made."""
    counts = sparse.random(2_000, 1_000, 0.5, format="csr", dtype=np.float32, random_state=0)
    adata = anndata.AnnData(counts)
    adata.var["feature_types"] = np.repeat(["Gene Expression", "Peaks"], 500)
    size = counts.data.nbytes + counts.indices.nbytes
    read(adata)  # what is imported on the first call
    tracemalloc.start()
    try:
        read(adata)
        assert tracemalloc.get_traced_memory()[1] < 2 * size
    finally:
        tracemalloc.stop()


def test_genes_and_proteins_of_one_name_keep_it(tmp_path, multiome):
    adata = joined(multiome, ("Gene Expression", "Antibody Capture"))
    adata.var_names = ["CD3", "CD3", *adata.var_names[2:30], "CD3", *adata.var_names[31:]]
    with warnings.catch_warnings():
        # they are within each modality when the user gets them, and mudata's advice would put rna: before every gene
        warnings.filterwarnings("error", "(Variable |var_)names are not unique")
        found = read(adata)
        found.write_h5mu(tmp_path / "cells.h5mu")
        for again in (read(tmp_path / "cells.h5mu"), open_mudata(tmp_path / "cells.h5mu")):
            assert again["protein"].var_names.equals(found["protein"].var_names)
    assert found["rna"].var_names[:2].tolist() == ["CD3", "CD3-1"] and found["protein"].var_names[0] == "CD3"


def test_names_that_repeat_within_a_modality_of_a_file_are_warned_of(tmp_path, multiome):
    """A MuData stays as it is; setup refuses these names."""
    multiome["rna"].var_names = ["CD3", "CD3", *multiome["rna"].var_names[2:]]
    with warnings.catch_warnings(action="ignore"):
        multiome.update()
    multiome.write_h5mu(tmp_path / "cells.h5mu")
    with pytest.warns(UserWarning, match="names are not unique"):
        assert read(tmp_path / "cells.h5mu")["rna"].var_names[1] == "CD3"


@pytest.mark.parametrize(
    "types", [("gene", "peak"), ("Genes", "Peaks"), ("mRNA", "Chromatin Accessibility"), ("gene expression", "ATAC")]
)
def test_plain_words_for_types_of_features_are_known(multiome, types):
    same(read(joined(multiome, types)), multiome)


def test_the_column_that_tells_modalities_apart_is_taken(multiome):
    """Not one of a GTF, where all is a gene."""
    adata = joined(multiome, ("Gene Expression", "Peaks"))
    adata.var["modality"], adata.var["feature_types"] = adata.var["feature_types"], "gene"
    same(read(adata), multiome)


@pytest.mark.parametrize("missing", [None, np.nan, "", "nan"])
def test_a_feature_without_a_type_is_named(multiome, missing):
    """Else it would be a modality of its own, called nan."""
    adata = joined(multiome, ("Gene Expression", "Peaks"))
    adata.var["feature_types"] = adata.var["feature_types"].astype(object)
    adata.var.iloc[-2:, adata.var.columns.get_loc("feature_types")] = missing
    with pytest.raises(ScmambaError, match=f"2 of 80 features have no type.*'{adata.var_names[-2]}': .*'Peaks'"):
        read(adata)


def test_types_of_features_that_are_not_known_are_named_with_those_that_are(tmp_path, multiome):
    adata = joined(multiome, ("Gene Activity", "open windows"))
    says = r"var\['feature_types'\] holds 'Gene Activity', 'open windows', none .* known are 'Gene Expression', 'Peaks', .*"
    renamed = r"replace\(\{'Gene Activity': 'Gene Expression', "
    with pytest.raises(ScmambaError, match=says + renamed) as error:
        read(adata)
    assert "mudata.MuData({'rna': adata, " in str(error.value) and "file" not in str(error.value)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(ScmambaError, match=says + renamed + ".*Name the file of each"):
        read(tmp_path / "cells.h5ad")


def test_an_anndata_that_is_left_in_its_file_is_read(tmp_path, multiome):
    joined(multiome, ("Gene Expression", "Peaks")).write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    same(read(backed), multiome)
    assert backed.isbacked


def test_other_types_of_features_keep_their_name(tmp_path, multiome):
    joined(multiome, ("Gene Expression", "CRISPR Guide Capture")).write_h5ad(tmp_path / "cells.h5ad")
    assert [*read(tmp_path / "cells.h5ad").mod] == ["rna", "CRISPR Guide Capture"]


def test_a_type_of_features_with_a_slash_becomes_a_modality_that_can_be_written(tmp_path, multiome):
    found = read(joined(multiome, ("Gene Expression", "ADT/HTO")))
    assert [*found.mod] == ["rna", "ADT_HTO"]
    scmamba_scvi.workflow.write_mudata(found, tmp_path / "cells.h5mu")
    same(read(tmp_path / "cells.h5mu"), found)


def test_biotypes_of_genes_are_no_types_of_features(tmp_path, multiome):
    """Else proteins would be the genes of type protein_coding, and real ones be left out."""
    rna = multiome["rna"].copy()
    rna.var["feature_type"] = ["protein_coding", "lncRNA", "TEC"] * 10
    rna.obsm["protein"] = pd.DataFrame(np.ones((40, 2)), rna.obs_names, ["CD3", "CD4"])
    rna.write_h5ad(tmp_path / "rna.h5ad")
    found = read(tmp_path / "rna.h5ad")
    assert {name: part.n_vars for name, part in found.mod.items()} == {"rna": 30, "protein": 2}


def test_files_of_the_first_releases_of_mudata_are_read(tmp_path, multiome):
    """They do not say what a modality is."""
    multiome.obs["donor"], multiome.obsm["X_pca"] = "d1", np.ones((multiome.n_obs, 2))
    multiome["rna"].raw = multiome["rna"].copy()
    multiome.write_h5mu(tmp_path / "old.h5mu")
    with h5py.File(tmp_path / "old.h5mu", "a") as file:
        for group in file["mod"].values():
            for name in ("encoding-type", "encoding-version"):
                del group.attrs[name]
    found = read(tmp_path / "old.h5mu")
    for key, wanted in multiome.mod.items():
        assert (found[key].X != wanted.X).nnz == 0
        pd.testing.assert_frame_equal(found[key].var, wanted.var)
    assert (found["rna"].raw.X != multiome["rna"].raw.X).nnz == 0
    assert found.obs["donor"].eq("d1").all() and found.obsm["X_pca"].shape == (multiome.n_obs, 2)
    assert list(found.obs_names) == list(multiome.obs_names)


@pytest.mark.parametrize("form", ["h5mu", "zarr"])
@pytest.mark.parametrize(
    ("part", "matrix"),
    [
        pytest.param("obsm", np.arange(80).reshape(40, 2), id="int"),
        pytest.param("obsm", np.arange(80, dtype=np.uint8).reshape(40, 2), id="uint8"),
        pytest.param("obsm", sparse.csr_matrix(np.arange(80).reshape(40, 2)), id="sparse"),
        pytest.param("varm", np.arange(80)[:, None], id="features"),
        pytest.param("obsp", np.eye(40, dtype=np.uint8), id="graph"),
    ],
)
def test_whole_numbers_beside_the_modalities_are_read(tmp_path, multiome, form, part, matrix):
    """mudata 0.3 would put NaN or -1 where a row is missing, and fails although none is."""
    getattr(multiome, part)["own"] = matrix
    path = tmp_path / f"cells.{form}"
    multiome.write_h5mu(path) if form == "h5mu" else multiome.write_zarr(path)
    for found in (read(path), open_mudata(path)):
        values = getattr(found, part)["own"]
        assert values.dtype == matrix.dtype and (values != matrix).sum() == 0
        assert found.obs_names.equals(multiome.obs_names) and found.obsm["rna"].all()


@pytest.mark.filterwarnings("ignore:.*pull")
def test_matrices_of_a_file_follow_cells_that_were_left_out_of_its_modalities(tmp_path, multiome):
    multiome.obsm["own"] = np.arange(80.0).reshape(40, 2)
    for name in multiome.mod:
        multiome.mod[name] = multiome[name][1:].copy()
    multiome.write_h5mu(tmp_path / "cells.h5mu")
    for found in (read(tmp_path / "cells.h5mu"), open_mudata(tmp_path / "cells.h5mu")):
        assert found.n_obs == 39 and found.obsm["own"][0].tolist() == [2, 3]


def test_no_type_of_features_is_lost_behind_another_of_its_kind(tmp_path, multiome):
    adata = joined(multiome, ("Gene Expression", "rna"))
    with pytest.raises(ScmambaError, match="'Gene Expression' and 'rna' both look like rna"):
        read(adata)


def test_modalities_in_memory_are_put_together_and_stay_as_they_are(tmp_path, multiome):
    rna, atac = multiome["rna"].copy(), multiome["atac"].copy()
    before = rna.copy()
    atac.write_h5ad(tmp_path / "atac.h5ad")
    for other in (atac, tmp_path / "atac.h5ad", anndata.io.read_h5ad(tmp_path / "atac.h5ad", backed="r")):
        found = read({"rna": rna, "atac": other})
        same(found, multiome)
        found["rna"].X[:] = 0
        assert (rna.X != before.X).nnz == 0
    with pytest.raises(ScmambaError, match=r"The AnnData holds \['rna', 'atac'\]: pass it alone, read\(adata\)"):
        read({"gex": joined(multiome, ("Gene Expression", "Peaks")), "atac": atac})
    with pytest.raises(ScmambaError, match="'atac' must be a path or an AnnData; got a list"):
        read({"rna": rna, "atac": [atac]})


@pytest.mark.parametrize(("names", "said"), [([], "none"), (["rna"], "'rna'")])
def test_a_dict_of_less_than_two_modalities_is_refused(multiome, names, said):
    with pytest.raises(ScmambaError, match=f"two modalities are needed.*got {said}"):
        read({name: multiome[name] for name in names})


def test_files_whose_names_were_swapped_are_refused(tmp_path, multiome):
    for name, part in multiome.mod.items():
        part.write_h5ad(tmp_path / f"{name}.h5ad")
    with pytest.raises(ScmambaError, match=r"atac.h5ad holds atac.*'rna'"):
        read({"rna": tmp_path / "atac.h5ad", "atac": tmp_path / "rna.h5ad"})
    assert [*read({"gex": tmp_path / "rna.h5ad", "atac": tmp_path / "atac.h5ad"}).mod] == ["atac", "gex"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("cells.rds", "Seurat.*WriteH5MU", id="seurat"),
        pytest.param("cells.h5seurat", "SeuratDisk", id="seurat_disk"),
        pytest.param("atac_fragments.tsv.gz", "fragments, not counts.*SnapATAC2", id="fragments"),
        pytest.param("cells.loom", "read_loom", id="loom"),
        pytest.param("cells.csv", r"not a file of counts.*h5mu.*read_csv\('.*cells.csv', first", id="text"),
        pytest.param("cells.tsv", r"not a file of counts.*cells.tsv', delimiter='\\t', first", id="text_with_tabs"),
        pytest.param("cells.h5ads", r"SnapATAC2.*to_adata\(\)", id="snapatac2"),
        pytest.param("S1.arrow", "ArchR.*getMatrixFromProject", id="archr"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_way_to_convert_it(tmp_path, name, says):
    (tmp_path / name).write_bytes(b"cell,gene\n")
    with pytest.raises(ScmambaError, match=says):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("cells.h5mu.gz", "is compressed: gunzip it first", id="gzip"),
        pytest.param("cells.tar", "is an archive: unpack it first", id="tar"),
        pytest.param("cells.tar.gz", "is an archive: unpack it first", id="compressed_tar"),
        pytest.param("cells.zip", "is an archive: unpack it first", id="zip"),
        pytest.param("features.tsv.gz", "is one of three files of Cell Ranger", id="cell_ranger"),
        pytest.param("cells.csv.gz", "is not a file of counts", id="compressed_text"),
        pytest.param("zeros", "is not a file of counts", id="zeros"),
    ],
)
def test_what_is_compressed_is_to_be_unpacked_first(tmp_path, multiome, name, says):
    path, whole = tmp_path / name, tmp_path / "cells.h5mu"
    multiome.write_h5mu(whole)
    if name.endswith((".tar", ".tar.gz")):
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
            archive.add(whole)
    elif name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(whole)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(whole.read_bytes() if "h5mu" in name else b"cell,gene\n"))
    else:
        path.write_bytes(bytes(2048))
    with pytest.raises(ScmambaError, match=f"{name} {says}"):
        read(path)


def test_a_file_that_is_not_there_is_named_with_one_that_is(tmp_path):
    write_10x(tmp_path / "filtered_feature_bc_matrix.h5")
    with pytest.raises(ScmambaError, match="There is no file .*Did you mean .*filtered_feature_bc_matrix.h5"):
        read(tmp_path / "filtered_feature_bc_matrx.h5")


@pytest.mark.parametrize("prefix", ["", "GSM123_sample1_"], ids=["file", "GEO"])
def test_files_of_cell_ranger_that_are_not_a_folder_of_it_are_named(tmp_path, prefix):
    write_10x_folder(tmp_path / "cells")
    for file in list((tmp_path / "cells").iterdir()):
        file.rename(file.with_name(prefix + file.name))
    if prefix:
        with pytest.raises(
            ScmambaError, match="GSM123_sample1_matrix.mtx.gz, with.*take 'GSM123_sample1_' off their names"
        ):
            read(tmp_path / "cells")
    else:
        with pytest.raises(ScmambaError, match="one of three files of Cell Ranger: pass their folder, .*cells"):
            read(tmp_path / "cells" / "matrix.mtx.gz")


def test_one_modality_is_not_enough(tmp_path, multiome):
    write_10x(tmp_path / "rna.h5", types=["Gene Expression"] * 5)
    with pytest.raises(ScmambaError, match=r"10x \(Cell Ranger\) file with rna only.*paths=\{'rna'"):
        read(tmp_path / "rna.h5")
    multiome["rna"].write_h5ad(tmp_path / "rna.h5ad")
    with pytest.raises(ScmambaError, match=r"AnnData with .*mudata.MuData\(\{"):
        read(tmp_path / "rna.h5ad")


def test_several_files_need_the_names_of_their_modalities():
    with pytest.raises(ScmambaError, match=r"a dict from modality to path, read\(\{'rna'"):
        read(["a.h5ad", "b.h5ad"])


@pytest.mark.parametrize("form", ["h5mu", "zarr", "h5ad"])
@pytest.mark.parametrize("by", ["csr", "csc"])
def test_sparse_half_precision_is_read(tmp_path, multiome, form, by):
    """scipy of today, and so anndata and mudata, cannot read such a file."""
    expected = {key: part.X.toarray() for key, part in multiome.mod.items()}
    for part in multiome.mod.values():
        part.X, part.layers["counts"] = part.X.asformat(by), part.X.asformat(by, copy=True)
        for x in (part.X, part.layers["counts"]):
            x.data = x.data.astype(np.float16)
        part.obsm["pca"] = np.ones((part.n_obs, 2))
    if form == "h5ad":
        for key, part in multiome.mod.items():
            part.write_h5ad(tmp_path / f"{key}.h5ad")
        paths = {key: tmp_path / f"{key}.h5ad" for key in multiome.mod}
    else:
        paths = tmp_path / f"cells.{form}"
        getattr(multiome, f"write_{form}")(paths)
    found = read(paths)
    for key, x in expected.items():
        for matrix in (found[key].X, found[key].layers["counts"]):
            assert matrix.dtype in (np.float32, np.float16)  # an old scipy reads it as it is
            np.testing.assert_array_equal(matrix.astype(np.float32).toarray(), x)
        assert found[key].obsm["pca"].shape == (len(x), 2)
        assert found[key].var.equals(multiome[key].var) and found[key].obs_names.equals(multiome[key].obs_names)


def test_a_file_that_is_cut_off_or_of_something_else_is_named(tmp_path, multiome):
    multiome.write_h5mu(tmp_path / "cells.h5mu")
    whole = (tmp_path / "cells.h5mu").read_bytes()
    (tmp_path / "cut.h5mu").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ScmambaError, match="cut.h5mu cannot be read"):
        read(tmp_path / "cut.h5mu")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["weights"] = [1]
    with pytest.raises(ScmambaError, match=r"HDF5 file with \['weights'\]"):
        read(tmp_path / "other.h5")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ScmambaError, match="folder without matrix.mtx.gz"):
        read(tmp_path / "folder")


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_a_zarr_of_something_else_is_named_with_the_way_to_its_table(tmp_path, multiome):
    """A SpatialData keeps an AnnData among its images."""
    root = zarr.open_group(tmp_path / "slide.zarr", mode="w", zarr_format=anndata.settings.zarr_write_format)
    root.create_group("images")
    with pytest.raises(
        ScmambaError, match=r"slide.zarr is a zarr with \['images'\], and neither a MuData nor an AnnData"
    ):
        read(tmp_path / "slide.zarr")
    adata = joined(multiome, ("Gene Expression", "Peaks"))
    adata.write_zarr(tmp_path / "slide.zarr" / "tables" / "table")
    root.create_group("tables")
    with pytest.raises(ScmambaError, match="of a SpatialData pass a table: .*slide.zarr.tables.table") as error:
        read(tmp_path / "slide.zarr")
    table = str(error.value).rpartition("table: ")[2].removesuffix(".")
    assert [*read(table).mod] == ["rna", "atac"]
    multiome["rna"].write_zarr(table)
    with pytest.raises(ScmambaError, match="is an AnnData with rna only"):
        read(table)


def test_real_cells_are_read_from_each_form(tmp_path, real_data):
    mdata = read(real_data / "pbmc_multiome_tiny_muon" / "test_rna_atac.h5mu")
    for name in mdata.mod:
        mdata[name].write_h5ad(tmp_path / f"{name}.h5ad")
    found = read({name: tmp_path / f"{name}.h5ad" for name in mdata.mod})
    for name in mdata.mod:
        assert (found[name].X != mdata[name].X).nnz == 0
