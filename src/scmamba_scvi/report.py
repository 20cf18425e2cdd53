"""A page for the lab meeting: what was run on which data, how well it worked, and what to try next."""

from __future__ import annotations

import base64
import io
import itertools
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from jinja2 import Environment
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, BboxBase

from . import pl
from ._columns import has_obs_column, obs_column
from ._compat import package_version
from ._files import atomic_write
from ._keys import CLUSTER_KEY, UMAP_KEY
from .errors import ScmambaError
from .metrics import other_modality
from .metrics.by_type import CELLS_OF_GROUP, IN_PERCENT, judged, lie_apart, name_groups
from .metrics.graph import nearest
from .model.fitting.joint_embedding import MIN_CELLS_OF_BATCH
from .model.inputs.kinds import kinds_in
from .pl.coloring import can_color
from .workflow import validation_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mudata import MuData

    from .model import SCMAMBA

#: The page advises what to try where the FOSCTTM, or the fraction of cells whose modalities do not fit each other, is
#: above these, or the fraction of features that have a place on the genome, or the number of pairs, is below.
POOR_FOSCTTM, MANY_DISAGREE, FEW_PLACED, FEW_PAIRS = 0.25, 0.2, 0.8, 500
#: A batch lies apart where this fraction of the way from chance to 1 of its neighbours are of itself.
APART_BATCH = 0.6
#: Of more cells a sample is looked at. Neighbours of a cell that are asked for their batch.
MAX_CELLS, NEIGHBORS = 5_000, 30
#: What is looked at, for a page that found nothing.
CHECKS: Final = (
    "match scores, modalities that lie apart, number of pairs, batches that lie apart or are too small to be corrected, "
    "coordinates of features"
)
#: What to do where features of a kind have no place on the genome.
HOW_TO_PLACE: Final = {
    "rna": "Give coordinates with annotate_genome(mdata, gtf=...) or --gtf before training.",
    "atac": "Write chrom, start and end into columns of var before training, or name the peaks as in chr1:100-200.",
}
#: Pixels of an inch on the screen and in the file: sharp also where a screen has two points per pixel.
SCREEN, DPI = 96, 192
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
    command: str | None = None,
) -> Path:
    """Write a page about a trained model and its cells, as one HTML file that opens without a network.

    Parameters
    ----------
    model
        Trained, with its data. If :func:`scmamba_scvi.workflow.integrate` wrote coordinates, they are drawn.
    path
        File to write, .html. One of this name is replaced.
    labels_key
        Column of ``obs`` with known cell types, which colour a panel and are compared with the clusters.
    title
        Title of the page.
    command
        What was typed to make the model, which the page repeats.

    Returns
    -------
    The path.

    Raises
    ------
    ScmambaError
        The model has no data or is not trained, or ``path`` does not end in ``.html``.

    Examples
    --------
    >>> from scmamba_scvi.report import write_report
    >>> write_report(model, "report.html", labels_key="cell_type").name
    'report.html'
    """
    path = Path(path)
    if path.suffix != ".html":  # a file of another kind would be replaced
        raise ScmambaError(f"The name of the file must end in .html, got {path.name!r}.")
    if model.adata is None or not model.is_trained_:
        raise ScmambaError("A report needs a trained model with its data: integrate first, or load(dir, adata=mdata).")
    mdata = model.adata
    # loaded with other cells than it was trained on, the model has no such attribute
    held_out = getattr(model, "validation_indices", None)
    scores = pd.DataFrame() if held_out is None else validation_scores(mdata, model, labels_key)
    try:
        agreement = model.get_modality_agreement()
    except ScmambaError:  # too few cells with two modalities: the page leaves the figure out
        agreement = None
    template = Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        title=title,
        subtitle=f"{', '.join(kinds_in(mdata, model.kinds))} in one embedding",
        headline=_headline(mdata, model, scores),
        notes=[
            *_lie_apart(mdata, model, labels_key),
            *_uncorrected(model),
            *_unmixed(mdata, model),
            *_notes(mdata, model, scores, agreement),
        ],
        checks=CHECKS,
        data=[
            (kind, key, mdata[key].shape, model.layouts[kind].summary())
            for kind, key in kinds_in(mdata, model.kinds).items()
        ],
        scores=[(next(a for n, a in ABOUT.items() if row.Index.startswith(n)), row) for row in scores.itertuples()],
        figures=_figures(mdata, model, labels_key, agreement),
        run=_describe_run(model),
        origin=_origin(command),
        settings=asdict(model.config),
    )
    with atomic_write(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8", errors="replace")  # of names in another encoding
    return path


def _notes(
    mdata: MuData, model: SCMAMBA, scores: pd.DataFrame, agreement: pd.DataFrame | None
) -> list[tuple[str, str]]:
    """What a reader should know, each with what to try next."""
    found = []
    for name, row in scores.iterrows():
        if str(name).startswith("FOSCTTM") and row["value"] > POOR_FOSCTTM:
            found.append((
                f"True matches are hardly found ({name} {row['value']:.2f}; 0.5 is chance).",
                "Check that both modalities hold raw counts of the same cells under the same names, then try more cells or "
                "deeper sequencing: cells with a few hundred counts cannot be told apart within a type.",
            ))  # fmt: skip
    names, kinds = mdata.obs_names, kinds_in(mdata, model.kinds).values()
    pairs = int((np.sum([names.isin(mdata[key].obs_names) for key in kinds], axis=0) > 1).sum())
    if pairs < FEW_PAIRS:
        found.append((
            f"Only {pairs:,} cells have two modalities.",
            "What belongs together is learned from these. More of them help most; with so few, encoder='linear' is as good "
            "and quicker.",
        ))  # fmt: skip
    if model.training_summary_.get("interrupted"):
        found.append(("Training was interrupted.", "The best weights so far were kept; train again for final results."))
    for kind, layout in model.layouts.items():
        if kind != "protein" and layout.n_placed < FEW_PLACED * layout.n_features:
            placed = f"Only {layout.n_placed:,} of" if layout.n_placed else "None of the"
            found.append(
                (f"{placed} {layout.n_features:,} features of {kind} have a place on the genome.", HOW_TO_PLACE[kind])
            )
    if agreement is not None and (low := float((agreement["evidence"] <= 0).mean())) > MANY_DISAGREE:
        found.append((
            f"In {low:.0%} of the cells the two modalities fit no better than those of two cells drawn at random.",
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
    """Two modalities that lie apart, with the types and the clusters in which they do, and what to try."""
    groupings = {
        what: obs_column(mdata, key, what).astype("string").to_numpy(dtype=object)  # missing stays missing
        for what, key in {"type": labels_key, "cluster": CLUSTER_KEY}.items()
        if key is not None and has_obs_column(mdata, key)
    }
    for a, b in itertools.combinations(kinds_in(mdata, model.kinds), 2):
        has_both = np.all([mdata.obs_names.isin(mdata[model.kinds[kind]].obs_names) for kind in (a, b)], axis=0)
        cells = np.random.default_rng(0).permutation(np.flatnonzero(has_both))[:MAX_CELLS]
        if len(cells) < CELLS_OF_GROUP:
            continue
        mixed = other_modality(*(model.get_latent_representation(mdata, cells, modality=kind) for kind in (a, b)))
        if where := lie_apart((a, b), mixed, {what: of_cells[cells] for what, of_cells in groupings.items()}):
            yield (
                f"{where}.",
                f"{IN_PERCENT}. Cluster and compare cells in the joint embedding, as the panels of clusters do. More cells "
                f"with both modalities help.",
            )


def _uncorrected(model: SCMAMBA) -> Iterator[tuple[str, str]]:
    """Batches that the joint embedding is not corrected for, and what to try."""
    if found := model._uncorrected_batches():
        yield (
            f"The joint embedding is not corrected for these of {model.batch_key!r}, here with their cells: "
            f"{model._name_batches(found)}.",
            f"An offset is estimated from at least {MIN_CELLS_OF_BATCH} cells of a batch, of those trained on if any were. "
            f"Check that the column names the batches. A sample of few cells can be left out, or put together with one that "
            f"was processed alike.",
        )


def _unmixed(mdata: MuData, model: SCMAMBA) -> Iterator[tuple[str, str]]:
    """Batches whose cells have neighbours of their own batch, and what to try."""
    if model.batch_key is None:
        return
    batches = obs_column(mdata, model.batch_key, "batch_key").astype(str).to_numpy()
    cells = np.random.default_rng(0).permutation(mdata.n_obs)[:MAX_CELLS]
    joint, batches = model.get_latent_representation(mdata, cells), batches[cells]
    embedded = np.isfinite(joint).all(axis=1)  # cells with none of the model's modalities are NaN
    cells, joint, batches = cells[embedded], joint[embedded], batches[embedded]
    n_neighbors = min(NEIGHBORS, len(cells) // 4)
    if n_neighbors < 1 or len(set(batches)) < 2:
        return
    own = np.concatenate([
        (batches[found] == batches[rows, None]).mean(axis=1)
        for rows, found in nearest(joint, n_neighbors, np.arange(len(cells)), 0)
    ])  # fmt: skip
    means = judged(own, batches)
    by_chance = pd.Series(batches).value_counts(normalize=True).reindex(means.index)
    apart = means[(means - by_chance) / (1 - by_chance) > APART_BATCH].sort_values(ascending=False)
    if len(apart):
        yield (
            f"Of {model.batch_key!r}, these lie apart: {name_groups(apart)}.",
            f"In percent: how many of the {n_neighbors} nearest cells in the joint embedding are of the same batch. Look "
            f"whether the batch has types of its own, which should stay apart. If not, check that the column names the "
            f"smallest unit that was processed apart; an effect that differs between types is not removed, and Harmony on the "
            f"embedding may.",
        )


def _headline(mdata: MuData, model: SCMAMBA, scores: pd.DataFrame) -> list[tuple[str, str]]:
    """Name and value of the numbers at the top."""
    headline = [("cells", f"{mdata.n_obs:,}"), ("modalities", str(len(kinds_in(mdata, model.kinds))))]
    if CLUSTER_KEY in mdata.obs:
        headline.append(("clusters", str(mdata.obs[CLUSTER_KEY].nunique())))
    return headline + [(f"{name}, validation cells", f"{row['value']:.3f}") for name, row in scores.head(2).iterrows()]


def _describe_run(model: SCMAMBA) -> str:
    summary = model.training_summary_
    size = sum(p.numel() for p in model.module.parameters())
    batches = "no batch offsets removed"
    if model._corrects_batches:
        batches = f"offsets of the batches {model.batch_key!r} removed"
    if removed := summary.get("batch_variance_removed"):
        batches += f" ({', '.join(f'{part:.1%} of the variance of {kind}' for kind, part in removed.items())})"
    text = f"Preset {model.preset_}, {model.config.n_latent} dimensions, {size:,} parameters, {batches}."
    if summary.get("best") is None:  # there were no validation cells, and no epoch is the best
        return text
    epoch = summary["best_epoch"]
    return f"{text} Best weights: {'before the first step' if epoch is None else f'epoch {epoch + 1}'}."


def _origin(command: str | None) -> dict[str, str]:
    """When, how and with which versions."""
    versions = [f"{name} {version(name)}" for name in ("scvi-tools", "torch", "mudata")]
    return {
        "Written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
        **({} if command is None else {"Command": command}),
        "Versions": ", ".join([f"scmamba-scvi {package_version()}", *versions, f"Python {platform.python_version()}"]),
    }


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
        too_many = [name for name in columns if not can_color(obs_column(mdata, name))]
        columns, keys = [name for name in columns if name not in too_many], list(kinds_in(mdata, model.kinds).values())
        figures.append(_figure(
            "Embedding",
            "Each point is a cell, and similar cells lie together. The first panel shows each cell once per modality, in a "
            "plane of their own. Where the colours mix, the modalities agree."
            + (f" Not drawn, for too many values: {', '.join(too_many)}." if too_many else ""),
            lambda figure: pl.integration(mdata, columns, modalities=keys, figure=figure),
        ))  # fmt: skip
    if agreement is not None and np.isfinite(agreement["evidence"]).any():
        figures.append(_figure(
            "Do the modalities agree?",
            "Above zero, the two modalities of a cell fit each other better than those of two cells drawn at random. A cell at "
            "or below zero may be a doublet, or have few counts. Validation cells score lower than those trained on, whose "
            "pairs the model was told.",
            lambda figure: pl.modality_agreement(agreement["evidence"], mdata if embedded else None, figure=figure),
        ))  # fmt: skip
    if model.history:
        figures.append(_figure(
            "Training",
            "The loss, and the scores of the validation cells, by epoch. The second stage begins with the best weights of the "
            "first, so the loss may step back up. The weights of the best epoch are kept.",
            lambda figure: pl.training(model, figure=figure),
        ))  # fmt: skip
    return figures


def _figure(title: str, about: str, draw: Callable[[Figure], list[Axes]]) -> dict[str, Any]:
    """A figure, cut into its panels, so that a phone can put them below each other."""
    figure = Figure()
    canvas = FigureCanvasAgg(figure)
    axes = draw(figure)
    canvas.draw()  # the layout is made then
    boxes = [[_extent(ax)] for ax in axes]
    for beside in map(_extent, [ax for ax in figure.axes if ax not in axes]):
        left = [box[0].x0 <= beside.x0 for box in boxes]  # a colour bar goes with the panel on its left
        boxes[int(np.flatnonzero(left)[-1])].append(beside)
    panels = []
    for ax, parts in zip(axes, boxes, strict=True):
        box = Bbox.union(parts).transformed(figure.dpi_scale_trans.inverted()).padded(0.04)  # inches
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=DPI, bbox_inches=box)
        png = base64.b64encode(file.getvalue()).decode("ascii")
        panels.append({"title": ax.get_title(), "width": round(box.width * SCREEN), "png": png})
    return {"title": title, "about": about, "panels": panels}


def _extent(ax: Axes) -> BboxBase:
    """All that belongs to the axes, with their labels and legends, in pixels."""
    box = ax.get_tightbbox()
    assert box is not None  # it holds text
    return box
