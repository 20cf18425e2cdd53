"""Results of what comes after integration: sets and seeds stay beside each other, and the page says what they say."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

MACHINE = {"threads": 1, "device": "x", "python": "3", "versions": {"torch": "2"}}


@pytest.fixture(scope="module")
def mdata():
    from scmamba_scvi.data import simulate_multiome

    return simulate_multiome(n_cells=200, n_genes=60, n_peaks=150, n_cell_types=3, seed=0)


def test_results_of_sets_and_seeds_stay_beside_each_other(load, tmp_path, monkeypatch):
    monkeypatch.setattr(load("harness.after"), "RESULTS", tmp_path)
    for name, seed, value in (("a", 0, 1), ("a", 1, 2), ("b", 0, 3), ("a", 0, 4)):
        load("harness.after").keep("topic", "sets", name, {f"seed {seed}": value})
    found = json.loads((tmp_path / "topic.json").read_text())
    assert found == {"sets": {"a": {"seed 0": 4, "seed 1": 2}, "b": {"seed 0": 3}}}


def test_a_difference_counts_beyond_spread_and_standard_error(load):
    page = load("harness.after_page")
    assert page.margin(pd.Series([0.8]), 100) == pytest.approx(0.04)
    assert page.margin(pd.Series([0.7, 0.8, 0.9]), 10**6) == pytest.approx(0.2)
    verdicts = [page.verdict(gain, 0.04) for gain in (0.05, 0.03, -0.03, -0.05)]
    assert verdicts == ["better", "the same", "the same", "**worse**"]


def test_the_page_says_what_the_results_say(load, tmp_path):
    def seed(accuracy):
        scores = {"15-NN on RNA PCA": {"accuracy": 0.5, "f1": 0.9}, "predict": {"accuracy": accuracy, "f1": 0.3}}
        sure = {"named": 0.5, "accuracy": 1.0}
        one = {"cells": 100, "labels": 2, "scores": scores, "mean probability": 0.7, "threshold 0.9": sure}
        return {"held-out fifth": one, "machine": MACHINE}

    found = {"sets": {"some_set": {"seed 0": seed(0.8), "seed 1": seed(0.9)}}}
    (tmp_path / "annotation.json").write_text(json.dumps(found))
    lines = load("harness.after_page").page_lines(tmp_path)
    assert "| predict | 2 | 0.850 ± 0.071 | 0.300 ± 0.000 |" in lines
    against = next(line for line in lines if line.startswith("| some_set | held-out fifth | 15-NN"))
    assert "+0.350 | -0.600" in against and against.endswith("| better | **worse** |")
    assert "- 2 results: x, 1 thread, Python 3, torch 2." in lines


def test_a_baseline_chooses_its_penalty_as_the_classifier_of_the_package_does(load):
    annotation, rng = load("annotation"), np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], [200, 60, 2])
    noise = rng.normal(size=(len(labels), 40))
    told = noise + 5 * rng.normal(size=(3, 40))[np.unique(labels, return_inverse=True)[1]]
    assert annotation.tuned(noise, labels).best_params_["C"] < 0.01
    assert (annotation.tuned(told, labels).predict(told) == labels).all()


def test_swapped_cells_are_those_with_another_profile(load, mdata):
    swapped = mdata.copy()
    cells = load("agreement").swap(swapped, (0, 1))
    assert cells.sum() == 10
    np.testing.assert_array_equal(swapped["rna"].X.toarray(), mdata["rna"].X.toarray())
    changed = (swapped["atac"].X.toarray() != mdata["atac"].X.toarray()).any(1)
    np.testing.assert_array_equal(changed, cells)


def test_a_mosaic_lacks_one_modality_of_the_cells_named(load, mdata):
    names = mdata.obs_names[:50].to_numpy()
    out = load("mosaic").without(mdata, "atac", names, altogether=False)
    assert out.n_obs == 200 and out["rna"].n_obs == 200
    assert set(out["atac"].obs_names) == set(mdata.obs_names) - set(names)
    assert (out.obs["cell_type"] == mdata.obs["cell_type"].reindex(out.obs_names)).all()
    assert load("mosaic").without(mdata, "atac", names, altogether=True).n_obs == 150
