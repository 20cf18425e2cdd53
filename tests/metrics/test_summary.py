from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import overall_scores


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "ARI": [0.2, 0.6, 0.4],
            "MAP": [0.9, 0.9, 0.9],
            "omics mixing": [0.5, 0.1, 0.3],
            "graph connectivity": [1.0, 0.8, 0.9],
            "FOSCTTM": 0.1,
        },
        index=["one", "two", "three"],
    )


def test_parts_are_means_and_the_overall_score_weighs_them(table):
    ours = overall_scores(table)
    np.testing.assert_allclose(ours["bio"], [0.55, 0.75, 0.65])
    np.testing.assert_allclose(ours["omics"], [0.75, 0.45, 0.6])
    np.testing.assert_allclose(ours["overall"], 0.6 * ours["bio"] + 0.4 * ours["omics"])
    assert ours.index.equals(table.index)


def test_minmax_scales_each_score_and_puts_ties_in_the_middle(table):
    ours = overall_scores(table, "minmax")
    np.testing.assert_allclose(ours["bio"], [(0 + 0.5) / 2, (1 + 0.5) / 2, 0.5])  # all tie on MAP
    np.testing.assert_allclose(ours["omics"], [1, 0, 0.5], atol=1e-12)
    rounding = overall_scores(table.assign(MAP=[0.9, 0.9 + 1e-15, 0.9 - 1e-15]), "minmax")
    np.testing.assert_allclose(rounding["bio"], ours["bio"])
    every_tie = overall_scores(table.assign(**{"ARI": 0.3, "omics mixing": 0.2, "graph connectivity": 0.7}), "minmax")
    assert (every_tie == 0.5).all().all()


def test_scores_may_stand_below_their_groups(table):
    grouped = pd.concat({"group": table}, axis=1)
    pd.testing.assert_frame_equal(overall_scores(grouped), overall_scores(table))


def test_a_score_missing_everywhere_is_left_out_and_one_missing_somewhere_gives_nan(table):
    pd.testing.assert_frame_equal(overall_scores(table.assign(NMI=np.nan)), overall_scores(table))
    for scale in (None, "minmax"):
        lacking = overall_scores(table.assign(ARI=[0.2, np.nan, 0.4]), scale)
        assert lacking.isna().sum().tolist() == [1, 0, 1]
        assert lacking.loc["two", ["bio", "overall"]].isna().all()
    tie = overall_scores(table.assign(MAP=[0.9, 0.9, np.nan]), "minmax")
    assert tie["bio"].isna().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("change", "scale", "message"),
    [
        pytest.param(lambda t: t.iloc[:1], "minmax", "needs at least two; got 1", id="one_method"),
        pytest.param(lambda t: t[["ARI"]], None, "score of omics", id="no_omics"),
        pytest.param(lambda t: t.drop(columns=["ARI", "MAP"]), None, "score of bio; expected one of ARI", id="no_bio"),
        pytest.param(
            lambda t: t.assign(**{"graph connectivity": np.inf}),
            None,
            "omics is infinite: graph connectivity",
            id="infinite",
        ),
        pytest.param(
            lambda t: t.assign(**{"graph connectivity": "high"}),
            None,
            "omics is not a number, in graph connectivity: .*'high'",
            id="text",
        ),
        pytest.param(lambda t: t, "zscore", "Unknown scale", id="unknown_scale"),
    ],
)
def test_tables_that_cannot_be_summarised_are_refused(table, change, scale, message):
    with pytest.raises(ScmambaError, match=message):
        overall_scores(change(table), scale)


def test_one_method_alone_gets_unscaled_scores(table):
    assert overall_scores(table.iloc[:1])["overall"].item() == pytest.approx(0.6 * 0.55 + 0.4 * 0.75)
