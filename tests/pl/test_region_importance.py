from __future__ import annotations

import io
import itertools

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scmamba_scvi import pl

#: Lengths of the human chromosomes in megabases; those from 19 on are shorter than two digits are wide.
MEGABASES = {
    "1": 248, "2": 242, "3": 198, "4": 190, "5": 182, "6": 171, "7": 159, "8": 145, "9": 138, "10": 134, "11": 135,
    "12": 133, "13": 114, "14": 107, "15": 102, "16": 90, "17": 83, "18": 80, "19": 59, "20": 64, "21": 47, "22": 51,
    "X": 156, "Y": 57, "M": 0.02,
}  # fmt: skip


def test_names_of_chromosomes_do_not_touch():
    ends = (1e6 * np.array(list(MEGABASES.values()))).astype(int)
    table = pd.DataFrame({
        "group": "a", "name": [f"peak of {c}" for c in MEGABASES], "chrom": [f"chr{c}" for c in MEGABASES],
        "start": ends - 1000, "end": ends, "importance": np.linspace(0.1, 1, len(ends)),
    })  # fmt: skip
    (ax,) = pl.region_importance(table, figure=Figure())
    FigureCanvasAgg(ax.figure).draw()
    labels = sorted(ax.get_xticklabels(), key=lambda label: label.get_position()[0])
    names = [label.get_text() for label in labels]
    assert {*map(str, range(1, 19)), "X", "Y"} <= set(names) <= set(MEGABASES)
    boxes = [label.get_window_extent() for label in labels]
    assert all(b.x0 - a.x1 >= 1 for a, b in itertools.pairwise(boxes))


def test_a_file_written_as_csv_draws_the_same_also_a_group_without_places():
    table = pd.DataFrame({
        "group": list("0001112"), "name": list("abcdefg"), "chrom": ["chr1", "chr2", "", "chr1", "chr2", "", ""],
        "start": [1, 5, -1] * 2 + [-1], "end": [4, 9, -1] * 2 + [-1], "importance": np.arange(7.0),
    })  # fmt: skip
    read = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert read["group"].dtype == int and read["chrom"].isna().sum() == 3
    for given in (table, read):
        axes = pl.region_importance(given, figure=Figure())
        assert [ax.get_ylabel() for ax in axes] == ["0", "1", "2"]
        assert [[text.get_text() for text in ax.texts] for ax in axes] == [["b"], ["e", "d"], []]


def test_long_names_of_groups_leave_the_axes_their_width_and_what_is_unknown_is_left_out():
    long = [
        "naive thymus-derived CD4-positive, alpha-beta T cell",
        "naive thymus-derived CD8-positive, alpha-beta T cell",
    ]
    table = pd.DataFrame({
        "group": np.repeat(long, 3), "name": list("abcdef"), "chrom": "chr1", "start": range(6), "end": range(1, 7),
        "importance": [0.1, np.nan, 0.3, 0.2, 0.5, 0.4],
    })  # fmt: skip
    axes = pl.region_importance(table, figure=Figure())
    FigureCanvasAgg(axes[0].figure).draw()
    labels = [ax.get_ylabel() for ax in axes]
    assert len(set(labels)) == 2
    assert all(ax.yaxis.label.get_window_extent().width < 0.25 * ax.get_window_extent().width for ax in axes)
    assert all(np.isfinite(ax.get_ylim()).all() for ax in axes)
