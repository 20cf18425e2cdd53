"""Overlaps against every pair compared; builds against what is known of them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.pp._builds import canonical_build, possible_builds, recorded_build
from scmamba_scvi.pp._coordinates import parse_coordinates
from scmamba_scvi.pp._overlap import best_overlaps


def table(intervals):
    return pd.DataFrame(intervals, columns=["chrom", "start", "end"], index=[f"f{i}" for i in range(len(intervals))])


interval = st.tuples(st.sampled_from(["chr1", "chr2", "chrX", ""]), st.integers(0, 60), st.integers(1, 25)).map(
    lambda t: (t[0], t[1], t[1] + t[2])
)


@given(st.lists(interval, min_size=1, max_size=25), st.lists(interval, min_size=1, max_size=25))
def test_the_best_of_all_pairs(query, reference):
    found = best_overlaps(parse_coordinates(table(query)), parse_coordinates(table(reference)))
    for (chrom, start, end), at in zip(query, found, strict=True):
        shared = [min(e, end) - max(s, start) if c == chrom and c else 0 for c, s, e in reference]
        if max(shared) <= 0:
            assert at == -1
        else:
            assert shared[at] == max(shared)
            ties = [reference[i][1] for i, n in enumerate(shared) if n == max(shared)]
            assert reference[at][1] == min(ties)


def test_chromosomes_are_the_same_with_and_without_chr():
    found = best_overlaps(parse_coordinates(table([("1", 0, 50)])), parse_coordinates(table([("chr1", 40, 90)])))
    assert found.tolist() == [0]


def test_neighbours_that_touch_share_nothing():
    found = best_overlaps(parse_coordinates(table([("chr1", 0, 50)])), parse_coordinates(table([("chr1", 50, 90)])))
    assert found.tolist() == [-1]


@pytest.mark.parametrize(
    ("name", "build"), [("GRCh38", "hg38"), ("hg38.p13", "hg38"), ("GRCm39", "mm39"), ("b37", "hg19"), ("dm6", "dm6")]
)
def test_spellings_of_a_build(name, build):
    assert canonical_build(name) == build


def test_coordinates_rule_builds_out():
    # 64.4 Mb on chromosome 20 lie beyond its end in hg19, and no mouse has one
    assert possible_builds(parse_coordinates(table([("chr20", 64_000_000, 64_400_000)]))) == ["hg38"]
    assert possible_builds(parse_coordinates(table([("chr8", 130_000_000, 130_100_000), ("chr1", 1, 9)]))) == [
        "hg19", "hg38", "mm9", "mm39",
    ]  # fmt: skip
    assert possible_builds(parse_coordinates(table([("", 1, 2)]))) == []


def test_what_data_say_of_their_build():
    var = pd.DataFrame({"genome": ["GRCh38", "GRCh38", None]})
    assert recorded_build({}, var, "x") == "hg38" and recorded_build({}, None, "x") is None
    assert recorded_build({"genome": "hg38"}, var, "x") == "hg38"
    with pytest.raises(ScmambaError, match="several genomes.*hg19.*hg38"):
        recorded_build({"genome": "hg19"}, var, "x")


def test_a_million_intervals_in_one_pass():
    rng = np.random.default_rng(0)
    n = 200_000
    start = np.sort(rng.integers(0, 200_000_000, n))
    one = pd.DataFrame({"chrom": "chr1", "start": start, "end": start + 500})
    other = one.assign(start=one["start"] + 100, end=one["end"] + 100)
    found = best_overlaps(parse_coordinates(other), parse_coordinates(one))
    assert (found >= 0).all() and (found == np.arange(n)).mean() > 0.5
