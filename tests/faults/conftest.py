"""One small intact file of every kind, from which the tests make damaged ones."""

from __future__ import annotations

import numpy as np
import pytest
from shapes import TINY, mudata_of, poisson

from scmamba_scvi import SCMAMBA


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Folder with ``data.h5mu``, an ``export``, a ``saved`` model and ``integrated.h5mu``."""
    folder = tmp_path_factory.mktemp("good")
    mdata = mudata_of({"rna": poisson(60, 30), "atac": poisson(60, 20)})
    mdata.obs["batch"] = [f"batch {i % 2}" for i in range(60)]
    mdata.obs["cell_type"] = [f"type {i % 3}" for i in range(60)]
    mdata.write_h5mu(folder / "data.h5mu")
    SCMAMBA.setup_mudata(mdata, batch_key="batch", labels_key="cell_type")
    model = SCMAMBA(mdata, **TINY)
    model.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    model.train_classifier()
    model.export(folder / "export")
    model.save(folder / "saved")
    mdata.obsm["X_scmamba"] = model.get_latent_representation()
    for kind, key in model.kinds.items():
        mdata[key].obsm["X_scmamba"] = model.get_latent_representation(modality=kind)
    mdata.obs["validation_scmamba"] = np.isin(np.arange(60), model.validation_indices)
    mdata.write_h5mu(folder / "integrated.h5mu")
    return folder
