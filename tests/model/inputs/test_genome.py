"""Coordinates are kept where names do not say them, and builds are never mixed."""

import pandas as pd
import pytest
from shapes import mudata_of, poisson

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.model.inputs.genome import build_of, places_to_keep

KEYS = {"rna": "rna", "atac": "atac"}


def test_coordinates_that_names_say_are_not_kept_twice():
    var = pd.DataFrame(index=["chr1:5-9", "chr2:1-4"])
    assert places_to_keep(var) is None and places_to_keep(pd.DataFrame(index=["A", "B"])) is None
    var["chrom"], var["start"], var["end"] = ["chr2", "chr1"], [10, 20], [15, 25]
    kept = places_to_keep(var)
    assert [kept["chroms"][i] for i in kept["chrom"]] == ["chr2", "chr1"]
    assert (kept["start"], kept["end"], kept["strand"]) == ([10, 20], [15, 25], [0, 0])
    assert places_to_keep(var.assign(strand=pd.Categorical(["-", "+"])))["strand"] == [-1, 1]


def test_one_build_in_several_spellings_is_one_build():
    mdata = mudata_of({"rna": poisson(4, 3), "atac": poisson(4, 3)})
    assert build_of(mdata, KEYS, None) is None and build_of(mdata, KEYS, "GRCh38") == "hg38"
    mdata.uns["genome"] = "hg38"
    mdata["atac"].var["genome"] = "GRCh38"
    assert build_of(mdata, KEYS, None) == build_of(mdata, KEYS, "hg38") == "hg38"
    mdata["atac"].var["genome"] = "mm10"
    for genome in (None, "hg38"):
        with pytest.raises(ScmambaError, match=r"Genome builds differ:.*hg38.*mdata\['atac'\] is mm10"):
            build_of(mdata, KEYS, genome)
    assert build_of(mdata, {"rna": "rna", "protein": "atac"}, None) == "hg38"  # proteins have no place
