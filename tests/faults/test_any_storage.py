"""Whatever the shape, order and storage of the data, the model reads the same counts and gives the same result."""

from __future__ import annotations

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy import sparse
from shapes import TINY

from scmamba_scvi import SCMAMBA
from scmamba_scvi.ops.csr import is_csr

pytestmark = pytest.mark.filterwarnings("ignore")
QUICK = settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def unsorted(x):
    """CSR whose rows list their columns backwards."""
    x = sparse.csr_matrix(x)
    for a, b in zip(x.indptr, x.indptr[1:], strict=False):
        x.indices[a:b], x.data[a:b] = x.indices[a:b][::-1].copy(), x.data[a:b][::-1].copy()
    x.has_sorted_indices = False
    return x


def doubled(x):
    """CSR that lists every value above one as two."""
    coo = sparse.coo_matrix(x)
    above = coo.data > 1
    data = np.concatenate([coo.data - above, np.ones(above.sum(), coo.dtype)])
    row, col = (np.concatenate([i, i[above]]) for i in (coo.row, coo.col))
    order = np.argsort(row, kind="stable")
    indptr = np.concatenate([[0], np.bincount(row, minlength=x.shape[0]).cumsum()])
    out = sparse.csr_matrix(x.shape, dtype=coo.dtype)
    out.data, out.indices, out.indptr = data[order], col[order].astype(np.int32), indptr.astype(np.int32)
    return out


def with_zeros(x):
    """CSR that stores every zero."""
    n, f = x.shape
    return sparse.csr_matrix((x.ravel(), np.tile(np.arange(f), n), np.arange(0, n * f + 1, f)), shape=x.shape)


def long_indices(x):
    """CSR with indices of 64 bits."""
    x = sparse.csr_matrix(x)
    x.indices, x.indptr = x.indices.astype(np.int64), x.indptr.astype(np.int64)
    return x


STORAGE = {
    "csr": sparse.csr_matrix, "csr array": sparse.csr_array, "csc": sparse.csc_matrix, "dense": np.ascontiguousarray,
    "by columns": np.asfortranarray, "unsorted": unsorted, "doubled": doubled, "stored zeros": with_zeros,
    "long indices": long_indices, "read-only": lambda x: (x.setflags(write=False), x)[1],
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
}  # fmt: skip
DTYPES = ["float32", "float64", "int32", "int64", "uint8", "uint16", "bool", "float16"]
DENSE = ["dense", "by columns", "read-only", "strided"]  # scipy has no sparse float16


KINDS = [("rna", "atac"), ("rna", "protein"), ("rna", "atac", "protein")]


@st.composite
def cases(draw):
    """Arguments of `built`: number of cells, seed, and per kind what its matrix is like."""
    n = draw(st.integers(2, 30))
    seed = draw(st.integers(0, 2**16))
    parts = {}
    for kind in draw(st.sampled_from(KINDS)):
        n_features, storage = draw(st.integers(1, 40)), draw(st.sampled_from(sorted(STORAGE)))
        fraction, n_absent = draw(st.floats(0, 1)), draw(st.integers(0, n - 2))
        dtype = draw(st.sampled_from(DTYPES if storage in DENSE else DTYPES[:-1]))
        parts[kind] = (n_features, storage, dtype, fraction, n_absent)
    return n, seed, parts


def built(n, seed, parts):
    """MuData, names of the cells, and per kind their true counts (dense) and which of them have the modality."""
    rng = np.random.default_rng(seed)
    mods, truth = {}, {}
    names = np.array([f"cell {i}" for i in range(n)])
    first = next(iter(parts))
    for kind, (f, storage, dtype, fraction, n_absent) in parts.items():
        x = (rng.poisson(1.5, (n, f)) * (rng.random((n, f)) < fraction)).clip(0, 1 if dtype == "bool" else None)
        have = rng.permutation(n)[0 if kind == first else n_absent :]  # every cell has the first modality
        mods[kind] = anndata.AnnData(
            STORAGE[storage](x[have].astype(dtype)),
            obs=pd.DataFrame(index=names[have]), var=pd.DataFrame(index=[f"{kind} {j}" for j in range(f)]),
        )  # fmt: skip
        has = np.isin(np.arange(n), have)
        truth[kind] = np.where(has[:, None], x, 0), has
    return mudata.MuData(mods), names, truth


@QUICK
@given(cases())
def test_minibatches_hold_the_counts_of_their_cells(case):
    mdata, names, truth = built(*case)
    SCMAMBA.setup_mudata(mdata)
    manager = SCMAMBA._get_most_recent_anndata_manager(mdata)
    cell = pd.Index(names).get_indexer(mdata.obs_names)
    order = np.random.default_rng(case[1]).permutation(mdata.n_obs)
    for kind, (x, has) in truth.items():
        matrix = manager.matrix(kind)
        found = matrix.read(order)
        found = found.to_dense() if is_csr(found) else found
        np.testing.assert_array_equal(found.numpy(), x[cell[order]].astype(np.float32))
        np.testing.assert_array_equal(matrix.present(order), has[cell[order]])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16"])
def test_values_of_one_entry_are_added_in_full(dtype):
    """A matrix may list an entry twice; 200 + 100 are 44 in the arithmetic of uint8."""
    parts = np.iinfo(dtype).max, np.iinfo(dtype).max - 1
    mdata, _, _ = built(4, 0, {"rna": (3, "csr", "float32", 1, 0), "atac": (3, "csr", "float32", 1, 0)})
    x = sparse.csr_matrix((4, 3), dtype=dtype)
    x.data, x.indices, x.indptr = np.array(parts, dtype), np.zeros(2, np.int32), np.array([0, 2, 2, 2, 2], np.int32)
    mdata["rna"].X = x
    SCMAMBA.setup_mudata(mdata)
    found = SCMAMBA._get_most_recent_anndata_manager(mdata).matrix("rna").read(np.arange(4)).to_dense()
    assert found[0, 0] == sum(parts) and found.sum() == sum(parts)


def test_dense_half_precision_is_read_as_it_is():
    shapes = {"rna": (6, "dense", "float16", 1, 0), "atac": (5, "by columns", "float16", 1, 2)}
    mdata, names, truth = built(9, 0, shapes)
    SCMAMBA.setup_mudata(mdata)
    manager = SCMAMBA._get_most_recent_anndata_manager(mdata)
    cell = pd.Index(names).get_indexer(mdata.obs_names)
    for kind, (x, _) in truth.items():
        np.testing.assert_array_equal(manager.matrix(kind).read(np.arange(9)).numpy(), x[cell])


@pytest.fixture(scope="module")
def model():
    mdata, _, _ = built(60, 0, {"rna": (30, "csr", "float32", 0.7, 0), "atac": (20, "csr", "float32", 0.7, 5)})
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, **TINY)
    model.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    return model


@QUICK
@given(
    storage=st.tuples(*[st.sampled_from(sorted(STORAGE))] * 2),
    dtype=st.sampled_from(DTYPES[:6]),
    seed=st.integers(0, 99),
    batch_size=st.integers(1, 70),
)
def test_the_embedding_does_not_depend_on_storage(model, storage, dtype, seed, batch_size):
    def stored(storages, dtype):
        of_rna, of_atac = storages
        mdata, _, _ = built(25, seed, {"rna": (30, of_rna, dtype, 0.6, 0), "atac": (20, of_atac, dtype, 0.6, 4)})
        return mdata

    plain, other = stored(("csr", "csr"), "float32"), stored(storage, dtype)
    for modality in (None, "rna"):
        expected = model.get_latent_representation(plain, modality=modality)
        found = model.get_latent_representation(other, modality=modality, batch_size=batch_size)
        np.testing.assert_allclose(found, expected, atol=1e-5)
