from __future__ import annotations

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.figure import Figure

from scmamba_scvi import pl
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.errors import ScmambaError


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    with without_pulling():
        mdata = mudata.MuData({"rna": AnnData(np.ones((200, 2), dtype=np.float32))})
    mdata.obsm["X_umap_scmamba"] = rng.normal(size=(200, 2))
    return mdata, pd.Series(rng.random(200), index=mdata.obs_names, name="joint")


def test_coordinates_of_one_column_are_named(cells):
    mdata, time = cells
    mdata.obsm["X_time"] = np.zeros((200, 1))
    with pytest.raises(ScmambaError, match=r"obsm\['X_time'\] must have two columns"):
        pl.trajectory(mdata, time, basis="X_time", figure=Figure())


def test_unknown_cells_are_named(cells):
    mdata, time = cells
    with pytest.raises(ScmambaError, match="200 cells of pseudotime, such as 'new"):
        pl.trajectory(mdata, time.rename(lambda name: f"new{name}"), figure=Figure())
