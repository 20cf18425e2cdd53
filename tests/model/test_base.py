"""What every mixin may rely on: names, batches and coordinates of a model."""

import copy
import gc
import weakref

import numpy as np
import pandas as pd

from scmamba_scvi import SCMAMBA
from scmamba_scvi.pp.coordinates import parse_coordinates


def test_names_batches_and_modalities_are_those_of_the_data(trained):
    mdata = trained.adata
    assert trained.kinds == {"rna": "rna", "atac": "atac"} and trained.batch_key == "batch"
    for key, names in trained.get_var_names().items():
        np.testing.assert_array_equal(names, mdata[key].var_names)
    assert list(trained.batches) == sorted(mdata.obs["batch"].unique())
    trained.kinds["protein"] = "adt"  # a copy
    assert "protein" not in trained.kinds


def test_the_summary_that_scvi_tools_asks_for_is_what_a_model_prints(trained):
    assert trained.summary_string == repr(trained) and "rna (mdata['rna']" in repr(trained)


def test_a_model_holds_no_data_but_its_own(trained):
    model, other = copy.copy(trained), trained.adata[:30].copy()
    before, gone = model.adata, weakref.ref(other)
    model.get_latent_representation(other)
    model.get_latent_representation(other["rna"])
    del other
    gc.collect()
    assert gone() is None
    model.adata = trained.adata[:40].copy()
    assert [manager.adata.n_obs for manager in model._per_instance_manager_store[model.id].values()] == [40]
    model.adata = before


def test_coordinates_are_those_of_var_or_of_the_names(mdata):
    var = mdata["atac"].var
    var["chrom"], var["start"], var["end"] = "chr7", np.arange(len(var)) * 10, np.arange(len(var)) * 10 + 5
    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    moved = model.coordinates("atac")
    assert set(moved.names()) == {"chr7"} and list(moved.start) == list(var["start"])
    model.places_["atac"] = None  # names say the same
    named = parse_coordinates(pd.DataFrame(index=mdata["atac"].var_names))
    np.testing.assert_array_equal(model.coordinates("atac").start, named.start)
