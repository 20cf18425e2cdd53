from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scmamba_scvi import pl
from scmamba_scvi.errors import ScmambaError


@pytest.fixture
def table():
    """Links are stronger near the start of transcription; some pairs have no score."""
    rng = np.random.default_rng(0)
    distance = rng.integers(-200_000, 200_000, 1000)
    z = rng.normal(size=1000) + 4 * np.exp(-np.abs(distance) / 20_000)
    z[::50] = np.nan
    return pd.DataFrame({
        "gene": [f"GENE{i % 40}" for i in range(1000)], "peak": [f"chr1:{i}-{i + 1}" for i in range(1000)],
        "distance": distance, "z": z, "q": np.where(z > 3, 0.01, 0.8),
    })  # fmt: skip


def draw(table, **options):
    ax = pl.region_links(table, figure=Figure(), **options)
    FigureCanvasAgg(ax.figure).draw()
    return ax


def test_pairs_are_split_by_their_false_discovery_rate(table):
    ax = draw(table, q=0.1)
    grey, coloured = (collection.get_offsets() for collection in ax.collections[:2])
    known = table[table["z"].notna()]
    sure = known[known["q"] <= 0.1]
    np.testing.assert_array_equal(coloured, sure[["distance", "z"]])
    assert len(grey) + len(coloured) == len(known)
    assert f"{len(sure):,} of {len(known):,} pairs with q ≤ 0.1" in ax.get_legend().get_texts()[0].get_text()


def test_a_few_pairs_among_very_many_can_be_seen(table):
    table = pd.concat([table.assign(q=0.8), table.assign(q=0.8).sample(50_000, replace=True, random_state=0)])
    table.iloc[:1, table.columns.get_loc("q")] = table.iloc[:1, table.columns.get_loc("z")] = 0.01
    grey, coloured = draw(table).collections[:2]
    assert coloured.get_sizes() > 9 > 2 > grey.get_sizes()  # square points


def test_the_line_is_the_mean_of_pairs_at_a_distance(table):
    (line,) = (line for line in draw(table).lines if line.get_label() == "mean of pairs")
    at, mean = line.get_data()
    assert (np.diff(at) > 0).all() and mean[np.abs(at).argmin()] > mean[[0, -1]].max() + 1
    known = table.dropna()
    assert mean.mean() == pytest.approx(known["z"].mean(), abs=0.05)


def test_the_best_genes_are_named_once(table):
    names = [text.get_text() for text in draw(table).texts]
    assert len(names) == len(set(names)) == 4
    assert names[0] == table.loc[table["z"].idxmax(), "gene"]


def test_names_and_background_fit_a_dark_figure(table):
    with plt.style.context("dark_background"):
        ax = draw(table)
    assert {text.get_color() for text in ax.texts} == {"white"}
    band = ax.patches[0].get_facecolor()
    assert band[0] * band[3] < 0.1  # over black


def test_names_do_not_cover_one_another(table, monkeypatch):
    monkeypatch.setattr("scmamba_scvi.pl._region_links.N_LABELS", 8)
    boxes = [text.get_window_extent() for text in draw(table).texts]
    for i, a in enumerate(boxes):
        assert not any(a.overlaps(b) for b in boxes[i + 1 :])


def test_ticks_are_kilobases_on_both_sides(table):
    assert [t.get_text() for t in draw(table).get_xticklabels()] == ["-100", "-10", "-1", "0", "1", "10", "100"]


def test_tables_that_cannot_be_drawn_are_refused(table):
    figure = Figure()
    with pytest.raises(ScmambaError, match=r"lacks \['z'\]; pass what model.get_region_links\(\) gives"):
        pl.region_links(table.drop(columns="z"), figure=figure)
    with pytest.raises(ScmambaError, match="No pair of the table has a z-score"):
        pl.region_links(table.assign(z=np.nan), figure=figure)
    assert not figure.axes


@pytest.mark.parametrize("z", [[5.0], [5.0, 4.9], [2.0] * 50])
def test_the_best_of_few_pairs_lies_within_the_frame(table, z):
    few = table.dropna().head(len(z)).assign(z=z)
    low, high = draw(few).get_ylim()
    assert low < min(z) and max(z) < high - 0.15 * (high - low)
