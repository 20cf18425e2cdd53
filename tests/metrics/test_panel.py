from __future__ import annotations

import numpy as np
import pytest

from scmamba_scvi.errors import ScmambaError
from scmamba_scvi.metrics import METRICS, knn_accuracy, seurat_alignment
from scmamba_scvi.metrics._embedded import Embedded


def test_every_metric_says_what_it_is():
    for name, metric in METRICS.items():
        assert metric.name == name and metric.about and metric.group in ("bio", "omics", "single-cell", "batch")
    assert [n for n, m in METRICS.items() if not m.higher_is_better] == ["FOSCTTM", "median rank", "modality gap"]
    for group, names in {"bio": 4, "omics": 4}.items():
        assert sum(m.in_summary and m.group == group for m in METRICS.values()) == names


def embedded(n=60, **change):
    rng = np.random.default_rng(0)
    types = np.arange(n) % 3
    x = 5 * np.eye(3, 4)[types] + rng.normal(size=(n, 4))
    parts = {"rna": x, "atac": x + 0.1 * rng.normal(size=x.shape)}
    given = {"joint": x, "modalities": parts, "labels": np.array([f"t{t}" for t in types], dtype=object),
             "batches": np.full(n, None, dtype=object), "random_state": 0, "device": None}  # fmt: skip
    return Embedded(**(given | change))


def test_a_metric_of_cell_types_is_its_function_on_the_labelled_cells():
    e = embedded()
    e.labels[:5] = None
    expected = knn_accuracy(e.joint[5:], e.labels[5:])
    assert METRICS["kNN accuracy"].function(e) == pytest.approx(expected)


def test_a_metric_of_modalities_is_its_function_on_all_rows():
    e = embedded()
    stacked = np.concatenate(list(e.modalities.values()))
    expected = seurat_alignment(stacked, ["rna"] * 60 + ["atac"] * 60)
    assert METRICS["Seurat alignment"].function(e) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        pytest.param("batch ASW", {}, "no batch_key", id="no_batches"),
        pytest.param("recall@10", {"n": 9}, "of 9 cells each is among the 10 nearest", id="few_cells"),
        pytest.param("omics mixing", {"n": 20}, "15 neighbours need 60 rows; got 40", id="few_rows"),
        pytest.param("modality gap", {"modalities": {}}, "no embeddings of two", id="no_modalities"),
    ],
)
def test_what_the_data_lack_is_said(name, change, message):
    with pytest.raises(ScmambaError, match=message):
        METRICS[name].function(embedded(**change))
