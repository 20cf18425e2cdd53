from __future__ import annotations

import itertools
import random

import numpy as np
import pandas as pd
import pytest

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.pp.coordinates import chromosome_key, natural_order, parse_coordinates


def listed(var: pd.DataFrame) -> list[tuple[str, int, int]]:
    where = parse_coordinates(var)
    return list(zip(where.names(), where.start.tolist(), where.end.tolist(), strict=True))


NONE = ("", -1, -1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("chr1:100-200", ("chr1", 100, 200), id="colon"),
        pytest.param("chr1-100-200", ("chr1", 100, 200), id="dashes_of_signac"),
        pytest.param("chr1_100_200", ("chr1", 100, 200), id="underscores"),
        pytest.param("chr1:1,204,113-3,771,645", ("chr1", 1204113, 3771645), id="commas"),
        pytest.param("chr1:100-200-1", ("chr1", 100, 200), id="second_of_one_name"),
        pytest.param("chr1-100-200-1", ("chr1", 100, 200), id="second_of_one_name_with_dashes"),
        pytest.param("chr1_100_200-12", ("chr1", 100, 200), id="second_of_one_name_with_underscores"),
        pytest.param("Super-Scaffold_12-100-900-2", ("Super-Scaffold_12", 100, 900), id="second_on_a_scaffold_with_dash"),
        pytest.param("HLA-A*01:01-100-200", ("HLA-A*01:01", 100, 200), id="colon_in_the_chromosome"),
        pytest.param("chr1:100-200:+", ("chr1", 100, 200), id="strand_of_granges"),
        pytest.param("GL000194.1:3-70", ("GL000194.1", 3, 70), id="scaffold_with_dot"),
        pytest.param("GL000194.1-3-9", ("GL000194.1", 3, 9), id="scaffold_with_dot_and_dashes"),
        pytest.param("chr1_KI270706v1_random_5_9", ("chr1_KI270706v1_random", 5, 9), id="scaffold_with_underscores"),
        pytest.param("chr1_KI270706v1_random:5-9", ("chr1_KI270706v1_random", 5, 9), id="scaffold_with_colon"),
        pytest.param("Super-Scaffold_12-100-900", ("Super-Scaffold_12", 100, 900), id="scaffold_with_dash"),
        pytest.param("HLA-A*01:01:01:01:1-99", ("HLA-A*01:01:01:01", 1, 99), id="colons_in_the_chromosome"),
        pytest.param("2L_100_101", ("2L", 100, 101), id="arm_of_a_fly"),
        pytest.param("chrM:0-0", ("chrM", 0, 0), id="first_base"),
        pytest.param("CD3D", NONE, id="gene"),
        pytest.param("RP11-34P13.7", NONE, id="clone_name"),
        pytest.param("tRNA-Ala-AGC-2-15", NONE, id="numbered_gene"),
        pytest.param("tRNA-Ala-AGC-2-1", NONE, id="numbered_gene_that_runs_backwards"),
        pytest.param("HLA-DRB1", NONE, id="gene_with_one_dash"),
        pytest.param("chr1:abc-200", NONE, id="no_number"),
        pytest.param("chr1:100", NONE, id="one_number"),
        pytest.param("chr1:" + "9" * 30 + "-" + "9" * 31, NONE, id="number_beyond_int64"),
        pytest.param("", NONE, id="empty"),
    ],
)  # fmt: skip
def test_coordinates_are_read_from_names(name, expected):
    assert listed(pd.DataFrame(index=[name])) == [expected]


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param(("chrom", "start", "end"), id="bed"),
        pytest.param(("chromosome", "start", "end"), id="infercnvpy"),
        pytest.param(("seqnames", "start", "end"), id="bioconductor"),
        pytest.param(("chrom", "chromStart", "chromEnd"), id="ucsc"),
        pytest.param(("chromosome_name", "start_position", "end_position"), id="biomart"),
        pytest.param(("Chromosome/scaffold name", "Gene start (bp)", "Gene end (bp)"), id="biomart, web"),
        pytest.param(("Chromosome", "Start", "End"), id="pyranges"),
    ],
)
def test_coordinates_are_read_from_columns_of_any_spelling(columns):
    var = pd.DataFrame([["chr2", 5, 9], ["chr1", 7, 8]], columns=columns, index=["a", "b"])
    assert listed(var) == [("chr2", 5, 9), ("chr1", 7, 8)]


@pytest.mark.parametrize(
    ("chrom", "start", "end"),
    [
        pytest.param("", 1, 2, id="empty_chromosome"),
        pytest.param("NA", 1, 2, id="chromosome_NA"),
        pytest.param(np.nan, 1, 2, id="chromosome_NaN"),
        pytest.param(None, 1, 2, id="chromosome_None"),
        pytest.param("chr1", -1, 2, id="negative_start"),
        pytest.param("chr1", np.nan, 2, id="start_NaN"),
        pytest.param("chr1", "NA", 2, id="start_NA"),
        pytest.param("chr1", 5, np.nan, id="end_NaN"),
        pytest.param("chr1", 5, -1, id="end_negative"),
    ],
)
def test_missing_coordinates_are_no_error(chrom, start, end):
    var = pd.DataFrame({"chrom": ["chr1", chrom], "start": [3, start], "end": [4, end]}, index=["x", "y"])
    assert listed(var) == [("chr1", 3, 4), NONE]


@pytest.mark.parametrize("dtype", ["int32", "float64", "Int64", "string", "object", "category"])
def test_positions_are_read_from_columns_of_any_type(dtype):
    positions = pd.Series([5, 70000], index=["x", "y"]).astype(
        str if dtype in ("string", "object", "category") else dtype
    )
    var = pd.DataFrame({"chrom": pd.Categorical(["1", "2"]), "start": positions.astype(dtype), "end": 80000})
    assert listed(var) == [("1", 5, 80000), ("2", 70000, 80000)]


def test_numeric_chromosomes_with_a_gap_are_read_as_whole_numbers():
    # pandas makes floats of 1, 2 and an empty cell
    var = pd.DataFrame({"chrom": [1.0, np.nan, 2.0], "start": 5, "end": 6}, index=list("abc"))
    assert listed(var) == [("1", 5, 6), NONE, ("2", 5, 6)]


def test_without_an_end_the_start_stands_for_both():
    assert listed(pd.DataFrame({"chrom": ["chr1"], "start": [7]}, index=["a"])) == [("chr1", 7, 7)]


def test_coordinates_are_read_from_the_interval_of_10x():
    var = pd.DataFrame({"interval": ["chr1:5-9", "NA", "", "GL000194.1:1-2"]}, index=list("abcd"))
    assert listed(var) == [("chr1", 5, 9), NONE, NONE, ("GL000194.1", 1, 2)]


def test_columns_before_interval_before_names_feature_by_feature():
    var = pd.DataFrame(
        {
            "chrom": ["chr1", "", ""],
            "start": [1, -1, -1],
            "end": [2, -1, -1],
            "interval": ["chr9:9-9", "chr2:3-4", "NA"],
        },
        index=["chr8:8-8", "chr8:7-7", "chr3:5-6"],
    )
    assert listed(var) == [("chr1", 1, 2), ("chr2", 3, 4), ("chr3", 5, 6)]


def test_chromosomes_with_and_without_chr_are_the_same():
    where = parse_coordinates(pd.DataFrame(index=["1:1-2", "chr1:3-4", "MT:1-2", "chrM:3-4", "Chr2:1-2", "2:3-4"]))
    assert where.chroms == ("chr1", "Chr2", "chrM")
    assert where.chrom.tolist() == [0, 0, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("var", "says"),
    [
        pytest.param(
            pd.DataFrame({"chrom": ["chr1"] * 5, "start": [9] * 5, "end": [10, 3, 4, 5, 6]}, index=list("abcde")),
            r"4 of 5 features end before they start: b \(9-3\), c \(9-4\), d \(9-5\), \.\.\..*Swap start and end",
            id="end_before_start_in_columns",
        ),
        pytest.param(pd.DataFrame(index=["chr1:9-3"]), r"1 of 1 features end before they start: chr1:9-3", id="in_a_name"),
        pytest.param(pd.DataFrame(index=["chr1-9-3"]), r"1 of 1 features end before", id="in_a_name_with_dashes"),
        pytest.param(
            pd.DataFrame({"interval": ["chr1:5-9", "chr1;5;9"]}, index=["a", "b"]),
            r"1 of 2 entries of var\['interval'\] are not intervals: b \('chr1;5;9'\).*'NA'",
            id="malformed_interval",
        ),
        pytest.param(
            pd.DataFrame({"chrom": ["chr1"] * 2, "start": ["5", "five"], "end": 9}, index=["a", "b"]),
            r"1 of 2 entries of var\['start'\] are not positions: b \('five'\)",
            id="start_is_no_number",
        ),
        pytest.param(
            pd.DataFrame({"chrom": ["chr1"], "start": [5], "end": [np.inf]}, index=["a"]),
            r"var\['end'\] are not positions: a \(inf\)",
            id="end_is_infinite",
        ),
    ],
)  # fmt: skip
def test_faults_name_the_features_and_the_way_out(var, says):
    with pytest.raises(ScmambaError, match=says):
        parse_coordinates(var)


def test_chromosomes_come_in_natural_order():
    expected = [
        *(f"chr{i}" for i in range(1, 23)), "chrX", "chrY", "chrM",
        "chr1_KI270706v1_random", "chrUn_GL000195v1", "GL000194.1", "KI270706.1", "scaffold2", "scaffold10",
    ]  # fmt: skip
    shuffled = random.Random(0).sample(expected, len(expected))
    assert sorted(shuffled, key=natural_order)[:25] == expected[:25]
    rest = sorted(shuffled, key=natural_order)[25:]
    assert set(rest) == set(expected[25:])
    assert rest.index("scaffold2") < rest.index("scaffold10")


def test_any_two_names_can_be_compared():
    names = ["1", "2L", "X", "chr", "", "a1b", "ab1", "1a1", "a01b", "9999", "10x_contig", "-", "II", "chrUn_1"]
    for a, b in itertools.permutations(map(natural_order, names), 2):
        assert (a < b) != (b < a)
    assert natural_order("chr1") == natural_order("1")


@pytest.mark.parametrize(
    "names",
    [
        ["atac:chr1:1-200", "atac:chrX:5-300"],
        ["GRCh38_chr1:1-200", "GRCh38_chrX:5-300"],
        ["GRCh38_chr1-1-200", "GRCh38_chrX-5-300"],
        ["peaks:1:1-200", "peaks:X:5-300"],
        ["CHR1:1-200", "chrx:5-300"],
    ],
)
def test_one_prefix_of_all_chromosomes_is_no_part_of_them(names):
    found = parse_coordinates(pd.DataFrame(index=names))
    assert [chromosome_key(name) for name in found.names()] == ["1", "X"]
    assert (found.start.tolist(), found.end.tolist()) == ([1, 5], [200, 300])


def test_chromosomes_of_two_genomes_stay_apart():
    found = parse_coordinates(pd.DataFrame(index=["GRCh38_chr1:1-200", "mm10_chr1:1-200"]))
    assert len(found.chroms) == 2
