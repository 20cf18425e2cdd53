"""A page for the lab meeting: what was run on which data, how well it worked, and what to try next."""

from __future__ import annotations

import base64
import io
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from jinja2 import Environment
from matplotlib.figure import Figure

from . import pl
from ._columns import has_obs_column, obs_column
from ._compat import package_version
from ._files import atomic_write
from ._keys import CLUSTER_KEY, UMAP_KEY
from .errors import ScmambaError
from .metrics import other_modality
from .workflow import validation_scores

if TYPE_CHECKING:
    from mudata import MuData

    from .model import SCMAMBA

#: The page advises what to try where the FOSCTTM, or the fraction of cells whose modalities do not fit each other, is
#: above these, or the fraction of features that have a place on the genome is below.
POOR_FOSCTTM, MANY_DISAGREE, FEW_PLACED = 0.25, 0.2, 0.8
#: Below this fraction of neighbours of the other modality (0.5 is a perfect mix) modalities lie apart; groups of fewer cells
#: are not looked at, and of more cells in all, a sample.
APART, CELLS_OF_GROUP, MAX_CELLS = 0.25, 20, 5_000
DPI: Final = 110
#: What a score is, for readers who do not know it, by the beginning of its name.
ABOUT: Final = {
    "FOSCTTM": "fraction of cells that are closer than the true match; 0 is perfect",
    "recall": "fraction of cells whose true match is among the nearest; 1 is perfect",
    "ARI": "agreement of Leiden clusters, at the best of 20 resolutions, with the known types; 1 is perfect",
}
#: The page, into which names and numbers are filled.
TEMPLATE: Final = Path(__file__).with_name("report.html.jinja")


def write_report(
    model: SCMAMBA,
    path: str | os.PathLike[str],
    *,
    labels_key: str | None = None,
    title: str = "Integration of single cells",
) -> Path:
    """Write a page about a trained model and its cells, as one HTML file that opens without a network.

    Parameters
    ----------
    model
        Trained, with its data. If :func:`scmamba_scvi.workflow.integrate` wrote coordinates, they are drawn.
    path
        File to write.
    labels_key
        Column of ``obs`` with known cell types, which colour a panel and are compared with the clusters.
    title
        Title of the page.

    Returns
    -------
    The path.

    Raises
    ------
    ScmambaError
        The model has no data or is not trained.

    Examples
    --------
    >>> from scmamba_scvi.report import write_report
    >>> write_report(model, "report.html", labels_key="cell_type").name
    'report.html'
    """
    if model.adata is None or not model.is_trained_:
        raise ScmambaError("A report needs a trained model with its data: integrate first, or load(dir, adata=mdata).")
    mdata = model.adata
    scores = pd.DataFrame() if model.validation_indices is None else validation_scores(mdata, model, labels_key)
    try:
        agreement = model.get_modality_agreement()
    except ScmambaError:  # too few cells with two modalities: the page leaves the figure out
        agreement = None
    template = Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        title=title,
        subtitle=f"{', '.join(model.kinds)} in one embedding, by scmamba-scvi {package_version()}",
        headline=_headline(mdata, model, scores),
        notes=[*_lie_apart(mdata, model, labels_key), *_notes(model, scores, agreement)],
        data=[(kind, key, mdata[key].shape, model.layouts[kind].summary()) for kind, key in model.kinds.items()],
        scores=[(next(a for n, a in ABOUT.items() if row.Index.startswith(n)), row) for row in scores.itertuples()],
        figures=_figures(mdata, model, labels_key, agreement),
        run=_describe_run(model),
        settings=model.config.to_dict(),
    )
    path = Path(path)
    with atomic_write(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return path


def _notes(model: SCMAMBA, scores: pd.DataFrame, agreement: pd.DataFrame | None) -> list[tuple[str, str]]:
    """What a reader should know, each with what to try next."""
    found = []
    for name, row in scores.iterrows():
        if str(name).startswith("FOSCTTM") and row["value"] > POOR_FOSCTTM:
            found.append((
                f"True matches are hardly found ({name} {row['value']:.2f}; 0.5 is chance).",
                "Check that both modalities hold raw counts of the same cells under the same names, then try more cells or "
                "deeper sequencing: cells with a few hundred counts cannot be told apart within a type.",
            ))  # fmt: skip
    summary = getattr(model, "training_summary_", {})
    if summary.get("interrupted"):
        found.append(("Training was interrupted.", "The best weights so far were kept; train again for final results."))
    for kind, layout in model.layouts.items():
        if kind != "protein" and layout.n_placed < FEW_PLACED * layout.n_features:
            found.append((
                f"Only {layout.n_placed:,} of {layout.n_features:,} features of {kind} have a place on the genome.",
                "Give coordinates with annotate_genome(mdata, gtf=...) or --gtf before training.",
            ))  # fmt: skip
    if agreement is not None and (low := float((agreement["evidence"] <= 0).mean())) > MANY_DISAGREE:
        found.append((
            f"In {low:.0%} of the cells the modalities fit each other no better than those of two different cells.",
            "Check whether these are doublets or cells with few counts (pl.modality_agreement), and filter them before "
            "training again.",
        ))  # fmt: skip
    if model.batch_key is None:
        found.append((
            "No batch was named.",
            "If samples, donors or runs differ, name their column: setup_mudata(batch_key=...) or --batch-key.",
        ))  # fmt: skip
    return found


def _lie_apart(mdata: MuData, model: SCMAMBA, labels_key: str | None) -> Iterator[tuple[str, str]]:
    """Two modalities that lie apart, or the types (or clusters) in which they do, and what to try."""
    by = labels_key or (CLUSTER_KEY if CLUSTER_KEY in mdata.obs else None)
    groups = pd.Series("all cells", mdata.obs_names) if by is None else obs_column(mdata, by, "labels_key").astype(str)
    for a, b in itertools.combinations(model.kinds, 2):
        has_both = np.all([mdata.obs_names.isin(mdata[model.kinds[kind]].obs_names) for kind in (a, b)], axis=0)
        cells = np.random.default_rng(0).permutation(np.flatnonzero(has_both))[:MAX_CELLS]
        if len(cells) < CELLS_OF_GROUP:
            continue
        mixed = other_modality(*(model.get_latent_representation(mdata, cells, modality=kind) for kind in (a, b)))
        of_group = pd.Series(mixed).groupby(groups.to_numpy()[cells]).agg(["mean", "size"])
        apart = of_group.loc[(of_group["mean"] < APART) & (of_group["size"] >= CELLS_OF_GROUP), "mean"].sort_values()
        if not apart.empty:
            where = ", ".join(f"{name} ({value:.0%})" for name, value in apart.items())
            yield (
                f"{a} and {b} lie apart in {where}: so many of the 15 nearest cells are of the other modality, where 50% is a "
                f"perfect mix. Over all cells it is {mixed.mean():.0%}.",
                "Cluster and compare cells in the joint embedding, as the panels of clusters do. Modalities are brought "
                "together by what validation cells show: more cells with both modalities help.",
            )  # fmt: skip


def _headline(mdata: MuData, model: SCMAMBA, scores: pd.DataFrame) -> list[tuple[str, str]]:
    """Name and value of the numbers at the top."""
    headline = [("cells", f"{mdata.n_obs:,}"), ("modalities", str(len(model.kinds)))]
    if CLUSTER_KEY in mdata.obs:
        headline.append(("clusters", str(mdata.obs[CLUSTER_KEY].nunique())))
    return headline + [(f"{name}, validation cells", f"{row['value']:.3f}") for name, row in scores.head(2).iterrows()]


def _describe_run(model: SCMAMBA) -> str:
    summary = getattr(model, "training_summary_", {})
    size = sum(p.numel() for p in model.module.parameters())
    batches = f"batches of {model.batch_key!r} taken out" if model._corrects_batches else "no batches taken out"
    text = f"Preset {model.preset_}, {model.config.n_latent} dimensions, {size:,} parameters, {batches}."
    if summary.get("best") is None:  # there were no validation cells, and no epoch is the best
        return text
    epoch = summary["best_epoch"]
    return f"{text} Best weights: {'before the first step' if epoch is None else f'epoch {epoch + 1}'}."


def _figures(
    mdata: MuData, model: SCMAMBA, labels_key: str | None, agreement: pd.DataFrame | None
) -> list[dict[str, Any]]:
    figures = []
    embedded = UMAP_KEY in mdata.obsm
    if embedded:
        columns = [
            name
            for name in (labels_key, model.batch_key, CLUSTER_KEY)
            if name is not None and has_obs_column(mdata, name)
        ]
        figures.append(_figure(
            "Embedding",
            "Each point is a cell, and similar cells lie together. The first panel shows each cell once per modality: where "
            "the colours mix, the modalities agree.",
            lambda figure: pl.integration(mdata, columns, modalities=list(model.kinds.values()), figure=figure),
        ))  # fmt: skip
    if agreement is not None and np.isfinite(agreement["evidence"]).any():
        figures.append(_figure(
            "Do the modalities agree?",
            "Evidence that the modalities of a cell belong together; below zero they fit no better than those of two "
            "different cells.",
            lambda figure: pl.modality_agreement(agreement["evidence"], mdata if embedded else None, figure=figure),
        ))  # fmt: skip
    if getattr(model, "history", None):
        figures.append(_figure(
            "Training",
            "The loss, and the scores of the validation cells, by epoch; the weights of the best epoch are kept.",
            lambda figure: pl.training(model, figure=figure),
        ))  # fmt: skip
    return figures


def _figure(title: str, about: str, draw: Callable[[Figure], object]) -> dict[str, Any]:
    """A figure as text, and its width in pixels."""
    figure, file = Figure(), io.BytesIO()
    draw(figure)
    figure.savefig(file, format="png", dpi=DPI)
    png = base64.b64encode(file.getvalue()).decode("ascii")
    return {"title": title, "about": about, "width": round(figure.get_size_inches()[0] * DPI), "png": png}
