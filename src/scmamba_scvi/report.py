"""One page for the lab meeting: what was run on what, how well it worked, and what to try next. One file, no network."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from . import pl
from ._compat import package_version
from .errors import ScmambaError
from .workflow import CLUSTER_KEY, UMAP_KEY, held_out_scores

if TYPE_CHECKING:
    from mudata import MuData

    from .model import SCMAMBA

#: Beyond these a reader is told what to try.
POOR_FOSCTTM, FEW_PLACED, LOW_AGREEMENT = 0.25, 0.8, 0.2
#: Words beside numbers that not everybody knows.
ABOUT: Final = {
    "FOSCTTM": "share of cells closer than a cell's own other half; 0 is perfect",
    "recall": "share of cells whose other half is among the nearest; 1 is perfect",
    "ARI": "agreement of clusters with the known types; 1 is perfect",
}
TEMPLATE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>
:root { color-scheme: light; } * { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px; color: #222; background: #fff;
       font: 16px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; margin: 0 0 4px; } h2 { font-size: 1.2rem; margin: 36px 0 10px; border-bottom: 1px solid #ddd; }
.sub { color: #666; margin: 0 0 20px; } img { max-width: 100%; height: auto; display: block; }
.key { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.key div { background: #f4f6f8; border-radius: 8px; padding: 12px 14px; }
.key b { display: block; font-size: 1.5rem; } .key span { color: #555; font-size: .85rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; overflow-wrap: normal; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid #e5e5e5; vertical-align: top; }
td.n, th.n { text-align: right; padding-right: 24px; font-variant-numeric: tabular-nums; white-space: nowrap; }
.about { color: #666; font-size: .85rem; } ul.notes { padding: 0; list-style: none; }
ul.notes li { border-left: 4px solid #d55e00; background: #fdf3ec; padding: 10px 14px; margin: 0 0 10px; border-radius: 0 6px 6px 0; }
ul.notes li.good { border-color: #009e73; background: #eef8f4; } details { margin-top: 10px; } summary { cursor: pointer; }
@media (max-width: 520px) { body { padding: 16px; font-size: 15px; } th, td, td.n, th.n { padding-right: 10px; }
  .best { display: none; } .scroll img { max-width: none; width: 680px; } }
@media print { body { max-width: none; } }
</style></head><body>
<h1>{{ title }}</h1><p class="sub">{{ subtitle }}</p>
<div class="key">{% for name, value in key %}<div><b>{{ value }}</b><span>{{ name }}</span></div>{% endfor %}</div>
<h2>What to know</h2><ul class="notes">{% for note in notes %}<li><b>{{ note[0] }}</b> {{ note[1] }}</li>{% else %}
<li class="good">Nothing stands out: the checks of this page found no problem.</li>{% endfor %}</ul>
<h2>Data</h2><div class="scroll"><table><tr><th>modality</th><th class="n">cells</th><th class="n">features</th></tr>
{% for row in data %}<tr><td>{{ row[0] }}<div class="about">{{ row[3] }}</div></td><td class="n">{{ row[1] }}</td><td class="n">{{ row[2] }}</td></tr>{% endfor %}</table></div>
<h2>Held-out cells</h2>{% if scores %}<div class="scroll"><table><tr><th>score</th><th class="n">here</th><th class="n">chance</th><th class="n best">perfect</th><th class="n">cells</th></tr>
{% for row in scores %}<tr><td>{{ row[0] }}<div class="about">{{ row[1] }}</div></td>{% for cell in row[2:] %}<td class="n{{ ' best' if loop.index == 3 }}">{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table></div>
{% else %}<p>No cell was held out, so nothing can be said of cells that the model has not seen.</p>{% endif %}
{% for figure in figures %}<h2>{{ figure[0] }}</h2><p class="about">{{ figure[1] }}</p><div class="scroll"><img alt="{{ figure[0] }}" src="data:image/png;base64,{{ figure[2] }}"></div>{% endfor %}
<h2>How it was run</h2><p>{{ run }}</p><details><summary>All settings of the network</summary><div class="scroll"><table>
{% for name, value in settings %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>{% endfor %}</table></div></details>
</body></html>
"""


def write_report(
    model: SCMAMBA,
    path: str | os.PathLike[str],
    *,
    labels_key: str | None = None,
    title: str = "Integration of single cells",
) -> Path:
    """Write one self-contained HTML file about a trained model and its cells; it opens without a network.

    Parameters
    ----------
    model
        Trained, with its data; after :func:`scmamba_scvi.workflow.integrate` the page also has the embeddings.
    path
        File to write.
    labels_key
        Column of ``obs`` with known cell types, to colour and score.
    title
        Of the page.

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
    from jinja2 import Environment  # comes with torch

    if model.adata is None or not model.is_trained_:
        raise ScmambaError("A report needs a trained model with its data: integrate first, or load(dir, adata=mdata).")
    mdata = model.adata
    scores = held_out_scores(mdata, model, labels_key) if model.validation_indices is not None else pd.DataFrame()
    agreement = _agreement(model)
    page = Environment(autoescape=True).from_string(TEMPLATE).render(
        title=title, subtitle=f"{', '.join(model.kinds)} in one embedding, by scmamba-scvi {package_version()}",
        key=_key(mdata, model, scores), notes=notes(model, scores, agreement), data=_data(mdata, model),
        scores=_score_rows(scores), figures=_figures(mdata, model, labels_key, agreement), run=_run(model),
        settings=[(name, str(value)) for name, value in model.config.to_dict().items()],
    )  # fmt: skip
    path = Path(path)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.html")
    try:
        unfinished.write_text(page, encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def notes(model: SCMAMBA, scores: pd.DataFrame, agreement: pd.DataFrame | None) -> list[tuple[str, str]]:
    """What a reader should know, in plain words, each with what to try next."""
    found = []
    for name, row in scores.iterrows():
        if str(name).startswith("FOSCTTM") and row["value"] > POOR_FOSCTTM:
            found.append((
                f"Cells hardly find their other half ({name} {row['value']:.2f}; 0.5 is chance).",
                "Check that both modalities hold raw counts of the same cells under the same names, then try more cells, or "
                "deeper ones: cells with a few hundred counts cannot be told apart within a type.",
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
    if agreement is not None and (low := float((agreement["evidence"] <= 0).mean())) > LOW_AGREEMENT:
        found.append((
            f"In {low:.0%} of the cells the modalities fit each other no better than those of strangers.",
            "Look whether these are doublets or shallow cells (pl.modality_agreement), and filter before training again.",
        ))  # fmt: skip
    if model.batch_key is None:
        found.append((
            "No batch was named.",
            "If samples, donors or runs differ, name their column: setup_mudata(batch_key=...) or --batch-key.",
        ))  # fmt: skip
    return found


def _key(mdata: MuData, model: SCMAMBA, scores: pd.DataFrame) -> list[tuple[str, str]]:
    key = [("cells", f"{mdata.n_obs:,}"), ("modalities", str(len(model.kinds)))]
    if CLUSTER_KEY in mdata.obs:
        key.append(("clusters", str(mdata.obs[CLUSTER_KEY].nunique())))
    key += [(f"{name}, held-out cells", f"{row['value']:.3f}") for name, row in scores.head(2).iterrows()]
    return key


def _data(mdata: MuData, model: SCMAMBA) -> list[tuple[str, str, str, str]]:
    return [
        (kind if kind == key else f"{kind} ({key})", f"{mdata[key].n_obs:,}", f"{mdata[key].n_vars:,}", model.layouts[kind].summary())
        for kind, key in model.kinds.items()
    ]  # fmt: skip


def _score_rows(scores: pd.DataFrame) -> list[list[str]]:
    return [
        [str(name), next((text for word, text in ABOUT.items() if str(name).startswith(word)), ""),
         f"{row['value']:.3f}", f"{row['chance']:.3f}", f"{row['best']:.0f}", f"{int(row['n_cells']):,}"]
        for name, row in scores.iterrows()
    ]  # fmt: skip


def _run(model: SCMAMBA) -> str:
    summary = getattr(model, "training_summary_", {})
    epochs = f" Best weights: epoch {summary['best_epoch']}." if summary.get("best_epoch") is not None else ""
    size = sum(p.numel() for p in model.module.parameters())
    batches = f"batches of {model.batch_key!r} taken out" if model._corrects_batches else "no batches taken out"
    return f"Preset {model.preset_}, {model.config.n_latent} dimensions, {size:,} parameters, {batches}.{epochs}"


def _agreement(model: SCMAMBA) -> pd.DataFrame | None:
    try:
        return model.get_modality_agreement()
    except ScmambaError:  # too few cells with two modalities: the page does without
        return None


def _figures(
    mdata: MuData, model: SCMAMBA, labels_key: str | None, agreement: pd.DataFrame | None
) -> list[tuple[str, str, str]]:
    drawings: list[tuple[str, str, Callable[..., object]]] = []
    if UMAP_KEY in mdata.obsm:
        columns = [
            name for name in (labels_key, model.batch_key, CLUSTER_KEY) if name is not None and name in mdata.obs
        ]
        keys = list(model.kinds.values())
        drawings.append((
            "Embedding", "Cells that are alike lie together. Where modalities mix, they tell the same story.",
            lambda figure: pl.integration(mdata, columns, modalities=keys, figure=figure),
        ))  # fmt: skip
    if agreement is not None and np.isfinite(agreement["evidence"]).any():
        drawings.append((
            "Do the modalities agree?", "Below zero, the two views of a cell fit no better than those of two strangers.",
            lambda figure: pl.modality_agreement(
                agreement["evidence"], mdata if UMAP_KEY in mdata.obsm else None, figure=figure
            ),
        ))  # fmt: skip
    if getattr(model, "history", None):
        drawings.append((
            "Training", "Scores of held-out cells by epoch; the best weights are kept.",
            lambda figure: pl.training(model, figure=figure),
        ))  # fmt: skip
    return [(title, about, _png(draw)) for title, about, draw in drawings]


def _png(draw: Callable[..., object]) -> str:
    from matplotlib.figure import Figure

    figure, file = Figure(), io.BytesIO()
    draw(figure=figure)
    figure.savefig(file, format="png", dpi=110)
    return base64.b64encode(file.getvalue()).decode("ascii")
