from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.pl._cells import coordinates


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


def test_infinite_coordinates_are_missing(cells):
    cells.obsm["X_umap"][0, 1] = np.inf
    assert np.isnan(coordinates(cells, "X_umap")[0, 1]) and np.isfinite(coordinates(cells, "X_umap")[1:]).all()


def test_coordinates_of_no_cell_are_refused(cells):
    cells.obsm["X_umap"][:, 1] = np.nan  # no cell has both
    with pytest.raises(ScmambaError, match="no finite coordinates"):
        coordinates(cells, "X_umap")
