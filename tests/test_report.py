"""One file that holds everything, says what is wrong, and runs nothing that a file brought along."""

import base64
import re

import pytest

from scmamba_scvi import SCMAMBA
from scmamba_scvi.data import simulate_multiome
from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.report import write_report


@pytest.fixture(scope="module")
def model():
    mdata = simulate_multiome(n_cells=200, n_genes=100, n_peaks=200, n_cell_types=3, seed=0)
    mdata["rna"].var = mdata["rna"].var.assign(chrom="", start=-1, end=-1)
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    model.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    return model


def test_the_page_stands_alone_and_says_what_to_try(model, tmp_path):
    path = write_report(model, tmp_path / "report.html", title="<script>alert(1)</script> & co")
    page = path.read_text()
    assert not re.search(r"https?://|<link|<script|@import|url\(", page)
    assert "&lt;script&gt;alert(1)" in page and "200" in page
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) >= 2 and all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert "No batch was named." in page and "--batch-key" in page
    assert "Only 0 of 100 features of rna have a place" in page and "annotate_genome" in page
    assert "FOSCTTM" in page and "n_latent" in page
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_an_untrained_model_has_nothing_to_report(model, tmp_path):
    with pytest.raises(ScmambaError, match="needs a trained model"):
        write_report(SCMAMBA(model.adata, encoder="linear"), tmp_path / "report.html")
