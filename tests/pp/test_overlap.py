"""Best overlaps, compared with a search of all pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from scmamba_scvi.pp.coordinates import parse_coordinates
from scmamba_scvi.pp.overlap import best_overlaps


def table(intervals):
    return pd.DataFrame(intervals, columns=["chrom", "start", "end"], index=[f"f{i}" for i in range(len(intervals))])


interval = st.tuples(st.sampled_from(["chr1", "chr2", "chrX", ""]), st.integers(0, 60), st.integers(1, 25)).map(
    lambda t: (t[0], t[1], t[1] + t[2])
)


@given(st.lists(interval, min_size=1, max_size=25), st.lists(interval, min_size=1, max_size=25))
def test_equals_a_search_of_all_pairs(query, reference):
    found = best_overlaps(parse_coordinates(table(query)), parse_coordinates(table(reference)))
    for (chrom, start, end), at in zip(query, found, strict=True):
        shared = [min(e, end) - max(s, start) if c == chrom and c else 0 for c, s, e in reference]
        if max(shared) <= 0:
            assert at == -1
        else:
            assert shared[at] == max(shared)
            ties = [(e - s, s) for (_, s, e), n in zip(reference, shared, strict=True) if n == max(shared)]
            assert (reference[at][2] - reference[at][1], reference[at][1]) == min(ties)


def test_an_interval_finds_itself_inside_of_a_longer_one():
    intervals = table([("chr1", 10, 90), ("chr1", 40, 60), ("chr1", 40, 80)])
    assert best_overlaps(*[parse_coordinates(intervals)] * 2).tolist() == [0, 1, 2]


def test_chromosomes_are_the_same_with_and_without_chr():
    found = best_overlaps(parse_coordinates(table([("1", 0, 50)])), parse_coordinates(table([("chr1", 40, 90)])))
    assert found.tolist() == [0]


def test_neighbours_that_touch_share_nothing():
    found = best_overlaps(parse_coordinates(table([("chr1", 0, 50)])), parse_coordinates(table([("chr1", 50, 90)])))
    assert found.tolist() == [-1]


def test_two_hundred_thousand_intervals_find_the_nearest():
    rng = np.random.default_rng(0)
    start = np.sort(rng.integers(0, 200_000_000, 200_000))
    reference = pd.DataFrame({"chrom": "chr1", "start": start, "end": start + 500})
    query = reference.assign(start=reference["start"] + 100, end=reference["end"] + 100)
    found = best_overlaps(parse_coordinates(query), parse_coordinates(reference))
    # each shares 400 bases with the one it was made of, so what it finds is at most as far from it
    assert (found >= 0).all() and (np.abs(start[found] - query["start"]) <= 100).all()
