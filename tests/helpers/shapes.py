"""Small MuData of any shape, without the structure of real cells, and a network of few weights for them."""

from __future__ import annotations

import anndata
import mudata
import numpy as np
import pandas as pd
from scipy import sparse

#: Options of `SCMAMBA`, for tests in which only the parts of the network matter.
TINY = {"n_latent": 4, "d_feature": 4, "d_model": 8, "headdim": 8, "d_state": 4, "d_mlp": 8, "d_head": 8}
#: Arguments of a short training.
QUICK = {"max_epochs": 2, "enable_progress_bar": False, "accelerator": "cpu"}


def mudata_of(matrices, n_absent=0):
    """MuData of cells x features per key of modality; the first ``n_absent`` cells lack the last modality."""
    mods = {}
    for key, x in matrices.items():
        first = n_absent if key == list(matrices)[-1] else 0
        mods[key] = anndata.AnnData(
            sparse.csr_matrix(np.asarray(x, dtype=np.float32)[first:]),
            obs=pd.DataFrame(index=[f"cell {i}" for i in range(first, len(x))]),
            var=pd.DataFrame(index=[f"{key} {j}" for j in range(x.shape[1])]),
        )
    return mudata.MuData(mods)


def poisson(n_cells, n_features, mean=0.5, seed=0):
    """Independent counts."""
    return np.random.default_rng(seed).poisson(mean, (n_cells, n_features)).astype(float)


def one_count(n_cells, n_features, seed=0):
    """A single count per cell."""
    x = np.zeros((n_cells, n_features))
    x[np.arange(n_cells), np.random.default_rng(seed).integers(0, n_features, n_cells)] = 1
    return x


def rebuilt(mdata, **changed):
    """A MuData of the same modalities, some of them changed."""
    mods = {k: v.copy() for k, v in mdata.mod.items()}
    other = mudata.MuData({k: changed[k](v) if k in changed else v for k, v in mods.items()})
    if "batch" in mdata.obs:
        other.obs["batch"] = mdata.obs["batch"].reindex(other.obs_names)
    return other


def small(n=60, seed=0):
    """Two modalities, cells of two batches in turn."""
    mdata = mudata_of({"rna": poisson(n, 30, seed=seed), "atac": poisson(n, 20, seed=seed + 1)})
    mdata.obs["batch"] = [f"batch {i % 2}" for i in range(n)]
    return mdata


def fitted(mdata, batch_key=None, **options):
    """A `TINY` model after two epochs."""
    from scmamba_scvi import SCMAMBA  # here: `pretended_gpu` comes before the package where it is used

    SCMAMBA.setup_mudata(mdata, batch_key=batch_key)
    model = SCMAMBA(mdata, **{**TINY, **options})
    model.train(**QUICK)
    return model


def two_models():
    """Two models of the same data with different weights; only the first is trained."""
    from scmamba_scvi import SCMAMBA  # here: `pretended_gpu` comes before the package where it is used

    mdata = mudata_of({"rna": poisson(40, 30), "atac": poisson(40, 20)})
    SCMAMBA.setup_mudata(mdata)
    both = [SCMAMBA(mdata, **TINY), SCMAMBA(mdata, **TINY)]
    both[0].train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    return both


def unit(x):
    """Rows scaled to length 1."""
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def pairs_of_vectors(n, noise=0.5, seed=0, z=16):
    """Unit vectors of ``n`` cells in two modalities."""
    rng = np.random.default_rng(seed)
    cells = rng.normal(size=(n, z))
    return (unit(cells + noise * rng.normal(size=(n, z))) for _ in range(2))
