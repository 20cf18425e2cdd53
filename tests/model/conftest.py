"""What tests of the model share and do not change: a trained model, and data in files."""

import numpy as np
import pytest

from scmamba_scvi.data import convert_mudata, open_mudata, simulate_multiome


@pytest.fixture(scope="session")
def trained():
    """A trained model on data of its own."""
    from scmamba_scvi import SCMAMBA

    mdata = simulate_multiome(n_cells=300, n_genes=150, n_peaks=400, n_cell_types=3, seed=2)
    SCMAMBA.setup_mudata(mdata, batch_key="batch", labels_key="cell_type")
    model = SCMAMBA(mdata)
    model.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    # the gate opens slowly: without this, tests would see the linear part alone
    for encoder in model.module.encoders.values():
        encoder.gate.data.fill_(0.5)
    return model


@pytest.fixture(scope="module")
def uneven():
    """Accessibility has its cells in another order than RNA, and lacks some."""
    mdata = simulate_multiome(n_cells=500, n_genes=80, n_peaks=200, seed=3)
    keep = np.random.default_rng(0).permutation(500)[:460]
    return type(mdata)({"rna": mdata["rna"], "atac": mdata["atac"][keep].copy()})


@pytest.fixture(scope="module", params=["h5mu", "zarr", "dense h5mu"])
def opened(request, uneven, tmp_path_factory):
    """The same cells, with their counts left in a file."""
    folder = tmp_path_factory.mktemp("disk")
    mdata = uneven.copy()
    if request.param == "dense h5mu":
        mdata["rna"].X = mdata["rna"].X.toarray()
    mdata.write_h5mu(folder / "m.h5mu")
    path = folder / "m.h5mu"
    return open_mudata(convert_mudata(path, folder / "m.zarr") if request.param == "zarr" else path)
