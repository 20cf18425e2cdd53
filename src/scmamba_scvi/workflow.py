"""From a MuData of raw counts to embeddings, clusters and UMAP coordinates in one call, and its files."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import torch

from ._arguments import MAX_SEED, check_count
from ._columns import obs_column
from ._compat import device_of, limited_threads, quiet, restoring_setup, scanpy_module, warn
from ._files import check_content, check_folder, check_result, check_space, place_of, write_h5mu
from ._keys import CLUSTER_KEY, OBSM_KEY, UMAP_KEY, VALIDATION_KEY
from .errors import ScmambaError, written
from .metrics import leiden_ari_nmi, true_match_ranks
from .metrics.graph import leiden, neighbor_graph
from .model.inputs.checks import check_is_no_view
from .model.inputs.kinds import kinds_in
from .model.inputs.sampling import sample
from .model.tools.classifier import known_labels

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from .model import SCMAMBA

logger = logging.getLogger(__name__)
#: Of more cells, this many drawn at random are clustered for the ARI.
CELLS_OF_ARI: Final = 5_000


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
    - ``obs["validation_scmamba"]`` marks the validation cells: the network was not trained on them, but they chose the epoch.
    - ``obsm["X_umap_scmamba"]``, with ``umap``, holds coordinates: the joint embedding has a plane of its own, and the
      modalities share another one.

    Nothing else in ``mdata`` changes: a ``X_umap``, ``leiden`` or graph of neighbours that is there stays.

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
        Fit UMAP coordinates, the slowest step after training. Without, those of an earlier call are removed.
    model_dir, overwrite
        Save the model into this folder as soon as it is trained. If that fails, a warning says so, and the model is returned.
    **train_kwargs
        As in :meth:`~scmamba_scvi.SCMAMBA.train`.

    Returns
    -------
    The trained model.

    Raises
    ------
    ScmambaError
        If ``mdata`` or an argument cannot be used. After any error, ``mdata`` is as it was.
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

    _check_arguments(seed, {"labels_key": labels_key, "batch_key": batch_key}, model_kwargs or {})
    device_of(train_kwargs.get("accelerator", "auto"), train_kwargs.get("devices", "auto"))  # raises if it is not there
    folder = None if model_dir is None else Path(model_dir)
    if folder is not None:
        check_folder(folder, overwrite)
    scanpy_module()  # raises where it could not cluster after the training
    with _seeded(seed), _restoring(mdata):
        SCMAMBA.setup_mudata(
            mdata, modalities=modalities, layers=layers, batch_key=batch_key, labels_key=labels_key,
            require_counts=require_counts, genome=genome,
        )  # fmt: skip
        try:
            check_content(mdata)
        except ScmambaError as error:
            warn(f"This result cannot be kept in a file. {error}")
        model = SCMAMBA(mdata, n_latent=n_latent, preset=preset, **(model_kwargs or {}))
        _train(model, folder, overwrite, train_kwargs)
        write_embeddings(mdata, model)
        mdata.obs[VALIDATION_KEY] = np.isin(np.arange(mdata.n_obs), model.validation_indices)
        logger.info("Clustering %s cells.", f"{mdata.n_obs:,}")
        _write_clusters(mdata, seed)
        for part in (mdata, *mdata.mod.values()):
            part.obsm.pop(UMAP_KEY, None)  # of an earlier model: figures would draw it beside the new clusters
        if umap:
            logger.info("Fitting UMAP coordinates.")
            _write_umap([mdata], seed)
            # together, as they share one space, so that their panels can be compared
            _write_umap([mdata[key] for key in model.kinds.values()], seed)
    return model


def write_embeddings(mdata: MuData, model: SCMAMBA) -> None:
    """Write the joint embedding into ``mdata.obsm`` and each modality's own embedding into its ``obsm``.

    Both are called ``"X_scmamba"``, and replace what has this name. Cells without an embedding have rows of NaN. A
    modality that the model lacks has none afterwards: that of an earlier model lies in another space.

    Parameters
    ----------
    mdata
        Cells to embed, with the features of the model; changed in place.
    model
        A trained model.

    Raises
    ------
    ScmambaError
        The model is not trained, or the data are a slice of others, or lack features or modalities of it.

    Examples
    --------
    >>> scmamba_scvi.workflow.write_embeddings(mdata, model)
    >>> mdata.obsm["X_scmamba"].shape, mdata["rna"].obsm["X_scmamba"].shape
    ((300, 64), (300, 64))
    """
    check_is_no_view(mdata, "mdata")
    joint = model.get_latent_representation(mdata)
    # (n_obs, z) each, NaN where absent; all before the first is written, as one may raise
    of_all_cells = {
        key: model.get_latent_representation(mdata, modality=kind) for kind, key in kinds_in(mdata, model.kinds).items()
    }
    mdata.obsm[OBSM_KEY] = joint
    for key, part in mdata.mod.items():
        if key in of_all_cells:
            # by name: a modality may hold fewer cells, and in another order
            part.obsm[OBSM_KEY] = of_all_cells[key][mdata.obs_names.get_indexer(part.obs_names)]
        else:
            part.obsm.pop(OBSM_KEY, None)  # of an earlier model, in another space


def validation_scores(mdata: MuData, model: SCMAMBA, labels_key: str | None = None) -> pd.DataFrame:
    """FOSCTTM and recall of the validation cells and, with labels, ARI of all cells, beside what chance would give.

    The network was not trained on the validation cells, but they chose the epoch and the stage, and the alignment of the
    modalities and the temperature of the confidences were fitted to them: new cells score a little worse. To score cells
    that had no part, leave some out of both, ``train(train_size=0.8, validation_size=0.1)``, and pass
    ``cells=model.test_indices`` to :func:`scmamba_scvi.metrics.evaluate_integration`.

    Parameters
    ----------
    mdata, model
        As :func:`integrate` leaves and returns them.
    labels_key
        Column of ``mdata.obs`` with known cell types; adds the ARI of :func:`~scmamba_scvi.metrics.leiden_ari_nmi` on
        the joint embedding of all cells, of which labels are no part, or of 5,000 drawn at random. Cells without a type, or
        of the ``unlabeled_category`` of `setup_mudata`, are left out.

    Returns
    -------
    One row per score and columns ``value``, ``chance``, ``best`` (the value of a perfect embedding) and ``n_cells``.

    Raises
    ------
    ScmambaError
        If the model does not know its validation cells, as after :meth:`~scmamba_scvi.SCMAMBA.from_export`, or ``mdata``
        has other cells, or the same in another order.

    Examples
    --------
    >>> scores = scmamba_scvi.workflow.validation_scores(
    ...     mdata, model, labels_key="cell_type"
    ... )
    >>> scores.columns.tolist()
    ['value', 'chance', 'best', 'n_cells']
    """
    if model.validation_indices is None:
        raise ScmambaError(
            "The model does not know its validation cells: train it here, or load it with SCMAMBA.load. "
            "metrics.evaluate_integration(mdata, cells=...) scores any cells."
        )
    model._check_cells_of_training(mdata, "validation_indices")
    cells = np.asarray(model.validation_indices)
    embeddings = {
        kind: model.get_latent_representation(mdata, modality=kind, indices=cells.tolist())
        for kind in kinds_in(mdata, model.kinds)
    }
    rows: dict[str, tuple[float, float, float, int]] = {}
    for (kind_x, x), (kind_y, y) in itertools.combinations(embeddings.items(), 2):
        paired = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
        n = int(paired.sum())
        if n < 2:
            continue
        pair = f" {kind_x}-{kind_y}" if len(embeddings) > 2 else ""
        ranks, at = true_match_ranks(x[paired], y[paired]), min(10, n)
        rows[f"FOSCTTM{pair}"] = (float(np.mean(ranks.fractions)), (n - 1) / (2 * n), 0.0, n)
        rows[f"recall@{at}{pair}"] = (float(ranks.recall(at)[0]), at / n, 1.0, n)
    if labels_key is not None:
        labels = known_labels(obs_column(mdata, labels_key, "labels_key"), model._setup_args["unlabeled_category"])
        known = sample(np.flatnonzero(labels.notna()), CELLS_OF_ARI, seed=0)
        joint = model.get_latent_representation(mdata, indices=known.tolist())
        has = np.isfinite(joint).all(axis=1)
        with contextlib.suppress(ScmambaError):  # too few cells or one type
            rows["ARI"] = (leiden_ari_nmi(joint[has], labels.iloc[known[has]]).ari, 0.0, 1.0, int(has.sum()))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "chance", "best", "n_cells"])


def write_mudata(mdata: MuData, path: str | os.PathLike[str]) -> None:
    """Write an ``.h5mu`` file; if that fails, ``path`` keeps what it held before.

    Parameters
    ----------
    mdata
        What to write.
    path
        The file, which is replaced if it exists.

    Raises
    ------
    ScmambaError
        ``mdata`` holds something that a file cannot hold, such as dates in ``obs``, or is larger than the space that is
        left; :func:`integrate` warns of the first. Or ``path`` does not end in ``.h5mu``.

    Examples
    --------
    >>> scmamba_scvi.workflow.write_mudata(mdata, "cells.h5mu")
    >>> scmamba_scvi.read("cells.h5mu").n_obs
    300
    """
    path = Path(path)
    if path.suffix != ".h5mu":  # by which files are read
        raise ScmambaError(f"The name of the file must end in .h5mu, got {path.name!r}.")
    check_result(mdata, place_of(path).parent)
    write_h5mu(mdata, path)


def _check_arguments(seed: int, columns: Mapping[str, str | None], model_kwargs: Mapping[str, Any]) -> None:
    """Those of `integrate` that nothing which it calls checks."""
    check_count("seed", seed, 0)
    if seed > MAX_SEED:
        raise ScmambaError(f"seed must be at most {MAX_SEED}, got {seed}.")
    for name in sorted({"n_latent", "preset"} & set(model_kwargs)):
        raise ScmambaError(
            f"{name} is an argument of integrate: pass integrate(mdata, {name}=...), not in model_kwargs."
        )
    for argument, column in columns.items():
        if column in (CLUSTER_KEY, VALIDATION_KEY):
            raise ScmambaError(
                f"{written(argument, column)} names a column that integrate replaces: copy it under another name first."
            )


def _train(model: SCMAMBA, folder: Path | None, overwrite: bool, options: Mapping[str, Any]) -> None:
    """Train and, with a ``folder``, save; Ctrl-C in training is raised again, once the model is saved."""
    if folder is not None:
        check_space(sum(t.nbytes for t in model.module.state_dict().values()), folder)
    model.train(**options)
    kept = "nothing"
    if folder is not None:
        try:
            model.save(os.fspath(folder), overwrite=overwrite)
        except ScmambaError as error:  # the training must not be lost for a disk that others filled
            warn(f"{error} integrate goes on, and returns the model.")
        else:
            logger.info("Wrote the model into %s.", folder)  # now, as clusters and UMAP may be interrupted
            kept = f"the best weights so far are in {folder}, nothing else"
    if model.training_summary_["interrupted"]:
        raise KeyboardInterrupt(f"Training was stopped: {kept} was written.")


def _write_clusters(mdata: MuData, seed: int) -> None:
    """Leiden clusters of the joint embedding, missing for cells without one, as those of a modality that is not the model's."""
    embedding = mdata.obsm[OBSM_KEY]
    usable = np.isfinite(embedding).all(axis=1)
    mdata.obs[CLUSTER_KEY] = leiden(_graph(embedding[usable], seed), seed).set_axis(mdata.obs_names[usable])


def _write_umap(parts: Sequence[MuData | AnnData], seed: int) -> None:
    """Fit the embeddings of ``parts`` together and write their coordinates, NaN for cells without an embedding."""
    stacked = np.concatenate([part.obsm[OBSM_KEY] for part in parts])
    usable = np.isfinite(stacked).all(axis=1)
    points = _graph(stacked[usable], seed)
    scanpy_module().tl.umap(points, random_state=seed)
    coordinates = np.full((len(stacked), 2), np.nan, dtype=np.float32)
    coordinates[usable] = points.obsm["X_umap"]  # where scanpy writes them
    ends = np.cumsum([part.n_obs for part in parts])
    for part, xy in zip(parts, np.split(coordinates, ends[:-1]), strict=True):
        part.obsm[UMAP_KEY] = xy


def _graph(x: np.ndarray, seed: int) -> AnnData:
    """Graph of 14 neighbours, fewer among few cells: the 15 of scanpy's default count the cell itself."""
    return neighbor_graph(x, min(14, len(x) - 2), seed)


@contextlib.contextmanager
def _restoring(mdata: MuData) -> Iterator[None]:
    """After an error or Ctrl-C in the block, ``mdata`` is as it was, set up as it was if it was."""
    from mudata import MuData

    from .model import SCMAMBA

    parts = (mdata, *mdata.mod.values()) if isinstance(mdata, MuData) else ()
    if not parts or any(part.is_view for part in parts):  # the setup refuses it; to put something back would change it
        yield
        return
    obs, obsm = mdata.obs.copy(), [(part, dict(part.obsm)) for part in parts]
    with restoring_setup(SCMAMBA, mdata):
        try:
            yield
        except BaseException:
            mdata.obs = obs
            for part, before in obsm:
                part.obsm = before
            raise


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Run with scvi-tools' seed set, and restore every generator and setting that this changes."""
    import scvi

    environment = {name: os.environ.get(name) for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "XLA_FLAGS")}
    before = scvi.settings.seed, random.getstate(), np.random.get_state()
    # of GPUs only those that are used: asking another for its state would begin to use it
    gpus = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
    with torch.random.fork_rng(gpus), limited_threads(), quiet("lightning.fabric.utilities.seed"):
        try:
            scvi.settings.seed = seed
            yield
        finally:
            scvi.settings.seed = before[0]
            random.setstate(before[1])
            np.random.set_state(before[2])
            for name, value in environment.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
