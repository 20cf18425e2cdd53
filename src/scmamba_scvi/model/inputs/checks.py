"""Checks of a MuData before any work; errors name what is wrong, where, and what to do."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset
from mudata import MuData
from scipy import sparse

from ..._arguments import listed
from ..._compat import for_scipy, warn
from ...errors import ScmambaError, UnknownNameError, written
from .disk import ArrayOnDisk, rows_of

#: Rows checked together: small beside a matrix that does not fit into memory, large enough for numpy to be fast.
BLOCK = 2048
#: What `check_still_counts` looks at: stored values of a sparse matrix, rows of a dense one.
FIRST_VALUES, FIRST_ROWS = 100_000, 32
#: No real count comes near it, and sums of its square do not overflow float32.
LARGEST = 1e15
#: Names of antibodies that tell nothing of a cell's state: hashtags, which name its sample, and isotype controls.
NO_PROTEIN = re.compile(
    r"hash ?tag|^hto|isotype|ig[agm]\w*[ _-](control|ctrl)|(hamster|mouse|rat)[ _-]ig[agm]", re.IGNORECASE
)


def check_mudata(
    mdata: MuData,
    modalities: Mapping[str, str],
    layers: Mapping[str, str | None],
    *,
    require_counts: bool,
    of_query: bool,
) -> None:
    """Check what later steps take for granted of ``modalities``, of new data for a model if ``of_query``."""
    if mdata.axis == 1:
        raise ScmambaError(
            "This MuData holds different cells of the same features (axis=1), and modalities of the same cells are needed: "
            "mudata.MuData({'rna': ..., 'atac': ...}), without axis."
        )
    for where, part in {"mdata": mdata, **{f"mdata.mod[{key!r}]": part for key, part in mdata.mod.items()}}.items():
        check_is_no_view(part, where)
    for kind, key in modalities.items():
        check_names(mdata.mod[key], f"mdata[{key!r}]")
        check_matrix(mdata.mod[key], kind, key, layers.get(kind), require_counts=require_counts, of_query=of_query)
        if kind == "protein" and not of_query:
            _warn_of_controls(mdata.mod[key].var_names, key)
    check_cells(mdata)


def check_is_no_view(data: MuData | AnnData, where: str) -> None:
    """Raise at a slice: mudata may put its cells into another order when something is written into it."""
    if data.is_view:
        copy = "copy('slice.h5mu')" if data.isbacked else "copy()"  # one in a file is copied to another file
        raise ScmambaError(
            f"{where} is a view, a slice of other data. Make it an object of its own first: {where} = {where}.{copy}."
        )


def check_cells(mdata: MuData) -> None:
    """The cells of the modalities are those of ``mdata``."""
    in_modalities = pd.Index([]).append([modality.obs_names for modality in mdata.mod.values()]).unique()
    alone, unlisted = mdata.obs_names.difference(in_modalities), in_modalities.difference(mdata.obs_names)
    for cells, what in (
        (alone, "cells of mdata are in none of its modalities"),
        (unlisted, "cells are not in mdata.obs"),
    ):
        if len(cells):
            raise ScmambaError(
                f"{len(cells):,} {what}, such as {cells[0]!r}: a modality was changed after the MuData was made. Call "
                f"mdata.update() first."
            )


def check_pairs(mdata: MuData, modalities: Mapping[str, str], *, needed: bool) -> None:
    """Cells with several modalities, if ``needed`` at least one; warn of names that look like one cell's and differ."""
    names = {key: mdata.mod[key].obs_names for key in modalities.values()}
    n_paired = int((pd.Index([]).append(list(names.values())).value_counts() > 1).sum())
    alike = next((found for a, b in itertools.combinations(names, 2) if (found := _alike(names[a], names[b]))), None)
    if alike is None and (n_paired or not needed):
        return
    if alike is None:
        examples = ", ".join(f"{key}: {n[0]!r}" for key, n in names.items() if len(n))
    else:
        examples = f"{alike[0]!r} and {alike[1]!r} look like one cell"
    message = (
        f"{n_paired or 'None'} of {mdata.n_obs:,} cells have two of the modalities {list(names)}: cell names "
        f"{'differ in part' if n_paired else 'do not overlap'} ({examples}). If the cells are the same, give them the same "
        f"obs_names in every modality and make the MuData again."
    )
    if needed and not n_paired:
        raise ScmambaError(message)
    warn(message)


def _alike(first: pd.Index, second: pd.Index) -> tuple[str, str] | None:
    """Two names that differ by a prefix or a suffix, if that is so for half of the cells that only one side has."""
    own = first.difference(second), second.difference(first)
    a, b = map(_cores, own)
    both = sorted(a.keys() & b.keys())
    if not both or 2 * len({a[core] for core in both}) < min(map(len, own)):
        return None
    return a[both[0]], b[both[0]]


def _cores(names: pd.Index) -> dict[str, str]:
    """From each name, with and without its prefix or suffix, to the name, where no two names become the same."""
    found: dict[str, str] = {}
    for ending in (r"^[^-_.:#]*[-_.:#]", r"[-_.:#][^-_.:#]*$"):
        core = names.str.replace(ending, "", regex=True)
        unique = ~core.duplicated(keep=False)
        found |= dict(zip(core[unique], names[unique], strict=True))
    return found | dict(zip(names, names, strict=True))


def check_names(adata: AnnData, where: str) -> None:
    """Names are text and unique: cells and features are identified by nothing else."""
    if not adata.n_obs or not adata.n_vars:
        raise ScmambaError(f"{where} is empty: {adata.n_obs} cells x {adata.n_vars} features.")
    for what, names, fix in (
        ("cell", adata.obs_names, "obs_names_make_unique()"),
        ("feature", adata.var_names, "var_names_make_unique()"),
    ):
        if not all(isinstance(name, str) for name in names):
            attribute = f"{where}.{fix.partition('_make')[0]}"
            raise ScmambaError(
                f"{where} has {what} names that are not text: convert them, {attribute} = {attribute}.astype(str)."
            )
        repeated = names[names.duplicated()].unique()
        if len(repeated):
            # numbers would pair the wrong cells where modalities list them in another order
            advice = (
                f"Make them unique: {where}.{fix}."
                if what == "feature"
                else f"If they are of several samples, put the sample before them in every modality, {where}.obs_names = "
                f"{where}.obs['sample'].astype(str) + '_' + {where}.obs_names, and make the MuData again."
            )
            raise ScmambaError(
                f"{where} has {len(repeated):,} {what} names that occur more than once, such as "
                f"{', '.join(map(repr, repeated[:3]))}. {advice}"
            )


def _warn_of_controls(names: pd.Index, key: str) -> None:
    """Hashtags and isotype controls among the proteins."""
    if found := [repr(name) for name in names if NO_PROTEIN.search(name)]:
        warn(
            f"mdata[{key!r}] has hashtags or isotype controls, by their names: {listed(found, 5)}. They are read as proteins, and "
            f"tell nothing of a cell's state. Take them out: mdata.mod[{key!r}] = mdata[{key!r}][:, is_protein].copy(), then "
            f"mdata.update()."
        )


def _where(key: str, layer: str | None) -> str:
    """A matrix as the user writes it."""
    return f"mdata[{key!r}]" + (".X" if layer is None else f".layers[{layer!r}]")


def check_matrix(
    adata: AnnData, kind: str, key: str, layer: str | None, *, require_counts: bool, of_query: bool
) -> None:
    """Values are finite and, where counts are needed, whole numbers that are not negative."""
    where, x = _where(key, layer), matrix_of(adata, kind, key, layer)
    seen = np.zeros(adata.n_vars, dtype=bool)
    n_empty = 0
    for block in checked_blocks(x, adata, kind, key, layer, require_counts=require_counts, of_query=of_query):
        row, column = block.nonzero()
        seen[column] = True
        n_empty += block.shape[0] - np.count_nonzero(np.bincount(row))
    # usual in a few cells of those that a model was made for
    n_all_zero = 0 if of_query else int((~seen).sum())
    counted = [(n_empty, adata.n_obs, "cells"), (n_all_zero, adata.n_vars, "features")]
    empty = " and ".join(f"{n:,} of {of:,} {what}" for n, of, what in counted if n)
    advice = (
        f" These cells count as measured. If zeros stand for cells that were not, take them out: mdata.mod[{key!r}] = "
        f"mdata[{key!r}][was_measured].copy(), then mdata.update()."
    )
    if empty:
        warn(f"{where}: {empty} are zero throughout. They are kept.{advice if n_empty else ''}")


def checked_blocks(
    x: Any, adata: AnnData, kind: str, key: str, layer: str | None, *, require_counts: bool, of_query: bool
) -> Iterator[Any]:
    """Blocks of rows of ``x``, the matrix of ``adata``; raises if it or a value of it cannot be used."""
    where = _where(key, layer)
    check_storage(x, where)
    if sparse.issparse(x):
        check_compressed(x, where)
    rows = rows_of(x)
    for first in range(0, rows.shape[0], BLOCK):
        block = rows[first : first + BLOCK]
        if sparse.issparse(block) and not sparse.issparse(x):  # read from a file, block by block
            check_compressed(block, where)
        bad = _first_bad(block.data if sparse.issparse(block) else block, require_counts=require_counts)
        if bad is not None:
            flat, nature, advice = bad
            at = _describe_entry(adata, block, first, flat)
            advice = advice or _not_counts(adata, kind, key, layer, of_query=of_query)
            raise ScmambaError(f"{where} holds values that are {nature} ({at}){advice}")
        yield block


def check_still_counts(x: Any, kind: str, key: str, layer: str | None) -> None:
    """Values in memory are still counts: scanpy normalises in place, and the model reads the data whenever it is used."""
    check_storage(x, _where(key, layer))
    if not (sparse.issparse(x) or isinstance(x, np.ndarray)):
        return
    # normalisation changes every cell, so that the first values tell
    bad = _first_bad(x.data[:FIRST_VALUES] if sparse.issparse(x) else x[:FIRST_ROWS], require_counts=True)
    if bad is not None:
        where = _where(key, layer)
        raise ScmambaError(
            f"{where} was changed after setup_mudata, and holds values that are {bad[1]}: the model reads raw counts from "
            f"there whenever it is used. Put them back. To normalise {where}, keep the counts in another layer, "
            f"mdata[{key!r}].layers['counts'] = mdata[{key!r}].X.copy(), and call setup_mudata(mdata, "
            f"layers={{{kind!r}: 'counts'}}) before."
        )


def matrix_of(adata: AnnData, kind: str, key: str, layer: str | None) -> Any:
    """The matrix that holds the counts."""
    if layer is not None and layer not in adata.layers:
        there = f"mdata[{key!r}].layers[{layer!r}] = mdata[{key!r}].X"
        advice = f"To read X, give {written('layers', {kind: None})}, or put it there: {there}."
        raise UnknownNameError(f"layer of mdata[{key!r}]", layer, _layers(adata), advice)
    x = adata.X if layer is None else adata.layers[layer]
    if x is None:
        raise ScmambaError(
            f"mdata[{key!r}].X is empty. Name the layer that holds counts: {written('layers', {kind: ...})}."
        )
    return x


def _layers(adata: AnnData) -> list[str]:
    """Names of the layers; anndata 0.13 lists X among them, as `None`."""
    return [name for name in adata.layers if name is not None]


def check_storage(x: Any, where: str) -> None:
    """The matrix is of a kind whose rows can be read, and holds numbers."""
    if isinstance(x, np.ma.MaskedArray):
        raise ScmambaError(f"{where} is a masked array: missing counts have no meaning here. Fill it, .filled(0).")
    if isinstance(x, CSCDataset):
        raise ScmambaError(
            f"{where} is stored by columns on disk, so cells cannot be read. scmamba_scvi.data.convert_mudata writes it by "
            "rows."
        )
    if not sparse.issparse(x) and not isinstance(x, np.ndarray | CSRDataset | ArrayOnDisk):
        kind = type(x)
        raise ScmambaError(
            f"{where} is a {kind.__module__}.{kind.__name__}: make it a numpy array or a scipy CSR matrix, as "
            f"AnnData.to_memory() does with dask, or leave the counts in a file, scmamba_scvi.data.open_mudata(path)."
        )
    if np.dtype(x.dtype).kind not in "biuf":
        raise ScmambaError(f"{where} has values of type {x.dtype}: counts must be numbers.")


def check_compressed(x: Any, where: str) -> None:
    """The arrays of a CSR or CSC matrix fit each other; if not, compiled code would read past their ends."""
    if x.format not in ("csr", "csc"):
        return
    try:
        # scipy's check shortens and converts arrays of the matrix: a second one, around the user's arrays, takes that
        checked = type(x)(x.shape)
        checked.data, checked.indices, checked.indptr = x.data, x.indices, x.indptr
        checked.check_format(full_check=True)
    except (ValueError, IndexError) as error:
        raise ScmambaError(f"{where} is a damaged sparse matrix: {error}. Read or make it again.") from error


def _first_bad(values: np.ndarray, *, require_counts: bool) -> tuple[int, str, str] | None:
    """Flat position of the first value that cannot be used, what is wrong with it, and what to do unless it is no count."""
    if values.dtype.kind == "b" or not values.size:
        return None
    values = for_scipy(values)  # float16 ends before LARGEST
    too_large = f"larger than {LARGEST:g}"
    tests: list[tuple[str, str, Callable]] = [
        (too_large, ", too large to be computed with. Correct them.", lambda v: (v > LARGEST) | (v < -LARGEST))
    ]
    if values.dtype.kind == "f":
        tests.insert(0, ("not finite", ". Replace or remove them.", lambda v: ~np.isfinite(v)))
    if require_counts:
        tests.append(("negative", "", lambda v: v < 0))
    if require_counts and values.dtype.kind == "f":
        tests.append(("not whole numbers", "", lambda v: v != np.rint(v)))
    for nature, advice, test in tests:
        hit = test(values)
        if hit.any():
            return int(hit.ravel().argmax()), nature, advice
    return None


def _not_counts(adata: AnnData, kind: str, key: str, layer: str | None, *, of_query: bool) -> str:
    """What to do about values that are no counts, and where else the counts may be."""
    others = [name for name in [None, *_layers(adata)] if name != layer]
    names = ", ".join(f"X ({written('layers', {kind: None})})" if name is None else repr(name) for name in others)
    has = f"mdata[{key!r}] {f'also has: {names}' if names else 'has no other layer'}.{_of_raw(adata, key)}"
    wrong = ", so it is not raw counts: it looks normalised, log-transformed or scaled."
    if of_query:  # methods that take new data have neither argument
        return (
            f"{wrong} The model was trained on raw counts: put them into {_where(key, layer)}, or say where they are, "
            f"SCMAMBA.prepare_query_mudata(mdata, model, layers={{{kind!r}: ...}}); {has}"
        )
    return (
        f"{wrong} Pass the matrix with raw counts, {written('layers', {kind: ...})}; {has} If these values are meant "
        f"(corrected counts, or values={{{kind!r}: 'raw'}} in the model), pass {written('require_counts', False)}."
    )


def _of_raw(adata: AnnData, key: str) -> str:
    """That ``raw``, which many keep the counts in, holds some; empty if it holds no counts."""
    x: Any = None if adata.raw is None else adata.raw.X
    values = x.data[:FIRST_VALUES] if sparse.issparse(x) else x[:FIRST_ROWS] if isinstance(x, np.ndarray) else None
    if values is None or _first_bad(values, require_counts=True) is not None:
        return ""
    return (
        f" Its raw holds counts: mdata[{key!r}].raw.to_adata() is an AnnData of them, which .write_h5ad({f'{key}_counts.h5ad'!r}) "
        f"makes a file."
    )


def _describe_entry(adata: AnnData, block: Any, first: int, flat: int) -> str:
    """A stored value of a block that begins at row ``first``, with its cell and its feature."""
    if sparse.issparse(block):
        row, column = int(np.searchsorted(block.indptr, flat, side="right")) - 1, int(block.indices[flat])
        value = block.data[flat]
    else:
        row, column = divmod(flat, block.shape[1])
        value = block[row, column]
    return f"{value:g} in cell {adata.obs_names[first + row]!r}, feature {adata.var_names[column]!r}"
