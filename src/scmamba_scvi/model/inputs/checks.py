"""Checks of a MuData before any work; errors name what is wrong, where, and what to do."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Hashable, Iterator, Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset
from mudata import MuData
from scipy import sparse

from ...errors import ScmambaError, UnknownNameError

#: Rows checked together: small beside a matrix that does not fit into memory, large enough for numpy to be fast.
BLOCK = 2048
#: No real count comes near it, and sums of its square do not overflow float32.
LARGEST = 1e15


def check_mudata(
    mdata: MuData,
    modalities: Mapping[str, str],
    layers: Mapping[str, str | None],
    *,
    require_counts: bool,
) -> None:
    """Check what later steps take for granted about the cells and matrices of ``modalities``."""
    if mdata.is_view:
        raise ScmambaError(
            "This MuData is a view of another one. Make it an object of its own first: mdata = mdata.copy()."
        )
    for kind, key in modalities.items():
        if key in mdata.mod:
            check_names(mdata.mod[key], f"mdata[{key!r}]")
            check_matrix(mdata.mod[key], kind, key, layers.get(kind), require_counts=require_counts)


def check_obs_column(mdata: MuData, argument: str, column: str | None) -> None:
    """An argument that names a column: ``mdata.obs`` has it, with a value of one type for every cell."""
    if column is None:
        return
    if not isinstance(column, str):
        raise ScmambaError(f"{argument} must be the name of a column of mdata.obs, got {column!r}.")
    if column not in mdata.obs:
        elsewhere = [key for key, mod in mdata.mod.items() if column in mod.obs]
        hint = (
            f" It is a column of the modalities {elsewhere}: copy it with mdata.obs[{column!r}] = "
            f"mdata[{elsewhere[0]!r}].obs[{column!r}]." if elsewhere else ""
        )  # fmt: skip
        raise ScmambaError(f"{argument}={column!r} is not a column of mdata.obs, which has {list(mdata.obs)}.{hint}")
    n_missing = int(mdata.obs[column].isna().sum())
    if n_missing:
        raise ScmambaError(
            f"mdata.obs[{column!r}] ({argument}) is missing for {n_missing:,} of {mdata.n_obs:,} cells. "
            f"Fill it, for example with .fillna('Unknown')."
        )
    types = {type(value) for value in mdata.obs[column]} if mdata.obs[column].dtype == object else set()
    if len(types) > 1 or not all(issubclass(t, Hashable) for t in types):
        raise ScmambaError(
            f"mdata.obs[{column!r}] ({argument}) holds {' and '.join(sorted(t.__name__ for t in types))}: make all values "
            f"text, mdata.obs[{column!r}].astype(str)."
        )


@contextlib.contextmanager
def only_used_categories(mdata: MuData, column: str | None) -> Iterator[None]:
    """Within the block, a categorical column has only the categories that occur; afterwards, all it had before.

    A category that is left over from cells that were removed would otherwise count as a batch that the model knows.
    """
    if column is None or not isinstance(mdata.obs[column].dtype, pd.CategoricalDtype):
        yield
        return
    whole = mdata.obs[column]
    mdata.obs[column] = whole.cat.remove_unused_categories()
    try:
        yield
    finally:
        mdata.obs[column] = whole


def check_shared_cells(mdata: MuData, modalities: Mapping[str, str]) -> None:
    """Some cells must have two modalities: only these tell a contrastive loss which views belong together."""
    names = [mdata.mod[key].obs_names for key in modalities.values()]
    n_paired = int((pd.concat([pd.Series(1, index=n) for n in names]).groupby(level=0).sum() > 1).sum())
    if n_paired == 0:
        examples = ", ".join(f"{key}: {n[0]!r}" for key, n in zip(modalities.values(), names, strict=True) if len(n))
        raise ScmambaError(
            f"No cell has two of the modalities {list(modalities.values())}: their cell names do not overlap ({examples}). "
            f"If the cells are the same, give them the same obs_names."
        )


def check_names(adata: AnnData, where: str) -> None:
    """Names are text and unique: cells and features are identified by nothing else."""
    if not adata.n_obs or not adata.n_vars:
        raise ScmambaError(f"{where} is empty: {adata.n_obs} cells x {adata.n_vars} features.")
    for what, names, fix in (
        ("cell", adata.obs_names, "obs_names_make_unique()"),
        ("feature", adata.var_names, "var_names_make_unique()"),
    ):
        if not all(isinstance(name, str) for name in names):
            raise ScmambaError(
                f"{where} has {what} names that are not text: convert them, {where}.{fix.partition('_make')[0]}.astype(str)."
            )
        repeated = names[names.duplicated()].unique()
        if len(repeated):
            raise ScmambaError(
                f"{where} has {len(repeated):,} {what} names that occur more than once, such as "
                f"{', '.join(map(repr, repeated[:3]))}. Make them unique: {where}.{fix}."
            )


def check_matrix(adata: AnnData, kind: str, key: str, layer: str | None, *, require_counts: bool) -> None:
    """Values are finite, not negative and, where counts are needed, whole numbers."""
    if layer is not None and layer not in adata.layers:
        raise UnknownNameError(f"layer of mdata[{key!r}]", layer, adata.layers)
    where = f"mdata[{key!r}]" + (".X" if layer is None else f".layers[{layer!r}]")
    x = adata.X if layer is None else adata.layers[layer]
    if x is None:
        raise ScmambaError(f"{where} is empty. Name the layer that holds counts: layers={{{kind!r}: ...}}.")
    check_storage(x, where)
    if sparse.issparse(x):
        check_compressed(x, where)
    seen = np.zeros(adata.n_vars, dtype=bool)
    n_empty = 0
    for first, block in _blocks(x):
        if sparse.issparse(block) and not sparse.issparse(x):  # read from a file, block by block
            check_compressed(block, where)
        values = block.data if sparse.issparse(block) else block
        bad = _first_bad(values, require_counts=require_counts)
        if bad is not None:
            flat, nature = bad
            at = _describe_entry(adata, block, first, flat)
            raise _bad_value_error(adata, where, kind, key, layer, nature, at)
        filled = block if sparse.issparse(block) else sparse.csr_matrix(block)
        nonzero = filled.data != 0
        seen[filled.indices[nonzero]] = True
        n_empty += int((np.diff(np.r_[0, nonzero.cumsum()][filled.indptr]) == 0).sum())
    n_all_zero = int((~seen).sum())
    counted = [(n_empty, adata.n_obs, "cells"), (n_all_zero, adata.n_vars, "features")]
    empty = " and ".join(f"{n:,} of {of:,} {what}" for n, of, what in counted if n)
    if empty:
        warnings.warn(
            f"{where}: {empty} are zero throughout. They are kept.",
            UserWarning,
            stacklevel=2,
        )


def check_storage(x: object, where: str) -> None:
    """The matrix is of a kind whose rows can be read, and holds numbers."""
    if isinstance(x, np.ma.MaskedArray):
        raise ScmambaError(f"{where} is a masked array: missing counts have no meaning here. Fill it, .filled(0).")
    if isinstance(x, CSCDataset):
        raise ScmambaError(f"{where} is stored by columns on disk, so cells cannot be read. Write it as CSR, .tocsr().")
    known = sparse.issparse(x) or isinstance(x, np.ndarray | CSRDataset)
    if not known and not (hasattr(x, "shape") and hasattr(x, "dtype") and hasattr(x, "__getitem__")):
        raise ScmambaError(f"{where} is a {type(x).__name__}: store it as scipy CSR or a numpy array.")
    if np.dtype(x.dtype).kind not in "biuf":
        raise ScmambaError(f"{where} has values of type {x.dtype}: counts must be numbers.")


def check_compressed(x: sparse.spmatrix | sparse.sparray, where: str) -> None:
    """The arrays of a CSR or CSC matrix fit each other; if not, compiled code would read past their ends."""
    if x.format not in ("csr", "csc"):
        return
    n_major, n_minor = x.shape if x.format == "csr" else x.shape[::-1]
    unit = "row" if x.format == "csr" else "column"
    if len(x.indptr) != n_major + 1 or x.indptr[0] != 0 or (np.diff(x.indptr) < 0).any():
        fault = f"its indptr does not rise from 0 over {n_major:,} {unit}s"
    elif not x.indptr[-1] == len(x.indices) == len(x.data):
        fault = f"it has {len(x.data):,} values, {len(x.indices):,} indices and an indptr that ends at {x.indptr[-1]:,}"
    elif len(x.indices) and not 0 <= x.indices.min() <= x.indices.max() < n_minor:
        fault = f"its indices run from {x.indices.min()} to {x.indices.max()}, and there are {n_minor:,}"
    else:
        return
    raise ScmambaError(f"{where} is a damaged sparse matrix: {fault}. Read or make it again.")


def _blocks(x: object) -> Iterator[tuple[int, object]]:
    if sparse.issparse(x) and x.format != "csr":
        x = x.tocsr()
    for first in range(0, x.shape[0], BLOCK):
        block = x[first : first + BLOCK]
        yield first, block if sparse.issparse(block) else np.asarray(block)


def _first_bad(values: np.ndarray, *, require_counts: bool) -> tuple[int, str] | None:
    """Flat position of the first value that cannot be used, and what is wrong with it."""
    if values.dtype.kind == "b" or not values.size:
        return None
    tests = [("not finite", lambda v: ~np.isfinite(v))] if values.dtype.kind == "f" else []
    tests.append((f"larger than {LARGEST:g}", lambda v: (v > LARGEST) | (v < -LARGEST)))
    if require_counts:
        tests.append(("negative", lambda v: v < 0))
    if require_counts and values.dtype.kind == "f":
        tests.append(("not whole numbers", lambda v: v != np.rint(v)))
    for nature, test in tests:
        hit = test(values)
        if hit.any():
            return int(hit.ravel().argmax()), nature
    return None


def _bad_value_error(
    adata: AnnData, where: str, kind: str, key: str, layer: str | None, nature: str, at: str
) -> ScmambaError:
    """What is wrong with a value, and which other layers may hold the counts."""
    if nature == "not finite":
        return ScmambaError(f"{where} holds values that are not finite ({at}). Replace or remove them.")
    if nature.startswith("larger"):
        return ScmambaError(
            f"{where} holds values that are {nature} ({at}), too large to be computed with. Correct them."
        )
    others = [name for name in [None, *adata.layers] if name != layer]
    names = ", ".join("X (pass None)" if name is None else repr(name) for name in others)
    return ScmambaError(
        f"{where} holds values that are {nature} ({at}), so it is not raw counts: it looks normalised, "
        f"log-transformed or scaled. Pass the matrix with raw counts, setup_mudata(mdata, layers={{{kind!r}: ...}}); "
        f"mdata[{key!r}] also has: {names or 'no other layer'}. If these values are meant (corrected counts, or "
        f"values={{{kind!r}: 'raw'}} in the model), pass require_counts=False."
    )


def _describe_entry(adata: AnnData, block: sparse.csr_matrix | np.ndarray, first: int, flat: int) -> str:
    """A stored value of a block that begins at row ``first``, with its cell and its feature."""
    if sparse.issparse(block):
        row, column = int(np.searchsorted(block.indptr, flat, side="right")) - 1, int(block.indices[flat])
        value = block.data[flat]
    else:
        row, column = divmod(flat, block.shape[1])
        value = block[row, column]
    return f"{value:g} in cell {adata.obs_names[first + row]!r}, feature {adata.var_names[column]!r}"
