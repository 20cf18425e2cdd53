"""Every script runs from its command line and writes the file that its docstring names."""

from __future__ import annotations

import json

import pytest

#: Scripts on a trained model, and the results that each writes.
AFTER_INTEGRATION = ("annotation", "matching", "imputation", "agreement", "mosaic", "region_links")


@pytest.fixture
def results(load, monkeypatch, tmp_path):
    """An empty folder of results, with a set that is trained in a second."""
    from scmamba_scvi.model import _sizes

    sets, after = load("harness.sets"), load("harness.after")
    arguments = {"n_cells": 300, "n_genes": 80, "n_peaks": 200, "n_cell_types": 3, "seed": 1}
    tiny = sets.DataSet(
        "tiny", "simulated", simulate=("simulate_multiome", arguments), label_key="cell_type", batch_key="batch"
    )
    monkeypatch.setitem(sets.SETS, "tiny", tiny)
    monkeypatch.setattr(after, "RESULTS", tmp_path)
    monkeypatch.setattr(_sizes, "STEPS", 8)  # how well the model is trained does not matter here
    return tmp_path


@pytest.mark.parametrize("topic", AFTER_INTEGRATION)
def test_a_script_writes_the_results_that_it_names(load, results, topic):
    script = load(topic)
    assert f"Writes benchmarks/results/{topic}.json" in script.__doc__
    script.main(["--sets", "tiny"])
    assert [path.name for path in results.iterdir()] == [f"{topic}.json"]
    assert list(json.loads((results / f"{topic}.json").read_text())["sets"]) == ["tiny"]
