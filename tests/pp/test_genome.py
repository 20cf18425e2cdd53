from __future__ import annotations

import gzip
import logging
import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData, read_h5mu

from scmamba_scvi._compat import without_pulling
from scmamba_scvi.errors import ScmambaError, UnknownNameError
from scmamba_scvi.pp import annotate_genome, feature_layout

GTF = """\
#!genome-build GRCh38
chr11\tHAVANA\tgene\t118338954\t118342744\t.\t-\t.\tgene_id "ENSG00000167286.9"; gene_type "x"; gene_name "CD3D";
chr11\tHAVANA\ttranscript\t118338954\t118342744\t.\t-\t.\tgene_id "ENSG00000167286.9"; gene_name "CD3D";
chr19\tHAVANA\tgene\t35329187\t35347361\t.\t+\t.\tgene_id "ENSG00000012124.17"; gene_name "CD22";
chrX\tHAVANA\tgene\t1268814\t1310381\t.\t+\t.\tgene_id "ENSG00000198223.16"; gene_name "CSF2RA";
chrY\tHAVANA\tgene\t1268814\t1310381\t.\t+\t.\tgene_id "ENSG00000198223.16_PAR_Y"; gene_name "CSF2RA";
GL000194.1\tHAVANA\tgene\t1\t100\t.\t+\t.\tgene_id "ENSG00000277400.1"; gene_name "CD22";
"""
#: 0-based and half-open, as in BED
CD3D, CD22, CSF2RA = ("chr11", 118338953, 118342744), ("chr19", 35329186, 35347361), ("chrX", 1268813, 1310381)
NONE = ("", -1, -1)


def cells(names, **columns) -> AnnData:
    return AnnData(np.zeros((2, len(names)), dtype=np.float32), var=pd.DataFrame(columns, index=names))


def listed(adata: AnnData) -> list[tuple[str, int, int]]:
    var = adata.var
    return list(zip(var["chrom"].astype(str), var["start"].tolist(), var["end"].tolist(), strict=True))


@pytest.fixture
def gtf(tmp_path):
    path = tmp_path / "genes.gtf"
    path.write_text(GTF)
    return path


@pytest.mark.parametrize(
    ("names", "columns", "expected", "counted"),
    [
        pytest.param(["CD3D", "none"], {}, [CD3D, NONE], "n_by_name", id="by_name"),
        pytest.param(["Cd3d", "none"], {}, [CD3D, NONE], "n_by_name", id="by_name_in_another_case"),
        pytest.param(["ENSG00000167286", "none"], {}, [CD3D, NONE], "n_by_id", id="by_id_as_name"),
        pytest.param(["ENSG00000167286.2", "none"], {}, [CD3D, NONE], "n_by_id", id="by_id_of_another_version"),
        pytest.param(["x", "y"], {"gene_ids": ["ENSG00000167286", "z"]}, [CD3D, NONE], "n_by_id", id="by_10x_column"),
        pytest.param(["x", "y"], {"feature_name": ["CD3D", "z"]}, [CD3D, NONE], "n_by_name", id="by_cellxgene_column"),
        pytest.param(["GRCh38_CD3D", "GRCh38_none"], {}, [CD3D, NONE], "n_by_name", id="by_name_behind_a_genome"),
        pytest.param(["rna:CD3D", "rna:none"], {}, [CD3D, NONE], "n_by_name", id="by_name_behind_a_modality"),
        pytest.param(["HLA:none", "CD3D"], {}, [NONE, CD3D], "n_by_name", id="colon_in_some_names"),
        pytest.param(
            ["x", "y"],
            {"gene_ids": ["hg19___ENSG00000167286", ""]},
            [CD3D, NONE],
            "n_by_id",
            id="by_id_behind_a_genome",
        ),
        pytest.param(["CD22", "y"], {"gene_ids": ["ENSG00000167286", "z"]}, [CD3D, NONE], "n_by_id", id="id_before_name"),
    ],
)  # fmt: skip
def test_a_gene_is_found_by_id_then_by_name(gtf, names, columns, expected, counted):
    adata = cells(names, **columns)
    coverage = annotate_genome(adata, gtf)
    assert listed(adata) == expected
    assert getattr(coverage, counted) == coverage.n_placed == 1


def test_genes_of_two_species_are_not_taken_for_each_other(gtf):
    adata = cells(["GRCh38_CD3D", "mm10_Cd3d", "CD22"])
    annotate_genome(adata, gtf)
    assert listed(adata) == [NONE, NONE, CD22]


def test_several_loci_take_the_first_chromosome_and_are_counted(gtf, caplog):
    adata = cells(["CD22", "CSF2RA", "CD3D"])
    with caplog.at_level(logging.INFO, logger="scmamba_scvi"):
        coverage = annotate_genome(adata, gtf)
    assert listed(adata) == [CD22, CSF2RA, CD3D]  # before the contig, and X before Y
    assert coverage.n_ambiguous == 2
    assert "2 lie at several loci" in caplog.text


def test_order_of_the_annotation_does_not_matter(tmp_path):
    head, *records = GTF.strip().split("\n")
    (tmp_path / "backwards.gtf").write_text("\n".join([head, *reversed(records)]))
    adata = cells(["CD22", "CSF2RA"])
    annotate_genome(adata, tmp_path / "backwards.gtf")
    assert listed(adata) == [CD22, CSF2RA]


def test_a_gzipped_gtf_is_recognised_whatever_its_name(tmp_path):
    path = tmp_path / "genes.gtf.download"
    path.write_bytes(gzip.compress(GTF.encode()))
    adata = cells(["CD3D"])
    annotate_genome(adata, path)
    assert listed(adata) == [CD3D]


def test_gff3_is_read_like_gtf(tmp_path):
    path = tmp_path / "genes.gff3"
    path.write_text("11\thavana\tgene\t118338954\t118342744\t.\t-\t.\tID=gene:ENSG00000167286;Name=CD3D;biotype=x\n")
    adata = cells(["CD3D", "ENSG00000167286"])
    coverage = annotate_genome(adata, path)
    assert listed(adata) == [("11", *CD3D[1:])] * 2
    assert (coverage.n_by_id, coverage.n_by_name) == (1, 1)


@pytest.mark.parametrize("record", ["ncRNA_gene", "pseudogene"])
def test_genes_without_a_protein_are_genes_in_ensembl_s_gff3(tmp_path, record):
    path = tmp_path / "genes.gff3"
    path.write_text(
        f"11\thavana\t{record}\t118338954\t118342744\t.\t-\t.\tID=gene:ENSG00000167286;Name=CD3D;biotype=x\n"
    )
    adata = cells(["CD3D"])
    annotate_genome(adata, path)
    assert listed(adata) == [("11", *CD3D[1:])]


@pytest.mark.parametrize("form", ["genes.gtf", "genes.gtf.gz", "genes.csv"])
def test_a_mark_of_utf_8_before_the_text_is_not_part_of_it(tmp_path, form):
    text = ("\ufeff" + (TABLE.to_csv(index=False) if "csv" in form else GTF.partition("\n")[2])).encode()
    (tmp_path / form).write_bytes(gzip.compress(text) if form.endswith("gz") else text)
    adata = cells(["CD3D"])
    annotate_genome(adata, tmp_path / form)
    assert listed(adata) == [CD3D]


TABLE = pd.DataFrame(
    {"gene_name": ["CD3D", "CD22"], "gene_id": ["ENSG00000167286", "ENSG00000012124"], "chrom": ["chr11", "chr19"],
     "start": [118338953, 35329186], "end": [118342744, 35347361], "strand": ["-", "+"]}
)  # fmt: skip


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".tsv", ".txt.gz"])
def test_tables_are_read_from_files(tmp_path, ending):
    TABLE.to_csv(tmp_path / f"genes{ending}", index=False, sep="," if "csv" in ending else "\t")
    adata = cells(["CD3D", "ENSG00000012124.3"])
    annotate_genome(adata, tmp_path / f"genes{ending}")
    assert listed(adata) == [CD3D, CD22]
    assert adata.var["strand"].tolist() == ["-", "+"]


def test_genes_of_another_species_are_doubted():
    """CD3D of human and Cd3d of mouse are two genes at two places, though names that differ in case may be one."""
    of_mouse = AnnData(np.ones((1, 3)), var=pd.DataFrame(index=["Cd3d", "Cd19", "Xist"]))
    table = pd.DataFrame({"gene_name": ["CD3D", "CD19"], "chrom": "chr1", "start": [1, 2], "end": [5, 6]})
    with pytest.warns(UserWarning, match="2 of 3 genes were found only by ignoring case.*'Cd3d'.*'CD3D'.*species"):
        assert annotate_genome(of_mouse, table).n_by_name == 2
    of_mouse.var_names = ["CD3D", "Cd19", "Xist"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert annotate_genome(of_mouse, table, overwrite=True).n_by_name == 2


@pytest.mark.parametrize("strand", [[-1, 1], [-1.0, 1.0], ["-1", "1"]])
def test_strands_of_ensembl_are_understood(strand):
    names = {"chrom": "chromosome_name", "start": "start_position", "end": "end_position"}  # of BioMart
    adata = cells(["CD3D", "CD22"])
    annotate_genome(adata, TABLE.rename(columns=names).assign(strand=strand))
    assert adata.var["strand"].tolist() == ["-", "+"]


OF_BIOMART = ["Gene stable ID", "Gene name", "Chromosome/scaffold name", "Gene start (bp)", "Gene end (bp)", "Strand"]


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param(OF_BIOMART, id="web"),
        pytest.param([name.replace(" ", "_") for name in OF_BIOMART], id="web_with_underscores"),
        pytest.param(
            ["ensembl_gene_id", "external_gene_name", "chromosome_name", "start_position", "end_position", "strand"],
            id="biomaRt",
        ),
    ],
)
def test_tables_of_biomart_are_understood(tmp_path, columns):
    TABLE[["gene_id", "gene_name", "chrom", "start", "end", "strand"]].set_axis(columns, axis=1).to_csv(
        tmp_path / "mart_export.txt", sep="\t", index=False
    )
    adata = cells(["CD3D", "ENSG00000012124.3"])
    assert annotate_genome(adata, tmp_path / "mart_export.txt").n_by_name == 1
    assert listed(adata) == [CD3D, CD22]
    assert adata.var["strand"].tolist() == ["-", "+"]


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(TABLE, id="all_columns"),
        pytest.param(TABLE.drop(columns="gene_id"), id="without_ids"),
        pytest.param(TABLE.drop(columns="gene_id").set_index("gene_name"), id="names_in_the_index"),
        pytest.param(TABLE.rename(columns={"chrom": "chromosome", "gene_name": "symbol"}), id="other_spellings"),
        pytest.param(pd.concat([TABLE, TABLE.assign(chrom=np.nan)]), id="with_rows_that_say_nothing"),
    ],
)
def test_tables_are_read_from_memory(table):
    adata = cells(["CD3D", "CD22"])
    annotate_genome(adata, table)
    assert listed(adata) == [CD3D, CD22]


def test_coordinates_that_are_there_stay(gtf):
    adata = cells(["CD3D", "CD22", "chr1:5-9"], interval=["chr7:1-2", "NA", "NA"])
    coverage = annotate_genome(adata, gtf)
    assert listed(adata) == [("chr7", 1, 2), CD22, ("chr1", 5, 9)]
    assert (coverage.n_kept, coverage.n_placed) == (2, 3)


def test_overwrite_replaces_what_is_found_and_nothing_else(gtf):
    adata = cells(["CD3D", "CD22", "chr1:5-9"], interval=["chr7:1-2", "NA", "NA"])
    coverage = annotate_genome(adata, gtf, overwrite=True)
    assert listed(adata) == [CD3D, CD22, ("chr1", 5, 9)]
    assert (coverage.n_kept, coverage.n_placed) == (1, 3)
    assert feature_layout(adata.var, 2).patch_names[0] == "chr1:5-9"


def test_only_coordinates_and_strand_are_written(gtf):
    adata = cells(["CD3D"], gene_ids=["x"])
    annotate_genome(adata, gtf)
    assert list(adata.var) == ["gene_ids", "strand", "chrom", "start", "end"]
    assert not adata.uns


def test_coverage_is_logged_once(gtf, caplog):
    with caplog.at_level(logging.INFO, logger="scmamba_scvi"):
        annotate_genome(cells(["CD3D", "Cd22", "none"]), gtf)
    (record,) = caplog.records
    assert record.message.startswith("2 of 3 genes have coordinates: 0 by id, 2 by name, 0 had them")


def mudata_of(**modalities) -> MuData:
    with without_pulling():
        return MuData(modalities)


@pytest.mark.parametrize("key", ["rna", "GEX", "expression"])
def test_the_modality_is_found_by_key(gtf, key):
    mdata = mudata_of(**{key: cells(["CD3D"]), "atac": cells(["chr1:1-2"])})
    annotate_genome(mdata, gtf)
    assert listed(mdata[key]) == [CD3D]
    assert "chrom" not in mdata["atac"].var


def test_the_modality_is_found_by_feature_types(gtf):
    mdata = mudata_of(a=cells(["p"], feature_types=["Peaks"]), b=cells(["CD3D"], feature_types=["Gene Expression"]))
    annotate_genome(mdata, gtf)
    assert listed(mdata["b"]) == [CD3D]


def test_the_modality_can_be_named(gtf):
    mdata = mudata_of(rna=cells(["x"]), other=cells(["CD3D"]))
    annotate_genome(mdata, gtf, modality="other")
    assert listed(mdata["other"]) == [CD3D]


def test_a_modality_that_cannot_be_found_is_refused(gtf):
    with pytest.raises(ScmambaError, match="No modality of .* name it"):
        annotate_genome(mudata_of(a=cells(["CD3D"]), b=cells(["x"])), gtf)
    with pytest.raises(ScmambaError, match="More than one modality"):
        annotate_genome(mudata_of(rna=cells(["CD3D"]), gex=cells(["x"])), gtf)
    with pytest.raises(UnknownNameError, match="Known: 'rna'"):
        annotate_genome(mudata_of(rna=cells(["CD3D"])), gtf, modality="gene")
    with pytest.raises(ScmambaError, match="leave it out"):
        annotate_genome(cells(["CD3D"]), gtf, modality="rna")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        pytest.param("genes.gtf", "gene,chrom\nCD3D,chr11\n", "is not a GTF file: line 1.*'gene,chrom", id="table_called_gtf"),
        pytest.param("genes.gtf", GTF.replace("\tgene\t", "\tCDS\t"), "no 'gene' records", id="no_gene_records"),
        pytest.param("genes.gtf", "", "no 'gene' records", id="empty"),
        pytest.param("genes.gtf", b"\x1f\x8b\x00broken", "cannot be read", id="broken_gzip"),
        pytest.param("genes.gtf", b"\x89PNG\xff\xfe", "cannot be read", id="binary"),
        pytest.param("genes.csv", "", "genes.csv cannot be read as a table", id="empty_table"),
        pytest.param("genes.csv", b"gene,chrom,start,end\nC\xe9D,chr1,1,9\n", "genes.csv cannot be read as a table", id="latin_1"),
        pytest.param("genes.csv.gz", b"\x1f\x8b\x00broken", "genes.csv.gz cannot be read as a table", id="broken_table"),
        pytest.param("genes.csv", "a,b\n1,2\n", "must have columns gene_name", id="table_without_columns"),
        pytest.param("genes.csv", "gene,chrom,start,end\nCD3D,chr1,x,9\n", "not positions: CD3D .'x'", id="text_start"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_an_annotation_is_refused(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    adata = cells(["CD3D"])
    with pytest.raises(ScmambaError, match=says):
        annotate_genome(adata, tmp_path / name)
    assert not list(adata.var)


@pytest.mark.parametrize("name", ["genes.gtf.gz", "genes.csv.gz"])
def test_a_compressed_file_that_is_damaged_within_is_refused(tmp_path, name):
    packed = bytearray(gzip.compress(GTF.encode()))
    packed[10:60] = b"\xff" * 50  # behind the header
    (tmp_path / name).write_bytes(packed)
    with pytest.raises(ScmambaError, match=f"{name} cannot be read"):
        annotate_genome(cells(["CD3D"]), tmp_path / name)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ScmambaError, match="There is no file"):
        annotate_genome(cells(["CD3D"]), tmp_path / "nothing.gtf")
    with pytest.raises(ScmambaError, match="is a folder: name a file"):
        annotate_genome(cells(["CD3D"]), tmp_path)


def test_an_annotation_without_any_match_is_refused_with_examples_of_both(gtf):
    with pytest.raises(ScmambaError, match=r"'Xkr4', 'Rp1'.*'CD3D'.*ENSG00000167286.*species"):
        annotate_genome(cells(["Xkr4", "Rp1"]), gtf)


def test_the_mouse_table_gives_the_coordinates_of_snareseq_genes(real_data):
    mdata = read_h5mu(real_data / "snareseq_mouse_cortex/snareseq_mouse_cortex.h5mu")
    known = mdata["rna"].var.copy()
    coverage = annotate_genome(mdata, real_data / "gene_annotation/mm10_genes_archr.csv.gz", overwrite=True)
    assert coverage.n_placed == 1_648
    assert listed(mdata["rna"]) == list(
        zip(known["chrom"].astype(str), known["start"].tolist(), known["end"].tolist(), strict=True)
    )
