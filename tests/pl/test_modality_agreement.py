from __future__ import annotations

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from scmamba_scvi import pl
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.pl._palette import MISSING


def draw(agreement, mdata=None, **kwargs):
    axes = pl.modality_agreement(agreement, mdata, figure=Figure(), **kwargs)
    FigureCanvasAgg(axes[0].figure).draw()
    return axes


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    with without_pulling():
        mdata = mudata.MuData({"rna": AnnData(np.ones((200, 2), dtype=np.float32))})
    mdata.obsm["X_umap_scmamba"] = rng.normal(size=(200, 2))
    values = rng.normal(2, 1, size=200)
    values[:10] = -3
    return mdata, pd.Series(values, index=mdata.obs_names, name="evidence")


def bars(ax):
    return [
        (p.get_x(), p.get_x() + p.get_width(), p.get_height(), p.get_facecolor()) for p in ax.patches if p.get_height()
    ]


def test_every_cell_is_in_one_bar_on_its_side_of_the_threshold(cells):
    _, values = cells
    (ax,) = draw(values, threshold=0.5)
    drawn = bars(ax)
    assert sum(height for _, _, height, _ in drawn) == 200
    low = {color for left, right, _, color in drawn if right <= 0.5 + 1e-6}
    high = {color for left, right, _, color in drawn if left >= 0.5 - 1e-6}
    assert len(low) == len(high) == 1 and low != high and len({c for *_, c in drawn}) == 2
    n = sum(height for _, right, height, _ in drawn if right <= 0.5 + 1e-6)
    assert n == (values < 0.5).sum() and f"{n:.0f} of 200 cells" in ax.texts[0].get_text()


def test_embedding_is_aligned_by_name_and_low_cells_are_on_top(cells):
    mdata, values = cells
    values.iloc[50] = np.nan
    want = draw(values, mdata)[1]
    found = draw(values.sample(frac=1, random_state=0), mdata)[1]
    for a, b in zip(want.collections, found.collections, strict=True):
        np.testing.assert_array_equal(a.get_offsets(), b.get_offsets())
    grey, drawn, marked = want.collections
    assert to_hex(grey.get_facecolors()[0]).upper() == MISSING
    assert len(grey.get_offsets()) == 1 and len(drawn.get_offsets()) == 199
    assert (np.diff(drawn.get_array()) <= 0).all()
    assert len(marked.get_offsets()) == (values < 0).sum()


def test_circles_are_explained_below_the_embedding(cells):
    mdata, values = cells
    assert draw(values, mdata)[1].get_xlabel() == "circled: below 0"
    assert not draw(values.abs(), mdata)[1].get_xlabel()


def test_no_threshold_marks_nothing(cells):
    mdata, values = cells
    histogram, embedding = draw(values.rename("cosine"), mdata, threshold=None)
    assert not histogram.texts and histogram.get_xlabel() == "cosine"
    assert len(embedding.collections) == 2
    (alone,) = draw(values, threshold=-100)
    assert not alone.texts


def test_one_value_for_all_can_be_drawn():
    (ax,) = draw(pd.Series(np.full(20, 0.5)))
    assert sum(height for _, _, height, _ in bars(ax)) == 20


def test_faults_are_named(cells):
    mdata, values = cells
    for whole in (values.to_frame(), values.to_numpy()):
        with pytest.raises(ScmambaError, match=rf"one column.*\['evidence'\]; got {type(whole).__name__}"):
            draw(whole, mdata)
    with pytest.raises(ScmambaError, match="no finite value"):
        draw(values * np.nan)
    with pytest.raises(ScmambaError, match="200 cells of agreement, such as 'cell.*not in mdata"):
        draw(values.rename(lambda n: f"cell{n}"), mdata)
    with pytest.raises(ScmambaError, match="no 'X_tsne' to draw"):
        draw(values, mdata, basis="X_tsne")


def test_values_that_differ_by_rounding_errors_are_one_bar():
    (ax,) = draw(pd.Series(np.linspace(0, 1e-9, 50)))
    drawn = bars(ax)
    assert sum(height for _, _, height, _ in drawn) == 50 and len(drawn) <= 2  # at most the two sides of one edge
    assert np.ptp(ax.get_xlim()) > 0.5
