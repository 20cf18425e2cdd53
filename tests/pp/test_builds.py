from __future__ import annotations

import pandas as pd
import pytest

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.pp.builds import canonical_build, recorded_build


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("GRCh38", "hg38"), ("hg38.p13", "hg38"), ("GRCm39", "mm39"), ("b37", "hg19"), ("dm6", "dm6"),
        ("GRCh38_p13_ARC", "hg38"), ("GRCh38-2020-A", "hg38"), ("mm10-2020-A", "mm10"), ("GRCh38_SARSCoV2", "hg38"),
        ("refdata-cellranger-arc-GRCh38-2020-A-2.0.0", "hg38"), ("GRCh38_and_mm10", "GRCh38_and_mm10"),
    ],
)  # fmt: skip
def test_spellings_of_a_build_have_one_name(name, build):
    assert canonical_build(name) == build


def test_the_build_that_data_name_is_found_and_several_are_refused():
    var = pd.DataFrame({"genome": ["GRCh38", "GRCh38", None]})
    assert recorded_build({}, var, "mdata") == "hg38" and recorded_build({}, None, "mdata") is None
    assert recorded_build({"genome": "hg38"}, var, "mdata") == "hg38"
    with pytest.raises(ScmambaError, match="mdata names several genomes.*hg19.*hg38"):
        recorded_build({"genome": "hg19"}, var, "mdata")


def test_a_virus_beside_a_build_is_no_other_build():
    var = pd.DataFrame({"genome": ["GRCh38", "SARS-CoV2"]})
    assert recorded_build({}, var, "mdata") == "hg38"
    unknown = pd.DataFrame({"genome": ["mine", "SARS-CoV2"]})
    with pytest.raises(ScmambaError, match="mdata names several genomes.*genome="):
        recorded_build({}, unknown, "mdata")
    assert recorded_build({}, unknown, "mdata", stated="hg38") == "hg38"
    assert recorded_build({}, var, "mdata", stated="mm10") == "hg38"  # which the caller refuses
