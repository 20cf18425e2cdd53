"""The cells that a method is called with: the model's own MuData, another one, or an AnnData of one modality."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from ..._columns import has_obs_column, in_order_of, obs_column
from ..._compat import mudata_of, warn, without_pulling
from ..._keys import JOINT
from ...errors import ScmambaError, UnknownNameError
from .._base import ModelBase
from ..inputs.checks import check_cells, check_names
from ..inputs.kinds import kind_of_modality, kinds_in
from ..inputs.manager import MultiModalManager


def kind_of(model: ModelBase, modality: str | None, argument: str = "modality") -> str | None:
    """Kind of modality by its name or by its key in ``mdata.mod``; `None` where none is named."""
    if modality is None:
        return None
    if not isinstance(modality, str):
        raise ScmambaError(f"{argument} must be the name of one modality, got {modality!r}.")
    kind = {key: kind for kind, key in model.kinds.items()}.get(modality, modality)
    if kind == JOINT:
        raise ScmambaError(f"{argument} must be one modality here, not 'joint': name one of {list(model.kinds)}.")
    if kind not in model.kinds:
        raise UnknownNameError(argument, modality, [*model.kinds, *model.kinds.values()])
    return kind


def only_kind(model: ModelBase, data: MultiModalManager) -> str | None:
    """The only kind that the ``data`` have; `None` if they have several."""
    kinds = list(kinds_in(data.adata, model.kinds))
    return kinds[0] if len(kinds) == 1 else None


def other_kind(model: ModelBase, than: Collection[str | None], argument: str) -> str:
    """The kind that is not among ``than``, or of two kinds the second if none is; of several, ``argument`` has to name one."""
    others = [kind for kind in model.kinds if kind not in than] or list(model.kinds)
    if len(others) > 1 and len(model.kinds) > 2:
        raise ScmambaError(f"Which modality? Name it: {argument}=..., one of {others}.")
    return others[-1]


def kind_of_anndata(model: ModelBase, adata: AnnData, argument: str = "adata") -> str:
    """Kind of the modality that an AnnData, which errors call ``argument``, shares features with."""
    kind = kind_of_features(model, adata)
    if kind is None:
        raise ScmambaError(
            f"None of the features of {argument} (such as {', '.join(map(repr, adata.var_names[:3]))}) is known to the "
            f"model, whose modalities are {list(model.kinds)}."
        )
    return kind


def key_of(model: ModelBase, mdata: MuData, kind: str) -> str:
    """Key of ``kind`` in ``mdata.mod``, which must have it."""
    found = kinds_in(mdata, model.kinds)
    if kind not in found:
        raise ScmambaError(
            f"The data have no cells with {model.kinds[kind]!r} ({kind}); they have {list(found.values())}."
            f"{_what_is_unread(model, mdata, [kind])}"
        )
    return found[kind]


def check_reference(model: ModelBase, data: MultiModalManager, kind: str) -> None:
    """Cells of ``kind`` to search must be passed where the model's own data, as those of a query, have none."""
    own = kinds_in(data.adata, model.kinds)
    if data is model.adata_manager and kind not in own:
        raise ScmambaError(
            f"The data of this model have no cells with {kind}, only with {' and '.join(own)}: pass the cells to search, "
            f"reference=..., such as those that the reference model was trained on."
        )


def warn_of_unread(model: ModelBase, mdata: MuData, but: Sequence[str] = ()) -> None:
    """Warn of modalities that look like one of the model, other than ``but``, and have another key: nothing reads them."""
    unread = _what_is_unread(model, mdata, [kind for kind in model.kinds if kind not in but])
    if unread:
        warn(unread.strip())


def _what_is_unread(model: ModelBase, mdata: MuData, kinds: Sequence[str]) -> str:
    """Which modalities of ``mdata`` look like those of ``kinds`` that it lacks, and what to do; empty if none does."""
    lacking = {kind for kind in kinds if model.kinds[kind] not in mdata.mod}
    others = {key: part for key, part in mdata.mod.items() if key not in model.kinds.values()} if lacking else {}
    alike = {key: kind for key, part in others.items() if (kind := kind_of_modality(key, part)) in lacking}
    return "".join(
        f" mdata[{key!r}] looks like {kind} and is not read, as the model knows it as {model.kinds[kind]!r}: make the MuData "
        f"with this key, or pass what SCMAMBA.prepare_query_mudata(mdata, model) returns."
        for key, kind in alike.items()
    )


def resolve_cells(indices: Sequence[int] | Sequence[bool] | np.ndarray | None, names: pd.Index) -> np.ndarray:
    """Positions among the cells ``names`` of those that ``indices``, positions or a mask, select; all cells for `None`."""
    n_cells = len(names)
    if indices is None:
        return np.arange(n_cells)
    cells = np.asarray(indices)
    if cells.ndim != 1:
        raise ScmambaError(f"indices must be a list of cells, got {cells.ndim} dimensions.")
    if cells.dtype == bool:  # of any type of column: pandas has several for truth values
        cells = np.asarray(in_order_of(names, indices, "The mask of cells"))
        if len(cells) != n_cells:
            raise ScmambaError(f"The mask of cells has {len(cells):,} entries for {n_cells:,} cells.")
        return np.flatnonzero(cells)
    if cells.size and (cells.dtype.kind not in "iu" or cells.min() < -n_cells or cells.max() >= n_cells):
        by_name = " Names have their positions in obs_names.get_indexer(names)." if cells.dtype.kind in "OUST" else ""
        raise ScmambaError(f"indices must be positions among {n_cells:,} cells, or a mask of them.{by_name}")
    return cells.astype(np.int64) % n_cells


def registered(
    model: ModelBase, data: MuData | AnnData | None, kind: str | None = None, argument: str = "adata"
) -> MultiModalManager:
    """``data``, by default the model's, as a MuData that fits the trained ``model``; errors call them ``argument``.

    Other data than the model's are registered anew in each call, and released with what is returned. A slice is copied into
    memory. An AnnData is wrapped, not changed; it holds ``kind``, for `None` the kind whose features it shares.
    """
    if not model.is_trained_:
        raise ScmambaError("Train the model first: model.train().")
    data = model.adata if data is None else data
    if data is None:
        raise ScmambaError(f"This model was loaded without data: pass {argument}=..., a MuData or an AnnData.")
    if isinstance(data, AnnData):
        key = model.kinds[kind or kind_of_anndata(model, data, argument)]
        return model.adata_manager.transfer_fields(mudata_of({key: _whole(data)}))
    if not isinstance(data, MuData):
        raise ScmambaError(f"{argument} must be a MuData, or an AnnData of one modality; got {type(data).__name__}.")
    if data is model.adata:
        model.adata_manager.validate()
        return model.adata_manager
    if any(part.is_view for part in (data, *data.mod.values())):
        for key in kinds_in(data, model.kinds).values():  # mudata fails at a cell that is there twice
            check_names(data.mod[key], f"mdata[{key!r}]")
        check_cells(data)  # a modality was put into another order, and mudata slices it by the old one
        data = _in_memory(data)
    return model.adata_manager.transfer_fields(data)


def _whole(data: AnnData) -> AnnData:
    """``data`` itself, or a copy in memory of a slice."""
    return data if not data.is_view else data.to_memory() if data.isbacked else data.copy()


def _in_memory(data: MuData) -> MuData:
    """Copy of a slice, with the cells in their order."""
    with without_pulling():
        mdata = mudata_of({key: _whole(part) for key, part in data.mod.items()})
        if not mdata.obs_names.equals(data.obs_names):
            mdata = mdata[data.obs_names].copy()
    mdata.obs = data.obs.copy()
    mdata.uns.update({name: value for name, value in data.uns.items() if not str(name).startswith("_scvi")})
    return mdata


def copy_batch(model: ModelBase, source: MuData | AnnData, target: MuData) -> None:
    """Give ``target`` the batch of its cells, if the model knows batches and ``source`` has them."""
    key = model.batch_key
    if key is not None and has_obs_column(source, key) and source.obs_names.is_unique:
        target.obs[key] = obs_column(source, key, "batch_key").reindex(target.obs_names)


def kind_of_features(model: ModelBase, adata: AnnData) -> str | None:
    """Kind of the model's modality that shares most features with ``adata``; `None` if none shares any."""
    names, stated = {kind: model.feature_names(kind) for kind in model.kinds}, kind_of_modality("", adata)
    shared = {kind: int(adata.var_names.isin(known).sum()) for kind, known in names.items()}
    # proteins may have the names of their genes: what the data say, or fewer features, decides
    kind = max(shared, key=lambda kind: (shared[kind], kind == stated, -len(names[kind])))
    return kind if shared[kind] else None
