"""From a MuData of raw counts to embeddings, clusters and UMAP coordinates in one call, and its files."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from ._columns import obs_column
from ._compat import quiet
from ._files import atomic_write
from ._keys import HELD_OUT_KEY, OBSM_KEY
from .errors import ScmambaError
from .metrics import true_match_ranks

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from .model import SCMAMBA

logger = logging.getLogger(__name__)

#: ``obs`` column with the clusters of the joint embedding.
CLUSTER_KEY: Final = "leiden_scmamba"
#: ``obsm`` key of the UMAP coordinates, in the MuData (joint embedding) and in each modality.
UMAP_KEY: Final = "X_umap"
#: Up to this many cells neighbours are searched exactly. That takes a minute at most, about as long as the approximate
#: search needs to compile, and gives the same neighbours on every machine.
EXACT_NEIGHBORS_UP_TO: Final = 100_000
#: An HDF5 array that declares more bytes than this per stored byte cannot be real: deflate, the strongest of its common
#: filters, reaches about 1,030. Arrays of up to `MAX_UNCHECKED_BYTES` are read without the check.
MAX_COMPRESSION: Final = 1100
MAX_UNCHECKED_BYTES: Final = 1 << 26


def integrate(
    mdata: MuData,
    *,
    modalities: Mapping[str, str] | None = None,
    layers: Mapping[str, str] | None = None,
    batch_key: str | None = None,
    labels_key: str | None = None,
    require_counts: bool = True,
    genome: str | None = None,
    preset: str = "auto",
    n_latent: int = 64,
    seed: int = 0,
    umap: bool = True,
    model_dir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    model_kwargs: Mapping[str, Any] | None = None,
    **train_kwargs: Any,
) -> SCMAMBA:
    """Train a model on ``mdata`` and write the embeddings, clusters and UMAP coordinates into ``mdata``.

    - ``obsm["X_scmamba"]`` of the MuData is the joint embedding; that of each modality embeds its cells from this
      modality alone, in its own order of cells.
    - ``obs["leiden_scmamba"]`` holds Leiden clusters of the joint embedding.
    - ``obs["held_out_scmamba"]`` marks the cells that training never saw.
    - ``obsm["X_umap"]``, with ``umap``, holds coordinates: the joint embedding has a plane of its own, and the
      modalities share another one.

    Parameters
    ----------
    mdata
        Raw counts of at least two modalities.
    modalities, layers, batch_key, labels_key, require_counts, genome
        As in :meth:`~scmamba_scvi.SCMAMBA.setup_mudata`.
    preset, n_latent, model_kwargs
        As in :class:`~scmamba_scvi.SCMAMBA`; ``model_kwargs`` are its further options.
    seed
        The same seed gives the same result on the same machine. scvi-tools draws from the global generators of Python,
        NumPy and torch; their states are restored afterwards.
    umap
        Fit UMAP coordinates, the slowest step after training.
    model_dir, overwrite
        Save the model into this folder as soon as it is trained.
    **train_kwargs
        As in :meth:`~scmamba_scvi.SCMAMBA.train`.

    Returns
    -------
    The trained model.

    Raises
    ------
    ScmambaError
        If ``mdata`` cannot be used; nothing has been written into it then.
    KeyboardInterrupt
        After Ctrl-C in training, once the best weights so far are in ``model_dir``.

    Examples
    --------
    >>> from scmamba_scvi import workflow
    >>> model = workflow.integrate(mdata, batch_key="batch", umap=False)
    >>> mdata.obsm["X_scmamba"].shape, "leiden_scmamba" in mdata.obs
    ((300, 64), True)
    """
    from .model import SCMAMBA

    with _seeded(seed):
        SCMAMBA.setup_mudata(
            mdata, modalities=modalities, layers=layers, batch_key=batch_key, labels_key=labels_key,
            require_counts=require_counts, genome=genome,
        )  # fmt: skip
        model = SCMAMBA(mdata, n_latent=n_latent, preset=preset, **(model_kwargs or {}))
        model.train(**train_kwargs)
        if model_dir is not None:
            model.save(os.fspath(model_dir), overwrite=overwrite)
        if model.training_summary_["interrupted"]:
            kept = "nothing was kept" if model_dir is None else f"the best weights so far are in {model_dir}"
            raise KeyboardInterrupt(f"Training was stopped: {kept}, mdata is as it was.")
        write_embeddings(mdata, model)
        mdata.obs[HELD_OUT_KEY] = np.isin(np.arange(mdata.n_obs), model.validation_indices)
        logger.info("Clustering %s cells.", f"{mdata.n_obs:,}")
        write_clusters(mdata, seed=seed)
        if umap:
            logger.info("Fitting UMAP coordinates.")
            write_umap(mdata, list(model.kinds.values()), seed=seed)
    return model


def write_embeddings(mdata: MuData, model: SCMAMBA) -> None:
    """Write the joint embedding into ``mdata.obsm`` and each modality's own embedding into its ``obsm``.

    Examples
    --------
    >>> scmamba_scvi.workflow.write_embeddings(mdata, model)
    >>> mdata.obsm["X_scmamba"].shape, mdata["rna"].obsm["X_scmamba"].shape
    ((300, 64), (300, 64))
    """
    mdata.obsm[OBSM_KEY] = model.get_latent_representation(mdata)
    for kind, key in model.kinds.items():
        of_all_cells = model.get_latent_representation(mdata, modality=kind)  # (n_obs, z), NaN where absent
        # by name: a modality may hold fewer cells, and in another order
        rows = mdata.obs_names.get_indexer(mdata[key].obs_names)
        mdata[key].obsm[OBSM_KEY] = of_all_cells[rows]


def write_clusters(mdata: MuData, *, resolution: float = 1.0, seed: int = 0) -> None:
    """Write Leiden clusters of the joint embedding into ``mdata.obs["leiden_scmamba"]``.

    Examples
    --------
    >>> scmamba_scvi.workflow.write_embeddings(mdata, model)
    >>> scmamba_scvi.workflow.write_clusters(mdata, resolution=0.5)
    """
    import scanpy as sc

    cells = _neighbor_graph(mdata.obsm[OBSM_KEY], seed)
    sc.tl.leiden(cells, resolution=resolution, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
    mdata.obs[CLUSTER_KEY] = pd.Categorical(cells.obs["leiden"])


def write_umap(mdata: MuData, keys: list[str], *, seed: int = 0) -> None:
    """Write UMAP coordinates into ``obsm["X_umap"]`` of the MuData and of the modalities ``keys``.

    The embeddings of the modalities share one space and are fitted together, so that their panels can be compared. The
    joint embedding is a space of its own and is fitted alone.

    Examples
    --------
    >>> scmamba_scvi.workflow.write_embeddings(mdata, model)
    >>> scmamba_scvi.workflow.write_umap(mdata, ["rna", "atac"])
    """
    for parts in ([mdata], [mdata[key] for key in keys]):
        stacked = np.concatenate([part.obsm[OBSM_KEY] for part in parts])
        ends = np.cumsum([part.n_obs for part in parts])
        for part, xy in zip(parts, np.split(_umap(stacked, seed), ends[:-1]), strict=True):
            part.obsm[UMAP_KEY] = xy


def held_out_scores(mdata: MuData, model: SCMAMBA, labels_key: str | None = None, k: int = 10) -> pd.DataFrame:
    """Score how well the cells that training never saw find their partners, beside what chance would give.

    Parameters
    ----------
    mdata
        As :func:`integrate` leaves it.
    model
        The model it returned.
    labels_key
        Column of ``mdata.obs`` with known cell types; adds their agreement with the clusters.
    k
        Neighbours that count as found.

    Returns
    -------
    One row per score and columns ``value``, ``chance``, ``best`` (the value of a perfect embedding) and ``n_cells``.

    Raises
    ------
    ScmambaError
        If the model does not know which cells were held out, as after :meth:`~scmamba_scvi.SCMAMBA.from_export`.

    Examples
    --------
    >>> scores = scmamba_scvi.workflow.held_out_scores(mdata, model, labels_key="cell_type")
    >>> scores.columns.tolist()
    ['value', 'chance', 'best', 'n_cells']
    """
    if model.validation_indices is None:
        raise ScmambaError(
            "The model does not know which cells training held out: train it here, or load it with SCMAMBA.load. "
            "metrics.evaluate_integration(model, cells=...) scores any cells."
        )
    held_out = np.asarray(model.validation_indices)
    rows: dict[str, tuple[float, float, float, int]] = {}
    embeddings = {
        kind: model.get_latent_representation(mdata, modality=kind, indices=held_out.tolist()) for kind in model.kinds
    }
    several = len(embeddings) > 2
    for (kind_x, x), (kind_y, y) in itertools.combinations(embeddings.items(), 2):
        paired = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
        n = int(paired.sum())
        if n < 2:
            continue
        name = f" {kind_x}-{kind_y}" if several else ""
        ranks = true_match_ranks(x[paired], y[paired])
        rows[f"FOSCTTM{name}"] = (float(np.mean(ranks.fractions)), (n - 1) / (2 * n), 0.0, n)
        at = min(k, n)
        rows[f"recall@{at}{name}"] = (float(ranks.recall(at)[0]), at / n, 1.0, n)
    if labels_key is not None and CLUSTER_KEY in mdata.obs:
        from sklearn.metrics import adjusted_rand_score

        labels = obs_column(mdata, labels_key, "labels_key").iloc[held_out]
        known = labels.notna().to_numpy()
        clusters = mdata.obs[CLUSTER_KEY].iloc[held_out]
        ari = adjusted_rand_score(labels[known].astype(str), clusters[known].astype(str))
        rows["ARI"] = (float(ari), 0.0, 1.0, int(known.sum()))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "chance", "best", "n_cells"])


def read_mudata(path: str | os.PathLike[str]) -> MuData:
    """Read an ``.h5mu`` file.

    Raises
    ------
    ScmambaError
        If there is no such file, or it is damaged or of another format; the message is one line.

    Examples
    --------
    >>> scmamba_scvi.workflow.write_mudata(mdata, "cells.h5mu")
    >>> scmamba_scvi.workflow.read_mudata("cells.h5mu").n_obs
    300
    """
    path = Path(path)
    if not path.exists():
        raise ScmambaError(f"There is no file {path}.")
    if path.is_dir():
        raise ScmambaError(f"{path} is a folder, not an .h5mu file.")
    import mudata

    try:
        _check_declared_sizes(path)
        return mudata.read_h5mu(path)
    except ScmambaError:
        raise
    except Exception as error:
        # h5py, anndata and mudata raise a dozen types of errors for files that are cut off or hold something else
        reason = " ".join(str(error).split())[:300]
        raise ScmambaError(
            f"{path} cannot be read as .h5mu, it may be cut off or of another format: {reason}"
        ) from error


def write_mudata(mdata: MuData, path: str | os.PathLike[str]) -> None:
    """Write an ``.h5mu`` file; if that fails, ``path`` keeps what it held before.

    Examples
    --------
    >>> scmamba_scvi.workflow.write_mudata(mdata, "cells.h5mu")
    """
    with atomic_write(Path(path)) as unfinished:
        mdata.write_h5mu(unfinished)


def _umap(embedding: np.ndarray, seed: int) -> np.ndarray:
    """Coordinates ``(n, 2)``, NaN for cells without an embedding."""
    import scanpy as sc

    usable = np.isfinite(embedding).all(axis=1)
    points = _neighbor_graph(embedding[usable], seed)
    sc.tl.umap(points, random_state=seed)
    coordinates = np.full((len(embedding), 2), np.nan, dtype=np.float32)
    coordinates[usable] = points.obsm["X_umap"]
    return coordinates


def _neighbor_graph(x: np.ndarray, seed: int, n_neighbors: int = 15) -> AnnData:
    """An AnnData with the graph of nearest neighbours among the rows of ``x``, and without counts."""
    import scanpy as sc
    from anndata import AnnData

    points = AnnData(obs=pd.DataFrame(index=pd.RangeIndex(len(x)).astype(str)), obsm={OBSM_KEY: x})
    transformer = "sklearn" if len(x) <= EXACT_NEIGHBORS_UP_TO else "pynndescent"
    sc.pp.neighbors(
        points, n_neighbors=min(n_neighbors, len(x) - 1), use_rep=OBSM_KEY, transformer=transformer, random_state=seed
    )
    return points


def _check_declared_sizes(path: Path) -> None:
    """Refuse a file that declares a huge array and stores almost nothing: reading it would fill the memory."""
    import h5py

    def check(name: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset) or not item.shape:
            return
        declared, stored = item.size * item.dtype.itemsize, item.id.get_storage_size()
        if declared > MAX_COMPRESSION * stored + MAX_UNCHECKED_BYTES:
            raise ScmambaError(
                f"{path} is damaged or forged: its array {name!r} declares {declared:,} bytes and stores {stored:,}."
            )

    with h5py.File(path, "r") as file:
        file.visititems(check)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Run with scvi-tools' seed set, and restore every generator and setting that this changes."""
    import scvi
    import torch

    variables = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
    environment = {name: os.environ.get(name) for name in variables}
    of_scvi, of_python, of_numpy = scvi.settings.seed, random.getstate(), np.random.get_state()
    # numba, which scanpy's neighbours use, changes the number of OpenMP threads, which torch shares
    n_threads = torch.get_num_threads()
    with torch.random.fork_rng(), quiet("lightning.fabric.utilities.seed"):
        try:
            scvi.settings.seed = seed
            yield
        finally:
            scvi.settings.seed = of_scvi
            random.setstate(of_python)
            np.random.set_state(of_numpy)
            torch.set_num_threads(n_threads)
            for name, value in environment.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
