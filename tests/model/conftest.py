"""One trained model that tests share and do not change."""

import pytest

from scmamba_scvi.data import simulate_multiome


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
