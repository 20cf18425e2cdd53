"""The report is one file that needs no other, names problems of the data, and runs no script from names in the data."""

import base64
import dataclasses
import os
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from scmamba_scvi import SCMAMBA, cli
from scmamba_scvi._compat import without_pulling
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.report import _notes, _unmixed, write_report


@pytest.fixture(scope="module")
def model():
    mdata = simulate_multiome(n_cells=200, n_genes=100, n_peaks=200, n_cell_types=3, seed=0)
    for part in mdata.mod.values():
        part.var = part.var.assign(chrom="", start=-1, end=-1)
    mdata["atac"].var_names = [f"tile {i}" for i in range(200)]
    mdata.update()
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    return model


def test_the_page_needs_no_other_file_and_says_what_to_try(model, tmp_path):
    path = write_report(model, tmp_path / "report.html", title="<script>alert(1)</script> & co")
    page = path.read_text()
    assert not re.search(r"https?://|<link|<script|@import|url\(", page)
    assert "&lt;script&gt;alert(1)" in page and "200" in page
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) >= 2 and all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert "No batch was named." in page and "--batch-key" in page
    assert "None of the 100 features of rna have a place" in page and "annotate_genome" in page
    assert "None of the 200 features of atac have a place" in page and "name the peaks as in chr1:100-200" in page
    assert "FOSCTTM" in page and "n_latent" in page
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_file_named_in_another_encoding_has_a_page(model, tmp_path):
    title = os.fsdecode(b"caf\xe9.h5mu")  # Latin-1 where UTF-8 is usual
    path = write_report(model, tmp_path / "report.html", title=title)
    assert "caf?.h5mu" in path.read_text(encoding="utf-8")


def test_a_file_of_another_kind_is_never_replaced(model, tmp_path):
    (tmp_path / "cells.h5mu").write_text("counts")
    with pytest.raises(ScmambaError, match="must end in .html, got 'cells.h5mu'"):
        write_report(model, tmp_path / "cells.h5mu")
    assert (tmp_path / "cells.h5mu").read_text() == "counts"


def test_a_column_that_only_a_modality_has_is_drawn(model, tmp_path):
    mdata = model.adata
    for data in (mdata, *mdata.mod.values()):
        data.obsm["X_umap_scmamba"] = np.random.default_rng(0).normal(size=(data.n_obs, 2))
    mdata["rna"].obs["donor"] = np.where(np.arange(mdata["rna"].n_obs) % 2, "a", "b")
    panels = [
        re.findall(r'alt="Embedding: ([^"]*)"', write_report(model, tmp_path / "r.html", labels_key=key).read_text())
        for key in (None, "donor")
    ]
    for data in (mdata, *mdata.mod.values()):
        del data.obsm["X_umap_scmamba"]
    del mdata["rna"].obs["donor"]
    assert panels == [["modality"], ["modality", "donor"]]


def test_types_in_which_the_modalities_lie_apart_are_named(model, tmp_path):
    alignment = model.module.alignment
    before = alignment.offset_rna.clone()
    assert "lie apart" not in write_report(model, tmp_path / "r.html", labels_key="cell_type").read_text()
    alignment.offset_rna += 1.0
    types = model.adata.obs["cell_type"]
    largest = types.value_counts().index[0]
    model.adata.obs["partly"] = types.where(types == largest)  # a type that is not known is no type
    try:
        page = write_report(model, tmp_path / "r.html", labels_key="partly").read_text()
    finally:
        alignment.offset_rna.copy_(before)
        del model.adata.obs["partly"]
    assert re.search(rf"rna and atac lie apart \(0% over all cells\) in type {largest} \(0%\)[;.]", page)


def test_few_pairs_are_counted(model, tmp_path):
    assert "Only 200 cells have two modalities." in write_report(model, tmp_path / "r.html").read_text()


def test_poor_matches_cells_that_disagree_and_an_interruption_are_said(model, monkeypatch):
    def said(foscttm, evidence):
        scores = pd.DataFrame({"value": [foscttm]}, index=["FOSCTTM"])
        return [what for what, _ in _notes(model.adata, model, scores, pd.DataFrame({"evidence": evidence}))]

    fine = said(0.2, [0.5] * 9 + [-1])
    monkeypatch.setitem(model.training_summary_, "interrupted", True)
    assert [what for what in said(0.3, [0.5] * 6 + [0, -1, -1, -1]) if what not in fine] == [
        "True matches are hardly found (FOSCTTM 0.30; 0.5 is chance).",
        "Training was interrupted.",
        "In 40% of the cells the two modalities fit no better than those of two cells drawn at random.",
    ]


def test_batches_that_lie_apart_are_named():
    """Three batches on one place and a fourth beside it; then all on one place."""
    rng = np.random.default_rng(0)
    batches = rng.permutation(np.repeat(["a", "b", "c", "d"], 100))
    mdata = SimpleNamespace(obs=pd.DataFrame({"run": batches}), n_obs=400, mod={})
    for shift, expected in ((9.0, ["Of 'run', these lie apart: d (100%)."]), (0.0, [])):
        z = rng.normal(size=(400, 3)) + shift * (batches == "d")[:, None]
        model = SimpleNamespace(batch_key="run", get_latent_representation=lambda _, cells, z=z: z[cells])
        assert [what for what, _ in _unmixed(mdata, model)] == expected


def test_cells_that_the_model_cannot_embed_are_left_out_of_the_page(tmp_path):
    """A further modality has cells of its own: they have no embedding, and no neighbours to be counted."""
    mdata = simulate_multiome(n_cells=150, n_genes=60, n_peaks=120, n_cell_types=2, n_batches=2, seed=0)
    images = mdata["rna"][:, :3].copy()
    images.obs_names = [*images.obs_names[:-40], *(f"alone_{i}" for i in range(40))]
    more = mudata.MuData({"rna": mdata["rna"], "atac": mdata["atac"], "image": images})
    more.obs["run"] = pd.Categorical(np.where(np.arange(more.n_obs) % 2, "a", "b"))
    SCMAMBA.setup_mudata(more, modalities={"rna": "rna", "atac": "atac"}, batch_key="run")
    model = SCMAMBA(more, encoder="linear")
    model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    assert np.isnan(model.get_latent_representation()).all(axis=1).sum() == 40
    assert "190" in write_report(model, tmp_path / "report.html").read_text()


@pytest.mark.filterwarnings("ignore:Batches too small", "ignore:.*zero throughout")
@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        pytest.param((190, 10), "'run', here with their cells: 'b' (10).", id="a small one"),
        pytest.param((100, 100), None, id="large ones"),
        pytest.param((200,), None, id="one"),
    ],
)
def test_batches_that_are_too_small_to_be_corrected_are_named(model, tmp_path, sizes, said):
    with without_pulling():
        mdata = model.adata.copy()
    mdata.obs["run"] = pd.Categorical(np.repeat([*"ab"][: len(sizes)], sizes))
    SCMAMBA.setup_mudata(mdata, batch_key="run")
    of_batches = SCMAMBA(mdata, encoder="linear")
    of_batches.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    page = Page(write_report(of_batches, tmp_path / "report.html").read_text())
    found = [text for text in page.texts["b"] if "is not corrected for" in text]
    assert len(found) == (said is not None) and all(said in text for text in found)


def test_the_page_says_when_how_and_with_what_it_was_made(model, tmp_path):
    page = Page(write_report(model, tmp_path / "r.html", command="scmamba-scvi integrate 'a b.h5mu'").read_text())
    assert page.texts["code"] == ["scmamba-scvi integrate 'a b.h5mu'"]
    versions = page.texts["td"][-1 - 2 * len(dataclasses.asdict(model.config))]
    assert f"torch {torch.__version__.partition('+')[0]}" in versions and "scvi-tools" in versions
    assert "Command" not in Page(write_report(model, tmp_path / "r.html").read_text()).texts["th"]
    assert "prefers-color-scheme: dark" in page.texts["style"][0] and "@media print" in page.texts["style"][0]


def test_a_model_with_other_cells_than_those_of_the_training_has_a_page_without_scores(model, tmp_path):
    model.save(tmp_path / "model")
    other = model.adata[:150].copy()
    other.uns.clear()  # they would be taken for the data of the model
    loaded = SCMAMBA.load(tmp_path / "model", adata=other, accelerator="cpu")
    page = write_report(loaded, tmp_path / "r.html").read_text()
    assert "these are other cells than those of the training, so nothing is scored" in page
    assert "FOSCTTM, validation cells" not in page
    assert "FOSCTTM, validation cells" in write_report(model, tmp_path / "r.html").read_text()


def test_an_untrained_model_has_nothing_to_report(model, tmp_path):
    with pytest.raises(ScmambaError, match="needs a trained model"):
        write_report(SCMAMBA(model.adata, encoder="linear"), tmp_path / "report.html")


class Page(HTMLParser):
    """What a browser would see: tags, attributes, and the text of each cell, heading and paragraph."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in ("meta", "img", "wbr"):
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]][-1] += data


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of the whole command, of data whose names are markup; and what the command printed."""
    folder = tmp_path_factory.mktemp("report")
    given = simulate_multiome(n_cells=300, n_genes=200, n_peaks=600, n_cell_types=3, seed=0)
    mdata = mudata.MuData({MARKUP["rna"]: given["rna"], MARKUP["atac"]: given["atac"]})
    mdata.obs[MARKUP["batch"]] = given.obs["batch"].astype(str).to_numpy()
    mdata.obs[MARKUP["type"]] = np.char.add("<i>", given.obs["cell_type"].astype(str).to_numpy().astype(str))
    mdata.write_h5mu(folder / "R&D cells.h5mu")
    result = CliRunner().invoke(
        cli.app,
        [
            "integrate", str(folder / "R&D cells.h5mu"), "--out", str(folder / "out.h5mu"),
            "--report", str(folder / "new" / "report.html"), "--modality", f"rna={MARKUP['rna']}",
            "--modality", f"atac={MARKUP['atac']}", "--batch-key", MARKUP["batch"], "--labels-key", MARKUP["type"],
            "--preset", "small", "--n-latent", "8", "--max-epochs", "2", "--accelerator", "cpu",
        ],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder / "new" / "report.html", "".join(result.output.split())


MARKUP = {"rna": "<img src=x onerror=alert(1)>", "atac": 'peaks" onload="alert(2)', "batch": "<u>donor & run", "type": "<b>type"}  # fmt: skip


def test_the_command_writes_a_page_with_every_section(written):
    path, output = written
    assert [file.name for file in path.parent.iterdir()] == ["report.html"] and "new/report.html" in output
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == [] and page.tags[:2] == ["html", "head"]
    assert page.texts["h1"] == ["Integration of R&D cells.h5mu"] == page.texts["title"]
    assert page.texts["h2"] == [
        "What to know", "Data", "Scores", "Embedding", "Do the modalities agree?", "Training", "How it was run",
    ]  # fmt: skip
    about = " ".join(" ".join(page.texts["p"]).split())
    assert "The network was not trained on them, but they chose the epoch" in about and "never saw" not in about
    assert {"FOSCTTM, validation cells"} <= set(page.texts["span"])
    # what was found stands in the tables, not only their headings
    cells = page.texts["td"]
    assert {"FOSCTTM", "recall@10", "ARI", "300", "200", "600", "n_latent"} <= set(cells)
    assert "8" in cells[cells.index("n_latent") + 1] and "Preset small, 8 dimensions" in " ".join(page.texts["p"])
    images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(images) == 4 + 2 + 3  # panels of the embedding, of the agreement and of training
    assert all(base64.b64decode(image.split(",")[1]).startswith(b"\x89PNG") for image in images)


def test_the_page_of_the_command_needs_nothing_but_itself(written):
    text = written[0].read_text(encoding="utf-8")
    page = Page(text)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), f"<{tag} {name}> runs a script"
        if name in ("src", "href", "srcset", "poster", "data", "action"):
            assert value.startswith("data:image/png;base64,"), f"<{tag} {name}> asks for {value[:60]}"
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    (style,) = page.texts["style"]
    assert not re.search(r"@import|url\(|expression\(", style)


def test_names_that_are_markup_are_text(written):
    page = Page(written[0].read_text(encoding="utf-8"))
    assert not {"u", "i"} & set(page.tags) and page.tags.count("img") == 9
    assert f"rna ({MARKUP['rna']})" in page.texts["td"] and f"atac ({MARKUP['atac']})" in page.texts["td"]
    assert f"offsets of the batches {MARKUP['batch']!r} removed" in " ".join(page.texts["p"])
