from __future__ import annotations

import pandas as pd
import pytest

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.pp.builds import canonical_build, possible_builds, recorded_build
from scmamba_scvi.pp.coordinates import parse_coordinates


@pytest.mark.parametrize(
    ("name", "build"), [("GRCh38", "hg38"), ("hg38.p13", "hg38"), ("GRCm39", "mm39"), ("b37", "hg19"), ("dm6", "dm6")]
)
def test_spellings_of_a_build_have_one_name(name, build):
    assert canonical_build(name) == build


@pytest.mark.parametrize(
    ("intervals", "builds"),
    [
        pytest.param(["chr20:64000000-64400000"], ["hg38"], id="beyond_the_end_in_hg19_and_no_chromosome_of_a_mouse"),
        pytest.param(["chr8:130000000-130100000", "chr1:1-9"], ["hg19", "hg38", "mm9", "mm39"], id="beyond_the_end_in_mm10"),
        pytest.param(["GENE"], [], id="no_coordinates"),
    ],
)  # fmt: skip
def test_coordinates_beyond_a_chromosome_rule_a_build_out(intervals, builds):
    assert possible_builds(parse_coordinates(pd.DataFrame(index=intervals))) == builds


def test_the_build_that_data_name_is_found_and_several_are_refused():
    var = pd.DataFrame({"genome": ["GRCh38", "GRCh38", None]})
    assert recorded_build({}, var, "mdata") == "hg38" and recorded_build({}, None, "mdata") is None
    assert recorded_build({"genome": "hg38"}, var, "mdata") == "hg38"
    with pytest.raises(ScmambaError, match="mdata names several genomes.*hg19.*hg38"):
        recorded_build({"genome": "hg19"}, var, "mdata")
