"""All scores of an integration at once: methods in rows, scores in groups of columns."""

from collections.abc import Sequence
from typing import Any, Final, Literal

import pandas as pd
import torch
from rich.console import Console
from rich.progress import Progress

from .._compat import warn
from .._keys import JOINT
from ..errors import ScmambaError, UnknownNameError
from ._embedded import Embedded
from ._inputs import Column, Embeddings, Inputs, display_name, read_inputs
from ._panel import METRICS, Metric
from ._scib import scib_scores
from ._summary import BIO, OMICS, overall_scores
from .by_type import warn_apart

#: Group of the columns that summarise others.
OVERALL: Final = "overall"
#: Score of which `mixing_by_type` gives the value in each type.
MIXING: Final = "other modality"


def evaluate_integration(
    data: Any,
    embeddings: Embeddings | None = None,
    *,
    labels_key: Column = None,
    batch_key: Column = None,
    metrics: Literal["all"] | str | Sequence[str] = "all",
    panel: Literal["paper", "scib"] = "paper",
    cells: Any = None,
    max_cells: int | None = None,
    random_state: int = 0,
    progress: bool = True,
    device: str | torch.device | None = None,
) -> pd.DataFrame:
    """Score how well embeddings keep cell types, align modalities, find true matches and mix batches.

    Parameters
    ----------
    data
        A ``MuData`` (or an ``AnnData``) of the cells, with embeddings in ``obsm``.
    embeddings
        From method to what it made of the cells:

        - a key: ``obsm[key]`` of the MuData is the joint embedding, that of a modality is the modality's. ``None`` is
          ``{"scmamba-scvi": "X_scmamba"}``, and a key alone is also the method's name;
        - a dict from ``"joint"`` and from modalities to a key, a matrix ``(n, z)``, or a table indexed by names of
          cells; all modalities in one space. Any part may be absent;
        - a matrix or table: the joint embedding.

        A matrix has the rows of the data, NaN for cells without the modality, as those of a model:
        ``{kind: model.get_latent_representation(modality=kind) for kind in model.kinds}``; one taken out of the ``obsm`` of
        its modality has those of the modality.
    labels_key
        Cell types: a column of ``obs`` (of the data, or of a modality), or the values themselves, one per cell or a
        ``Series`` indexed by name. Cells without one count in the scores that need none. "Unknown" is a type like any
        other: write NaN for it.
    batch_key
        Batches, likewise.
    metrics
        ``"all"``, or names from :data:`METRICS`.
    panel
        ``"scib"`` runs the Benchmarker of scib-metrics (extra ``benchmark``) on the joint embeddings instead, all of its
        scores but PCR; without ``batch_key`` those of cell types alone. :doc:`/ecosystem` says how its scores differ.
    cells
        Score only these cells: positions, a mask or names, such as ``model.validation_indices``. Scores of true
        matches on cells that a method was trained on say little.
    max_cells
        Score at most this many cells, drawn at random, the same ones for every method. Time rises with the square of
        the number of cells. Scores of neighbours get harder with more cells, so compare only scores of equally many.
    random_state
        Seed of all draws, of the clustering and of the order of ties.
    progress
        Show a bar.
    device
        Where to compute scores of true matches: ``None`` the CPU, ``"auto"`` a CUDA device if there is one.

    Returns
    -------
    One row per method. Columns have two levels, ``group`` and ``metric``: ``bio``, ``omics``, ``single-cell`` and
    ``batch`` as in :data:`METRICS`, which says what each score is and whether higher is better (it is but for FOSCTTM,
    median rank and modality gap), then ``overall``: the paper's means of the bio and omics scores that
    ``METRICS[name].in_summary`` marks, unscaled, and their sum weighted by 0.6 and 0.4; a mean needs all its scores. A
    score that a method has no data for is NaN; one that no method has data for has no column. With ``panel="scib"`` groups
    and names are the Benchmarker's, not scaled.

    Raises
    ------
    ScmambaError
        If embeddings, labels or batches cannot be aligned with the cells or have a wrong shape, or if nothing is left
        to score.
    UnknownNameError
        If a key, column or score does not exist.

    Warns
    -----
    UserWarning
        Once, if scores or cells are left out: which and why. Once, where "other modality" is asked for and modalities lie
        apart: in which types. :func:`mixing_by_type` gives the fraction in every type.

    Notes
    -----
    Cells are aligned by name, so that modalities may hold different cells in different orders; rows that are not finite are
    left out. Scores of cell types and batches (groups ``bio`` and ``batch``) are of the joint embedding, which is what
    users cluster, and of the stacked modalities, as in section 4.2.1 of the paper, where a method has none. Distances are
    Euclidean on the embeddings as given. With more than two modalities, scores of two are averaged over the pairs of
    modalities that share cells; scores of mixing take all at once. Neighbourhoods have the default sizes of the single
    scores. Above 50,000 rows, neighbours are searched for 20,000 of them, still among all.

    Examples
    --------
    >>> first_genes = mdata["rna"].X[:, :9].toarray()  # any matrix will do
    >>> scores = metrics.evaluate_integration(
    ...     mdata,
    ...     {"first": first_genes},
    ...     labels_key="cell_type",
    ...     metrics="ARI",
    ... )
    >>> scores.index.tolist(), scores.columns.tolist()
    (['first'], [('bio', 'ARI')])
    """
    wanted = _requested(metrics)
    if panel not in ("paper", "scib"):
        raise UnknownNameError("panel", panel, ("paper", "scib"))
    inputs = read_inputs(data, embeddings, labels_key, batch_key).choose(cells, max_cells, random_state)
    if panel == "scib":
        given = {"metrics": metrics != "all", "device": device is not None}
        if any(given.values()):
            raise ScmambaError(f"panel='scib' takes no {', '.join(name for name, there in given.items() if there)}.")
        return scib_scores(inputs, progress)
    values: dict[str, dict[str, float]] = {}
    left_out: dict[tuple[str, str], list[str]] = {}  # (reason, score) -> methods
    embedded: dict[str, Embedded] = {}
    with Progress(console=Console(stderr=True), transient=True, disable=not progress) as bar:
        task = bar.add_task("", total=len(inputs.methods) * len(wanted))
        for method, parts in inputs.methods.items():
            joint = parts.pop(JOINT, None)
            embedded[method] = Embedded(joint, parts, inputs.labels, inputs.batches, random_state, device)
            values[method] = {}
            for metric in wanted:
                bar.update(task, description=f"{method}: {metric.name}")
                try:
                    values[method][metric.name] = metric.function(embedded[method])
                except ScmambaError as error:
                    # what one score cannot use, such as labels that occur once, must not prevent the others
                    left_out.setdefault((str(error).rstrip("."), metric.name), []).append(method)
                bar.advance(task)
    message = _what_was_left_out(inputs, left_out)
    scores = pd.DataFrame.from_dict(values, orient="index", columns=[m.name for m in wanted])
    scores = scores.reindex(list(values)).dropna(axis=1, how="all")  # also methods without any score
    if not scores.shape[1]:
        raise ScmambaError(f"Nothing could be scored. {message}")
    if message:
        warn(message)
    if MIXING in scores:
        warn_apart({method: embedded[method] for method in scores.index[scores[MIXING].notna()]})
    return _with_groups(scores)


def _requested(metrics: str | Sequence[str]) -> list[Metric]:
    """The scores asked for, in the order of the table."""
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    names = list(METRICS) if names == ["all"] else names
    for name in names:
        if name not in METRICS:
            raise UnknownNameError("metric", name, METRICS)
    if not names:
        raise ScmambaError(f"metrics is empty: say 'all', or some of {', '.join(METRICS)}.")
    return [metric for metric in METRICS.values() if metric.name in names]


def _what_was_left_out(inputs: Inputs, left_out: dict[tuple[str, str], list[str]]) -> str:
    """Which scores and cells were left out and why; scores with the same reason are named together."""
    together: dict[tuple[str, str], list[str]] = {}
    for (reason, metric), methods in left_out.items():
        whose = "" if len(methods) == len(inputs.methods) else f" of {', '.join(map(repr, methods))}"
        together.setdefault((reason, whose), []).append(metric)
    scores = [f"{', '.join(names)}{whose} ({reason})" for (reason, whose), names in together.items()]
    rows = [f"{mask.sum():,} rows of {display_name(*key)}" for key, mask in inputs.unusable.items() if mask.any()]
    sentences = [f"Not scored: {'; '.join(scores)}."] if scores else []
    if rows:
        sentences.append(f"Left out because they are not finite: {', '.join(rows)}.")
    for name, labels in (("label", inputs.labels), ("batch", inputs.batches)):
        n = int(pd.isna(labels).sum())
        if 0 < n < len(labels):
            sentences.append(f"{n:,} of {len(labels):,} cells have no {name} and are left out where one is needed.")
    return " ".join(sentences)


def _with_groups(scores: pd.DataFrame) -> pd.DataFrame:
    """Columns under their groups, and the summaries of the groups that have all their scores."""
    parts = {"bio": BIO, "omics": OMICS}
    complete = {group: list(names) for group, names in parts.items() if set(names) <= set(scores)}
    if len(complete) == len(parts):
        summary = overall_scores(scores)
    else:
        summary = pd.DataFrame(
            {group: scores[names].mean(axis=1, skipna=False) for group, names in complete.items()}, index=scores.index
        )
    columns = [(METRICS[name].group, name) for name in scores] + [(OVERALL, name) for name in summary]
    out = pd.concat([scores, summary], axis=1).rename_axis(index="method")
    return out.set_axis(pd.MultiIndex.from_tuples(columns, names=["group", "metric"]), axis=1)
