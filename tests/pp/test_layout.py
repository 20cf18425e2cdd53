from __future__ import annotations

import json
import re
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mudata import read_h5mu

from scmamba_scvi.data import open_mudata
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.pp import FeatureLayout, feature_layout

CHROMOSOMES = [*(f"chr{i}" for i in range(1, 23)), "chrX", "chrY", "chrM", "GL000194.1", "KI270706.1"]

features = st.lists(
    st.tuples(st.sampled_from([*CHROMOSOMES, ""]), st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=80
)


def frame(rows) -> pd.DataFrame:
    chrom, start, width = (list(column) for column in zip(*rows, strict=True))
    end = [a + w for a, w in zip(start, width, strict=True)]
    return pd.DataFrame({"chrom": chrom, "start": start, "end": end}, index=[f"f{i}" for i in range(len(rows))])


def patches_by_hand(rows, patch_size: int) -> list[list[int]]:
    """Features of every patch, in plain Python."""
    patches = []
    for chrom in [*CHROMOSOMES, ""]:
        here = [i for i, row in enumerate(rows) if row[0] == chrom]
        if chrom:
            here.sort(key=lambda i: (rows[i][1], rows[i][1] + rows[i][2], i))
        n = -(-len(here) // patch_size)
        members: list[list[int]] = [[] for _ in range(n)]
        for j, i in enumerate(here):
            members[j * n // len(here)].append(i)
        patches += members
    return patches


def features_of(layout, patch):
    """Positions in ``var`` of the features of a patch, in their order within it."""
    here = np.flatnonzero(layout.patch_of == patch)
    return here[np.argsort(layout.slots[here])]


@settings(deadline=None)
@given(rows=features, patch_size=st.integers(1, 9))
def test_equals_the_layout_by_hand(rows, patch_size):
    layout = feature_layout(frame(rows), patch_size)
    assert [features_of(layout, c).tolist() for c in range(layout.n_patches)] == patches_by_hand(rows, patch_size)
    assert layout.n_placed == sum(bool(row[0]) for row in rows)


@settings(deadline=None)
@given(rows=features, patch_size=st.integers(1, 9), ordered=st.booleans())
def test_every_feature_has_its_own_slot_and_no_patch_is_empty_or_uneven(rows, patch_size, ordered):
    layout = feature_layout(frame(rows), patch_size, ordered=ordered)
    assert layout.n_features == len(rows) == len(set(layout.slots.tolist()))
    assert layout.slots.min() >= 0 and layout.slots.max() < layout.n_patches * patch_size
    sizes = np.bincount(layout.patch_of, minlength=layout.n_patches)
    assert sizes.min() >= 1 and sizes.max() <= patch_size
    assert len(set(layout.patch_names)) == layout.n_patches
    # offsets of a patch count from 0 without a gap
    for patch in range(layout.n_patches):
        offsets = layout.slots[features_of(layout, patch)] % patch_size
        assert offsets.tolist() == list(range(sizes[patch]))


@settings(deadline=None)
@given(rows=features, patch_size=st.integers(1, 9), ordered=st.booleans())
def test_a_layout_survives_json(rows, patch_size, ordered):
    layout = feature_layout(frame(rows), patch_size, ordered=ordered)
    again = FeatureLayout.from_dict(json.loads(json.dumps(layout.to_dict())))
    assert again == layout
    assert again.summary() == layout.summary()
    assert again.slots.dtype == np.int64


def test_chromosomes_come_in_natural_order_and_unplaced_features_last():
    var = pd.DataFrame(index=[f"{c}:5-90" for c in reversed(CHROMOSOMES)] + ["CD3D"])
    layout = feature_layout(var, 4)
    assert [name.split(":")[0] for name in layout.patch_names] == [*CHROMOSOMES, "unplaced"]
    assert layout.chromosomes == tuple(CHROMOSOMES)


def test_the_name_of_a_patch_reaches_its_largest_end_not_that_of_the_last_feature():
    layout = feature_layout(pd.DataFrame(index=["chr1:1204113-3771645", "chr1:2000000-2000500"]), 2)
    assert layout.patch_names == ("chr1:1,204,113-3,771,645",)


def test_unplaced_features_are_kept_at_the_end_in_the_order_of_var():
    layout = feature_layout(pd.DataFrame(index=["b", "chr2:1-50", "a", "c", "chr1:1-50"]), 2)
    assert layout.patch_names == ("chr1:1-50", "chr2:1-50", "unplaced:1", "unplaced:2")
    assert [features_of(layout, i).tolist() for i in range(4)] == [[4], [1], [0, 2], [3]]
    assert layout.summary() == "2 of 5 features placed on 2 chromosomes, 4 patches of 2"


def test_without_coordinates_var_keeps_its_order_and_the_summary_says_so():
    layout = feature_layout(pd.DataFrame(index=["c", "a", "b"]), 2)
    assert layout.slots.tolist() == [0, 1, 2]
    assert layout.patch_names == ("features:1-2", "features:3-3")
    assert layout.summary() == "no feature has coordinates: 3 features in the order of var, 2 patches of 2"


def test_unordered_reads_no_coordinates_not_even_bad_ones():
    layout = feature_layout(pd.DataFrame(index=["chr9:9-1", "chr1:1-2"]), 2, ordered=False)
    assert layout.slots.tolist() == [0, 1]
    assert repr(layout) == "FeatureLayout(2 features in the order of var, 1 patch of 2)"


@pytest.mark.parametrize(
    ("var", "patch_size", "says"),
    [
        pytest.param(pd.DataFrame(index=["a"]), 0, "patch_size must be at least 1, got 0", id="no_room_in_a_patch"),
        pytest.param(pd.DataFrame(), 4, "at least one feature", id="no_features"),
        pytest.param(pd.DataFrame(index=["a"]), 2**31, "lower patch_size", id="grid_too_large"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(var, patch_size, says):
    with pytest.raises(ScmambaError, match=says):
        feature_layout(var, patch_size)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"slots": [0, 1, 1]}, "share a slot", id="two_features_at_one_slot"),
        pytest.param({"slots": [0, 1, 4]}, "outside 0..3", id="slot_behind_the_grid"),
        pytest.param({"slots": [0, 1, -1]}, "outside 0..3", id="negative_slot"),
        pytest.param({"slots": [0, 1, 2.5]}, "list of whole numbers", id="fraction"),
        pytest.param({"slots": [[0], [1, 2]]}, "cannot be read", id="ragged"),
        pytest.param({"slots": "012"}, "list of whole numbers", id="text_for_slots"),
        pytest.param({"slots": [0, 1, 2**70]}, "list of whole numbers", id="beyond_int64"),
        pytest.param({"patch_names": ["a"]}, "outside 0..1", id="too_few_names"),
        pytest.param({"patch_size": 0}, "at least 1", id="patch_size_0"),
        pytest.param({"patch_size": 10**12}, "lower patch_size", id="patch_size_that_would_fill_the_memory"),
        pytest.param({"n_placed": 4}, "n_placed = 4", id="more_placed_than_there_are"),
        pytest.param({"slots": None}, "list of whole numbers", id="slots_null"),
    ],
)
def test_a_damaged_saved_layout_is_refused(change, says):
    good = {"patch_size": 2, "slots": [0, 1, 2], "patch_names": ["a", "b"], "n_placed": 3, "ordered": True}
    assert FeatureLayout.from_dict(good).n_patches == 2
    with pytest.raises(ScmambaError, match=says):
        FeatureLayout.from_dict(good | change)


@pytest.mark.parametrize("entry", ["patch_size", "slots", "patch_names"])
def test_a_saved_layout_without_an_entry_is_refused(entry):
    saved = feature_layout(pd.DataFrame(index=["a"]), 2).to_dict()
    del saved[entry]
    with pytest.raises(ScmambaError, match=f"cannot be read: .*{entry}"):
        FeatureLayout.from_dict(saved)


def test_equal_features_in_two_patches_have_two_names():
    var = pd.DataFrame({"chrom": "chr1", "start": 5, "end": 9}, index=list("abcd"))
    assert feature_layout(var, 2).patch_names == ("chr1:5-9", "chr1:5-9 (2)")


def test_the_time_for_many_peaks_is_that_of_reading_their_names():
    rng = np.random.default_rng(0)
    start = rng.integers(0, 2 * 10**8, 200_000).tolist()
    chrom = rng.integers(1, 23, len(start)).tolist()
    var = pd.DataFrame(index=[f"chr{c}:{a}-{a + 900}" for c, a in zip(chrom, start, strict=True)])
    begin = time.process_time()
    for name in var.index:
        re.fullmatch(r"(.+)([:_-])(\d+)[_-](\d+)", name)
    names_read = time.process_time()
    layout = feature_layout(var, 256)
    assert layout.n_placed == len(start)
    took, alone = time.process_time() - names_read, names_read - begin
    assert took < 5 * alone


def test_names_and_columns_of_snareseq_give_the_same_layout(real_data):
    mdata = read_h5mu(real_data / "snareseq_mouse_cortex/snareseq_mouse_cortex.h5mu")
    rna, atac = feature_layout(mdata["rna"].var, 64), feature_layout(mdata["atac"].var, 64)
    assert (rna.n_placed, rna.n_features) == (1_648, 1_677)
    assert atac.n_placed == atac.n_features == 25_734
    assert feature_layout(mdata["atac"].var[[]], 64) == atac


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # the file is of an old format
def test_features_of_a_10x_file_are_placed_by_its_intervals(real_data):
    # written before modalities were marked as AnnData: mudata 0.4 cannot read it
    mdata = open_mudata(real_data / "pbmc_multiome_tiny_muon/test_rna_atac.h5mu")
    assert feature_layout(mdata["atac"].var, 16).n_placed == 174
    assert feature_layout(mdata["rna"].var, 16).n_placed == 45


@given(rows=features, max_patches=st.integers(1, 12))
def test_no_more_patches_than_asked_for_but_one_for_each_chromosome(rows, max_patches):
    layout = feature_layout(frame(rows), max_patches=max_patches)
    n_runs = len(patches_by_hand(rows, patch_size=len(rows)))
    assert layout.n_patches <= max(max_patches, n_runs)
    if layout.patch_size > 16:  # shorter ones would be more than asked for
        assert feature_layout(frame(rows), layout.patch_size - 1).n_patches > max(max_patches, n_runs)


def test_a_genome_is_cut_into_at_most_so_many_patches():
    names = [f"chr{c}:{100 * i}-{100 * i + 50}" for c in range(1, 23) for i in range(50 * (24 - c))]
    layout = feature_layout(pd.DataFrame(index=names))
    assert (layout.n_patches, layout.patch_size) == (24, 1050)  # the two longest chromosomes in two parts each
    assert feature_layout(pd.DataFrame(index=names), max_patches=5).n_patches == 22
