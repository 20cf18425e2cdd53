from __future__ import annotations

import itertools

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scmamba_scvi import pl
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.errors import ScmambaError

GROUPS = ("hematopoietic stem cell", "erythroblast", "plasmacytoid dendritic cell", "CD14 monocyte", "CD16 monocyte")


@pytest.fixture
def cells():
    """Five groups of long names: the first four lie close together in a corner, the last far away."""
    rng = np.random.default_rng(0)
    group = np.arange(200) % 5
    places = np.array([[0, 0], [0.1, 0.3], [0.2, 0.1], [0.3, 0.2], [30, 30]])
    with without_pulling():
        mdata = mudata.MuData({"rna": AnnData(np.ones((200, 2), dtype=np.float32))})
    mdata.obsm["X_umap_scmamba"] = places[group] + 0.2 * rng.normal(size=(200, 2))
    mdata.obs["cell_type"] = np.array(GROUPS)[group]
    return mdata, pd.Series(rng.random(200), index=mdata.obs_names, name="joint")


def test_names_of_groups_are_inside_the_panel_and_do_not_overlap(cells):
    mdata, time = cells
    joins = pd.DataFrame(0.5, index=GROUPS, columns=GROUPS)
    (ax,) = pl.trajectory(mdata, time, connectivities=joins, groupby="cell_type", figure=Figure())
    FigureCanvasAgg(ax.figure).draw()
    assert {text.get_text() for text in ax.texts} == set(GROUPS)
    boxes, panel = [text.get_window_extent() for text in ax.texts], ax.get_window_extent()
    for box in boxes:
        assert box.x0 >= panel.x0 - 2 and box.x1 <= panel.x1 + 2
    for a, b in itertools.combinations(boxes, 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert width <= 0 or height <= 1


def test_coordinates_of_one_column_are_named(cells):
    mdata, time = cells
    mdata.obsm["X_time"] = np.zeros((200, 1))
    with pytest.raises(ScmambaError, match=r"obsm\['X_time'\] must have two columns"):
        pl.trajectory(mdata, time, basis="X_time", figure=Figure())


@pytest.mark.parametrize(
    ("names", "columns", "message"),
    [
        pytest.param([*GROUPS[:-1], "CD15"], [*GROUPS[:-1], "CD15"], "Unknown group of 'cell_type' 'CD15'", id="unknown"),
        pytest.param(GROUPS, GROUPS[:-1], "rows and columns of connectivities", id="a_row_without_its_column"),
    ],
)  # fmt: skip
def test_groups_of_connectivities_that_cannot_be_drawn_are_named(cells, names, columns, message):
    mdata, time = cells
    joins = pd.DataFrame(0.5, index=names, columns=columns)
    with pytest.raises(ScmambaError, match=message):
        pl.trajectory(mdata, time, connectivities=joins, groupby="cell_type", figure=Figure())


def test_a_group_whose_cells_have_no_coordinates_is_not_drawn(cells):
    mdata, time = cells
    mdata.obsm["X_umap_scmamba"][(mdata.obs["cell_type"] == GROUPS[-1]).to_numpy()] = np.nan
    joins = pd.DataFrame(0.5, index=GROUPS, columns=GROUPS)
    (ax,) = pl.trajectory(mdata, time, connectivities=joins, groupby="cell_type", figure=Figure())
    assert {text.get_text() for text in ax.texts} == set(GROUPS[:-1])


def test_unknown_cells_are_named(cells):
    mdata, time = cells
    with pytest.raises(ScmambaError, match="200 cells of pseudotime, such as 'new"):
        pl.trajectory(mdata, time.rename(lambda name: f"new{name}"), figure=Figure())
