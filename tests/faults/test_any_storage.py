"""Whatever the shape, order and storage of the data, the model reads the same counts and gives the same result."""

from __future__ import annotations

import tempfile

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
from scmamba_scvi.data import open_mudata
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
    data = np.concatenate([coo.data.astype(int) - above, np.ones(above.sum())]).astype(coo.dtype)
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
DENSE = ["dense", "by columns", "read-only", "strided"]


def stored(x, storage, dtype):
    """``x`` as `STORAGE` says. scipy makes no sparse float16, but takes one that another package filled."""
    if dtype != "float16" or storage in DENSE:
        return STORAGE[storage](x.astype(dtype))
    out = STORAGE[storage](x.astype("float32"))
    out.data = out.data.astype(dtype)
    return out


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
        dtype = draw(st.sampled_from(DTYPES))
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
            stored(x[have], storage, dtype),
            obs=pd.DataFrame(index=names[have]), var=pd.DataFrame(index=[f"{kind} {j}" for j in range(f)]),
        )  # fmt: skip
        has = np.isin(np.arange(n), have)
        truth[kind] = np.where(has[:, None], x, 0), has
    return mudata.MuData(mods), names, truth


@settings(QUICK, max_examples=40)
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


@pytest.mark.parametrize("storages", [("dense", "by columns"), ("csr", "csc"), ("unsorted", "doubled")])
def test_half_precision_is_read_as_it_is(storages):
    shapes = {
        kind: (6, storage, "float16", 1, 2 * i)
        for i, (kind, storage) in enumerate(zip(["rna", "atac"], storages, strict=True))
    }
    mdata, names, truth = built(9, 0, shapes)
    before = [part.X.dtype for part in mdata.mod.values()]
    SCMAMBA.setup_mudata(mdata)
    manager = SCMAMBA._get_most_recent_anndata_manager(mdata)
    cell = pd.Index(names).get_indexer(mdata.obs_names)
    for kind, (x, _) in truth.items():
        found = manager.matrix(kind).read(np.arange(9))
        np.testing.assert_array_equal((found.to_dense() if is_csr(found) else found).numpy(), x[cell])
    assert [part.X.dtype for part in mdata.mod.values()] == before == ["float16", "float16"]


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
    dtype=st.sampled_from(sorted(set(DTYPES) - {"bool"})),
    seed=st.integers(0, 99),
    batch_size=st.integers(1, 70),
)
def test_the_embedding_does_not_depend_on_storage(model, storage, dtype, seed, batch_size):
    def data_of(storages, dtype):
        of_rna, of_atac = storages
        mdata, _, _ = built(25, seed, {"rna": (30, of_rna, dtype, 0.6, 0), "atac": (20, of_atac, dtype, 0.6, 4)})
        return mdata

    plain, other = data_of(("csr", "csr"), "float32"), data_of(storage, dtype)
    for modality in (None, "rna"):
        expected = model.get_latent_representation(plain, modality=modality)
        found = model.get_latent_representation(other, modality=modality, batch_size=batch_size)
        np.testing.assert_allclose(found, expected, atol=1e-5)


# -- all of it together -------------------------------


N = 60
CHROM, START = np.repeat(["chr1", "chr2", "chrX"], [8, 7, 5]), np.arange(20) * 1000
PEAKS = {
    "as 10x": lambda c, s: f"{c}:{s}-{s + 500}",
    "dashes": lambda c, s: f"{c}-{s}-{s + 500}",
    "underscores": lambda c, s: f"{c}_{s}_{s + 500}",
    "without chr": lambda c, s: f"{c[3:]}:{s}-{s + 500}",
    "behind a modality": lambda c, s: f"atac:{c}:{s}-{s + 500}",
    "behind a genome": lambda c, s: f"GRCh38_{c}:{s}-{s + 500}",
    "lower case": lambda c, s: f"{c.lower()}:{s}-{s + 500}",
    "in columns": lambda c, s: f"tile of {c} at {s}",
}
CELLS = {
    "barcodes": lambda i: f"AAAC{i:03}-1", "samples": lambda i: f"s{i % 2}#AAAC{i:03}-1", "numbers": lambda i: f"{i:03}",
    "other scripts": lambda i: f"日本 {i:03}é", "long": lambda i: f"{'cell' * 100}{i:03}",
}  # fmt: skip
BATCHES = {
    "text": ["a", "b"], "categories, one unused": pd.Categorical(["a", "b"], categories=["a", "absent", "b"]),
    "nullable text": pd.array(["a", "b"], dtype="string"), "Int64": pd.array([0, 3], dtype="Int64"),
    "int8": np.array([0, 3], np.int8), "Float64": pd.array([0.5, 1], dtype="Float64"), "bool": [False, True],
    "boolean": pd.array([False, True], dtype="boolean"), "dates": pd.to_datetime(["2023-12-31", "2024-01-01"]),
}  # fmt: skip
LABELS = {
    "all": ["T", "B", "NK"], "None": ["T", "B", None], "NaN": ["T", "B", np.nan],
    "categories": pd.Categorical(["T", "B", None]), "NA": pd.array(["T", "B", pd.NA], dtype="string"),
    "NA of numbers": pd.array([1, 2, pd.NA], dtype="Int64"), "NaN of numbers": np.array([1, 2, np.nan]),
    "NaT": pd.to_datetime(["2024-01-01", "2024-01-02", None]), "none": [None, None, None],
}  # fmt: skip
# pandas' types of pyarrow, which need that package
ARROW = {
    "batch": ["string[pyarrow]", "int8[pyarrow]", "double[pyarrow]", "bool[pyarrow]", "timestamp[ns][pyarrow]"],
    "label": ["string[pyarrow]", "int64[pyarrow]", "double[pyarrow]"],
}
PLACES = {"obs": ["batch"], "one modality": ["batch", "rna:batch"], "each modality": ["batch", "atac:batch"]}


def repeated(values):
    return pd.concat([pd.Series(values)] * (N // len(values)), ignore_index=True)


def put(mdata, name, values, place):
    """A column of the MuData, or of its modalities, each in its own order of cells."""
    values = pd.Series(values.array, index=mdata.obs_names)
    for part in {"obs": [mdata], "one modality": [mdata["rna"]], "each modality": mdata.mod.values()}[place]:
        part.obs[name] = values.loc[part.obs_names]


def as_given(folder, peaks, cells, storage, dtype, where, batches, labels, place, order):
    """The same 60 cells in one of the forms that people have."""
    rng = np.random.default_rng(0)
    names = pd.Index([CELLS[cells](i) for i in range(N)])
    order = np.random.default_rng(order).permutation(N)
    var = pd.DataFrame(index=[PEAKS[peaks](c, s) for c, s in zip(CHROM, START, strict=True)])
    if peaks == "in columns":
        var["chrom"], var["start"], var["end"] = CHROM, START, START + 500
    mods = {}
    for kind, var_of, rows in (("rna", pd.DataFrame(index=[f"G{j}" for j in range(30)]), None), ("atac", var, order)):
        x = rng.poisson(1.0, (N, len(var_of)))
        rows = np.arange(N) if rows is None else rows
        x = stored(x[rows], storage, dtype)
        mods[kind] = anndata.AnnData(x, obs=pd.DataFrame(index=names[rows]), var=var_of)
    mdata = mudata.MuData(mods)
    if where != "memory":
        getattr(mdata, "write_h5mu" if where == "h5mu" else "write_zarr")(f"{folder}/cells.{where}")
        mdata = open_mudata(f"{folder}/cells.{where}")
    put(mdata, "batch", repeated(BATCHES[batches]), place)
    put(mdata, "label", repeated(LABELS[labels]), place)
    return mdata


PLAIN = ("as 10x", "barcodes", "csr", "float32", "memory", "text", "all", "obs", 0)


@pytest.fixture(scope="module")
def trained():
    mdata = as_given(None, *PLAIN)
    SCMAMBA.setup_mudata(mdata, batch_key="batch", labels_key="label")
    model = SCMAMBA(mdata, **TINY)
    model.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    return model


@settings(QUICK, max_examples=30)
@given(data=st.data())
def test_the_form_of_the_data_does_not_change_the_embedding(trained, data):
    def choose(table):
        return data.draw(st.sampled_from(sorted(table)))

    where = choose(["memory", "memory", "h5mu", "zarr"])
    storage = choose(STORAGE if where == "memory" else ["csr", "dense"])
    dtype = choose(set(DTYPES) - {"bool"})
    place = choose(PLACES)
    given_as = (choose(PEAKS), choose(CELLS), storage, dtype, where, choose(BATCHES), choose(LABELS), place)
    with tempfile.TemporaryDirectory() as folder:
        mdata = as_given(folder, *given_as, data.draw(st.integers(0, 9)))
        key = choose(PLACES[place])
        SCMAMBA.setup_mudata(mdata, batch_key=key, labels_key=key.replace("batch", "label"))
        model = SCMAMBA(mdata, **TINY)
        model.module.load_state_dict(trained.module.state_dict())
        model.is_trained_ = model.is_initialized_ = True
        for modality in (None, "rna", "atac"):
            np.testing.assert_allclose(
                model.get_latent_representation(modality=modality),
                trained.get_latent_representation(modality=modality),
                atol=1e-5,
            )


@pytest.mark.parametrize("missing", [False, True], ids=["all known", "some labels missing"])
@pytest.mark.parametrize("i", range(5), ids=ARROW["batch"])
def test_columns_of_arrow_do_not_change_the_embedding(tmp_path, trained, i, missing):
    pytest.importorskip("pyarrow", reason="columns of pandas' Arrow types need pyarrow")
    of_batch, of_label = ARROW["batch"][i], ARROW["label"][i % 3]
    numbers = {"bool": [False, True], "time": pd.to_datetime(["2024-01-01", "2024-02-02"])}.get(of_batch[:4], [0, 3])
    mdata = as_given(None, *PLAIN)
    batch = pd.Series(["a", "b"] if "string" in of_batch else numbers).astype(of_batch)
    label = pd.Series(["T", "B", "K"] if "string" in of_label else [1, 2, 3]).astype(of_label)
    if missing:
        label[1] = pd.NA
    put(mdata, "batch", repeated(batch), "obs")
    put(mdata, "type", repeated(label), "each modality")
    peaks = mdata["atac"]
    peaks.var_names = [f"peak {i}" for i in range(peaks.n_vars)]
    for name, values, dtype in (("chrom", CHROM, "string"), ("start", START, "int64"), ("end", START + 500, "int32")):
        peaks.var[name] = pd.array(values, dtype=f"{dtype}[pyarrow]")
    mdata.obs_names = mdata.obs_names.astype("string[pyarrow]")
    for part in mdata.mod.values():
        part.obs_names = part.obs_names.astype("string[pyarrow]")
    mdata.update()
    SCMAMBA.setup_mudata(mdata, batch_key="batch", labels_key="type")
    model = SCMAMBA(mdata, **TINY)
    model.module.load_state_dict(trained.module.state_dict())
    model.is_trained_ = model.is_initialized_ = True
    for modality in (None, "rna", "atac"):
        z = model.get_latent_representation(modality=modality)
        np.testing.assert_allclose(z, trained.get_latent_representation(modality=modality), atol=1e-5)
    model.train_classifier()
    model.export(tmp_path / "exported")
    again = SCMAMBA.from_export(tmp_path / "exported")
    assert (again.predict(mdata) == model.predict()).all() and len(set(model.predict())) == 3 - missing
