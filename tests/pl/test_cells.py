from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.pl._cells import aligned, check_columns, coordinates, draw_values, point_size
from scmamba_scvi.pl._palette import MISSING


@pytest.fixture
def cells():
    xy = np.arange(12.0).reshape(4, 3)
    return ad.AnnData(np.ones((4, 1)), obs=pd.DataFrame(index=list("abcd")), obsm={"X_umap": xy, "X_line": xy[:, :1]})


def test_coordinates_are_the_first_two_columns(cells):
    np.testing.assert_array_equal(coordinates(cells, "X_umap"), cells.obsm["X_umap"][:, :2])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        pytest.param("X_umap_scmamba", "has no 'X_umap_scmamba'.*workflow.integrate.*writes it", id="ours"),
        pytest.param("X_tsne", r"has \['X_line', 'X_umap'\]\)\.$", id="another"),
        pytest.param("X_line", "must have two columns", id="one_column"),
    ],
)
def test_coordinates_that_are_not_there_are_named(cells, key, message):
    with pytest.raises(ScmambaError, match=message):
        coordinates(cells, key)


def test_coordinates_of_no_cell_are_refused(cells):
    cells.obsm["X_umap"][:] = np.nan
    with pytest.raises(ScmambaError, match="no finite coordinates"):
        coordinates(cells, "X_umap")


def test_values_are_aligned_by_name(cells):
    found = aligned(pd.Series({"c": 3.0, "a": 1.0}), cells, "values")
    np.testing.assert_array_equal(found, [1, np.nan, 3, np.nan])
    with pytest.raises(ScmambaError, match="1 cells of values, such as 'x', are not in mdata"):
        aligned(pd.Series({"x": 1.0}), cells, "values")


def test_a_table_of_another_method_is_refused():
    check_columns(pd.DataFrame(columns=["gene", "z"]), ["z"], "get_region_links")
    with pytest.raises(ScmambaError, match=r"lacks \['q'\]; pass what model.get_region_links\(\) gives"):
        check_columns(pd.DataFrame(columns=["gene"]), ["gene", "q"], "get_region_links")


def test_cells_without_a_value_are_grey_below_the_others():
    ax = Figure().subplots()
    xy, values = np.arange(8.0).reshape(4, 2), np.array([1.0, np.nan, 3.0, np.inf])
    drawn = draw_values(ax, xy, values, cmap="viridis", vmin=0, vmax=3)
    grey, coloured = ax.collections
    assert coloured is drawn and to_hex(grey.get_facecolors()[0]).upper() == MISSING
    np.testing.assert_array_equal(grey.get_offsets(), xy[[1, 3]])
    np.testing.assert_array_equal(coloured.get_offsets(), xy[[0, 2]])
    np.testing.assert_array_equal(coloured.get_array(), [1, 3])
    assert coloured.get_clim() == (0, 3)


def test_points_shrink_with_their_number_within_bounds():
    sizes = [point_size(n) for n in (1, 10_000, 10**6)]
    assert sizes == [22, 3, 0.6]
