from __future__ import annotations

from scmamba_scvi.metrics import METRICS


def test_every_metric_says_what_it_is():
    for name, metric in METRICS.items():
        assert metric.name == name and metric.about and metric.group in ("bio", "omics", "single-cell", "batch")
    assert [n for n, m in METRICS.items() if not m.higher_is_better] == ["FOSCTTM", "median rank", "modality gap"]
    for group, names in {"bio": 4, "omics": 4}.items():
        assert sum(m.in_summary and m.group == group for m in METRICS.values()) == names
