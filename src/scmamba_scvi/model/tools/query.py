"""New data brought to the features of a model: genes by name, peaks by name or by overlap, missing ones zero and marked."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from ..._columns import has_obs_column
from ..._compat import mudata_of, warn, without_pulling
from ...errors import ScmambaError
from ...pp.coordinates import Coordinates, parse_coordinates
from ...pp.overlap import best_overlaps
from .._base import ModelBase
from ..inputs.arguments import check_fraction, check_layers
from ..inputs.checks import check_names, checked_blocks, matrix_of
from ..inputs.disk import in_memory
from ..inputs.genome import build_of
from ..inputs.kinds import how_to_make_mudata, kind_of_modality, kinds_in, stated_kinds
from .cells import copy_batch, kind_of_features

# below scvi-tools' logger: `scvi.settings.verbosity` is for it too
logger = logging.getLogger(f"scvi.{__name__}")

#: ``uns`` key of the report, and ``var`` column of the features that the query has.
MAPPING_KEY: Final = "query_mapping"
FOUND_COLUMN: Final = "in_query"
#: What Ensembl puts behind an identifier, such as the ``.5`` of ``ENSG00000186092.5``.
VERSION: Final = r"(?<=\d{11})\.\d+$"
#: Fraction of the peaks of either side that the other side overlaps, below which another genome build is likelier than
#: another caller: of the peaks of SNARE-seq more than three in four meet another when moved by 100 bases, fewer than one in
#: twenty when moved by 100 kilobases (tests/model/test_real_data.py).
MIN_OVERLAP: Final = 0.5


def prepare_query(
    data: MuData | AnnData,
    model: ModelBase,
    layers: Mapping[str, str | None] | None,
    genome: str | None,
    min_coverage: float,
) -> MuData:
    """MuData with the keys and features of ``model``; ``data`` stay as they are."""
    check_fraction("min_coverage", min_coverage, "a fraction of the model's features")
    mdata = _query_as_mudata(model, data)
    kinds = _kinds_of(model, mdata)
    if not kinds:
        raise ScmambaError(
            f"The query has no cells with {' or '.join(model.kinds)}: was it filtered by a mask that selects none?"
        )
    build, build_of_model = build_of(mdata, kinds, genome), model._setup_args.get("genome")
    if build is not None and build_of_model is not None and build != build_of_model:
        raise ScmambaError(
            f"The query is on {build}, the model was trained on {build_of_model}: coordinates of two builds cannot be "
            f"compared. Lift the query over to {build_of_model}, or count it there."
        )
    query_layers = {**model._setup_args["layers"], **check_layers(layers, kinds)}
    mods, reports = {}, {}
    for kind, key in kinds.items():
        mods[model.kinds[kind]], reports[model.kinds[kind]] = _mapped(
            model, mdata.mod[key], kind, key, query_layers.get(kind), build, min_coverage
        )
    return _assembled(model, mdata, mods, reports, build or build_of_model)


def _mapped(
    model: ModelBase, source: AnnData, kind: str, key: str, layer: str | None, build: str | None, min_coverage: float
) -> tuple[AnnData, dict[str, int | float]]:
    """One modality of the query, called ``key`` there, with the features of the model; and how they were found."""
    check_names(source, f"mdata[{key!r}]")
    known = pd.Index(model.feature_names(kind)).astype(str)
    stored, setup = matrix_of(source, kind, key, layer), model._setup_args
    counts = in_memory(stored)
    for _ in checked_blocks(counts, source, kind, key, layer, require_counts=setup["require_counts"], of_query=True):
        pass  # here, since the result has no other layers to name
    by_name = known.get_indexer(source.var_names)
    target = _with_overlaps(model, by_name, source, key, build) if kind == "atac" else by_name
    found = np.isin(np.arange(len(known)), target)
    _check_coverage(found, known, source.var, key, min_coverage)
    x, kept = _apply(counts, target, len(known))
    x = x.copy() if x is stored else x  # scanpy normalises in place, there or here
    layer_of_model = setup["layers"].get(kind)
    adata = AnnData(
        x, obs=_own_columns(source.obs), var=pd.DataFrame({FOUND_COLUMN: found}, index=known),
        layers={} if layer_of_model is None else {layer_of_model: x.copy()},
    )  # fmt: skip
    n_by_name, n_mapped = int((by_name >= 0).sum()), int((target >= 0).sum())
    return adata, {
        "features_of_model": len(known), "found": int(found.sum()), "coverage": float(found.mean()),
        "features_of_query": len(target), "by_name": n_by_name, "by_overlap": n_mapped - n_by_name,
        "ignored": len(target) - n_mapped, "counts_kept": kept,
    }  # fmt: skip


def _with_overlaps(model: ModelBase, by_name: np.ndarray, source: AnnData, key: str, build: str | None) -> np.ndarray:
    """Position in the model of each peak of ``source``: that of its name, else of the peak it overlaps most, else -1."""
    # other features, such as genes, have intervals too, and are found by name alone
    may_be_peaks = np.array([stated in ("atac", None) for stated in stated_kinds(source)])
    query, reference = _only(parse_coordinates(source.var), may_be_peaks), model.coordinates("atac")
    if (by_name >= 0).all() or not query.placed.any() or not reference.placed.any():
        return by_name
    overlapping = best_overlaps(query, reference)
    of_query = (overlapping >= 0).sum() / query.placed.sum()
    of_model = len(np.unique(overlapping[overlapping >= 0])) / reference.placed.sum()
    if max(of_query, of_model) >= MIN_OVERLAP:
        return np.where(by_name < 0, overlapping, by_name)
    for whose, where in ((f"mdata[{key!r}]", query), ("the model", reference)):
        starts = np.unique(where.start[where.placed])
        if (where.end == where.start).all() and len(starts) > 1:
            raise ScmambaError(
                f"The intervals of {whose} have no end: var has a column of starts alone. Tiles all of one width end at "
                f"mdata[{key!r}].var['end'] = mdata[{key!r}].var['start'] + {np.gcd.reduce(np.diff(starts))}."
            )
    build_of_model = model._setup_args.get("genome")
    raise ScmambaError(
        f"Only {of_query:.0%} of the intervals of mdata[{key!r}] overlap one of the model, and {of_model:.0%} of those of "
        f"the model overlap one of the query: another genome build, or another species, is likelier than another peak "
        f"caller. The query is on {build or 'an unknown build'}, the model on {build_of_model or 'an unknown build'}. Lift "
        f"the intervals over to the model's build, or count the fragments in the model's intervals."
    )


def _only(coordinates: Coordinates, kept: np.ndarray) -> Coordinates:
    """The coordinates of ``kept`` features; the others have none."""
    chrom, start, end = (np.where(kept, x, -1) for x in (coordinates.chrom, coordinates.start, coordinates.end))
    return dataclasses.replace(coordinates, chrom=chrom, start=start, end=end)


def _check_coverage(found: np.ndarray, known: pd.Index, var: pd.DataFrame, key: str, min_coverage: float) -> None:
    if found.any() and found.mean() >= min_coverage:
        return
    columns = {name: int(known.isin(var[name].astype(str)).sum()) for name in var if var[name].dtype.kind not in "iufb"}
    better = max(columns, key=columns.__getitem__, default=None)
    hint = (
        f" var[{better!r}] holds {columns[better]:,} of them: mdata[{key!r}].var_names = mdata[{key!r}].var[{better!r}]."
        if better is not None and columns[better] > 2 * max(1, found.sum())
        else f" The query has {', '.join(map(repr, var.index[:3]))}, the model {', '.join(map(repr, known[:3]))}: give them the "
        f"names of the model."
    )
    bare, known_bare = (names.str.replace(VERSION, "", regex=True) for names in (var.index, known))
    if known_bare.isin(bare).sum() > 2 * max(1, found.sum()):
        hint += (
            f" Without the versions of Ensembl, {known_bare.isin(bare).sum():,} are found: give both the same names, such as "
            f"those of mdata[{key!r}].var_names.str.replace({VERSION!r}, '', regex=True)."
        )
    call = "SCMAMBA.prepare_query_mudata(mdata, model, min_coverage=...)"
    way_out = f" To continue anyway: {call}, {found.mean():.2g} or lower." if found.any() else ""
    raise ScmambaError(
        f"mdata[{key!r}] has {found.sum():,} of the {len(found):,} features of the model ({found.mean():.0%}), less than "
        f"min_coverage={min_coverage:g}.{hint}{way_out}"
    )


def _apply(counts: Any, target: np.ndarray, n_model: int) -> tuple[Any, float]:
    """Counts ``(n, f)`` of the model's features, summed where several map to one; and the fraction of all counts kept."""
    if np.array_equal(target, np.arange(n_model)):
        return counts, 1.0
    used = np.flatnonzero(target >= 0)
    # sums of narrow integers would overflow
    counts = counts.astype(np.result_type(counts.dtype, np.float32))
    ones = np.ones(len(used), dtype=counts.dtype)
    select = sparse.csr_matrix((ones, (used, target[used])), shape=(len(target), n_model))
    out = counts @ select
    total = float(counts.sum())
    return (out.tocsr() if sparse.issparse(out) else out), float(out.sum()) / total if total else 1.0


def _query_as_mudata(model: ModelBase, data: MuData | AnnData) -> MuData:
    """``data`` itself, or an AnnData as the modality of the model with which it shares most features."""
    if isinstance(data, MuData):
        return data
    if not isinstance(data, AnnData):
        raise ScmambaError(f"A query is a MuData, or an AnnData of one modality; got {type(data).__name__}.")
    stated = sorted({kind for kind in stated_kinds(data) if kind})
    if len(stated) > 1:
        raise ScmambaError(f"This AnnData holds {' and '.join(stated)}, not divided. {how_to_make_mudata(data)}")
    kind = kind_of_features(model, data) or kind_of_modality("", data)
    if kind not in model.kinds:
        raise ScmambaError(
            f"None of the features of this AnnData (such as {', '.join(map(repr, data.var_names[:3]))}) is known to the "
            f"model. If they are of another naming or peaks on other intervals, say what they are: "
            f"mudata.MuData({{'atac': adata}})."
        )
    return mudata_of({model.kinds[kind]: data})


def _kinds_of(model: ModelBase, mdata: MuData) -> dict[str, str]:
    """From the model's kinds to the query's keys."""
    found = {kind: key for kind, key in model.kinds.items() if key in mdata.mod}
    for key, adata in mdata.mod.items():
        kind = kind_of_modality(key, adata)
        if kind in model.kinds and found.setdefault(kind, key) not in (key, model.kinds[kind]):
            raise ScmambaError(
                f"Modalities {found[kind]!r} and {key!r} both look like {kind}: give the one that is meant the key of the "
                f"model, {model.kinds[kind]!r}, or leave out the other."
            )
    if not found:
        raise ScmambaError(
            f"None of the modalities {list(mdata.mod)} looks like one of the model's, {list(model.kinds)}. Name them "
            f"so: mudata.MuData({{{next(iter(model.kinds))!r}: ...}})."
        )
    return kinds_in(mdata, {kind: found[kind] for kind in model.kinds if kind in found})


def _assembled(model: ModelBase, source: MuData, mods: Mapping, reports: Mapping, build: str | None) -> MuData:
    """MuData of ``mods`` with cells and columns of ``source``, and a batch if the model needs one."""
    with without_pulling():
        mdata = mudata_of(mods)
        has_any = source.obs_names.isin(mdata.obs_names)
        order = source.obs_names[has_any]
        if len(order) < mdata.n_obs:
            raise ScmambaError(
                f"{mdata.n_obs - len(order):,} cells are not in mdata.obs: a modality was changed after the MuData was made. "
                f"Call mdata.update() first."
            )
        if not has_any.all():
            warn(f"{(~has_any).sum():,} of {len(has_any):,} cells have none of {list(mods)}: they are left out.")
        if not order.equals(mdata.obs_names):
            mdata = mdata[order].copy()
    for name, column in _own_columns(source.obs).items():
        mdata.obs[name] = column.reindex(mdata.obs_names)
    copy_batch(model, source, mdata)
    if model.batch_key is not None and model._corrects_batches and not has_obs_column(mdata, model.batch_key):
        # without the column, the whole query is one new batch: its cells were probably made together
        known = list(model.batches)
        is_text = any(isinstance(batch, str) for batch in known)  # text cannot be compared with numbers
        names = ("query", *(f"query_{i}" for i in range(2, len(known) + 3))) if is_text else [max(known) + 1]
        name = next(n for n in names if n not in known)
        mdata.obs[model.batch_key] = pd.Categorical([name] * mdata.n_obs)
        logger.info(
            f"The data have no obs[{model.batch_key!r}]: all {mdata.n_obs:,} cells are taken as one new batch, {name!r}."
        )
    mdata.uns[MAPPING_KEY] = dict(reports)
    if build is not None:
        mdata.uns["genome"] = build
    return mdata


def _own_columns(obs: pd.DataFrame) -> pd.DataFrame:
    """A copy without the columns that scvi-tools wrote."""
    return obs[[name for name in obs if not str(name).startswith("_scvi")]].copy()
