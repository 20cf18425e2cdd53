"""What a benchmark must not get wrong: who sees which cell, who sees a label, what a table says."""

from __future__ import annotations

import dataclasses
import mmap
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def harness(load):
    for name in (
        "benchmarks_page", "fits", "held_out_batches", "methods.gene_activity", "methods.genome", "opening", "process", "runner",
        "scores", "sets", "subsamples", "trajectory", "variants", "verdicts",
    ):  # fmt: skip
        load(f"harness.{name}")
    return load("harness")


@pytest.fixture(scope="module")
def dataset(harness):
    arguments = {"n_cells": 1000, "n_genes": 300, "n_peaks": 1000, "n_cell_types": 4, "seed": 1}
    return harness.sets.simulated("tiny", "simulated", **arguments)


@pytest.fixture(scope="module")
def task_and_truth(harness, dataset):
    return harness.sets.split(dataset)


def test_no_cell_is_both_fitted_and_scored(task_and_truth, dataset):
    task, _ = task_and_truth
    train, test = set(task.train.obs_names), set(task.test.obs_names)
    assert not train & test
    assert train | test == set(dataset.load().obs_names)
    assert len(test) == 200


def test_methods_get_no_label(task_and_truth):
    task, truth = task_and_truth
    for mdata in (task.train, task.test):
        for data in (mdata, *mdata.mod.values()):
            assert set(data.obs.columns) <= {"batch"}
        assert not any(len(data.obsm) for data in mdata.mod.values())
    assert len(truth.labels[0]) == task.train.n_obs and len(truth.labels[1]) == task.test.n_obs


def test_truth_belongs_to_the_cells_of_the_task(task_and_truth, dataset):
    task, truth = task_and_truth
    labels = dataset.load().obs["cell_type"].astype(str)
    np.testing.assert_array_equal(truth.labels[1], labels.loc[task.test.obs_names])
    np.testing.assert_array_equal(truth.labels[0], labels.loc[task.train.obs_names])


@pytest.mark.parametrize(
    "name", ["RNA PCA", "ATAC LSI / protein PCA", "CCA", "weighted CCA", "weighted CCA, plain LSI", "linear"]
)
def test_embeddings_have_a_row_per_cell_and_beat_chance(harness, task_and_truth, name):
    task, truth = task_and_truth
    embeddings = harness.methods.METHODS[name].fit(task, 0).embeddings
    for train, test in embeddings.values():
        assert len(train) == task.train.n_obs and len(test) == task.test.n_obs
        assert np.isfinite(train).all() and np.isfinite(test).all()
    scores = harness.scores.score(embeddings, truth)
    assert set(scores) <= set(harness.scores.SCORES)
    assert scores["kNN accuracy"] > 0.5
    if "rna" in embeddings:
        assert scores["FOSCTTM"] < 0.45  # 0.5 is chance, and plain CCA of a few cells is near it


def test_scores_do_not_depend_on_the_order_of_cells(harness, task_and_truth):
    task, truth = task_and_truth
    embeddings = harness.methods.METHODS["weighted CCA"].fit(task, 0).embeddings
    order = np.random.default_rng(0).permutation(task.test.n_obs)
    permuted = {name: (train, test[order]) for name, (train, test) in embeddings.items()}
    moved = dataclasses.replace(
        truth, labels=(truth.labels[0], truth.labels[1][order]), batches=(truth.batches[0], truth.batches[1][order])
    )
    before, after = harness.scores.score(embeddings, truth), harness.scores.score(permuted, moved)
    for name in ("FOSCTTM", "recall@10", "kNN accuracy", "cell-type ASW", "batch mixing"):
        assert after[name] == pytest.approx(before[name], abs=1e-9)


def test_a_batch_that_lies_apart_names_its_own_cells_but_those_of_others_wrongly(harness):
    rng = np.random.default_rng(0)
    batches, labels = np.repeat(["1", "2"], 200), np.tile(["a", "b"], 200)
    # second axis: batch; first axis: type, turned round in the second batch
    centre = np.stack(
        [np.where((labels == "a") == (batches == "1"), 0.0, 50.0), np.where(batches == "1", 0.0, 100.0)], 1
    )
    embedded = centre + rng.normal(size=(400, 2))
    truth = harness.sets.Truth((labels, labels), (batches, batches), ())
    scores = harness.scores.score_all({"joint": (embedded, embedded)}, truth)
    assert scores["kNN accuracy"] == 1
    assert scores["kNN, other batches"] == 0


def test_more_cells_are_harder_to_tell_apart_but_as_near_to_their_match(harness):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1200, 8))
    parts = {"rna": (x, x), "atac": (x, x + 0.5 * rng.normal(size=x.shape)), "joint": (x, x)}
    scores = harness.subsamples.score(parts)
    few, many = ({s: scores[f"{s} among {n}"] for s in harness.subsamples.SHOWN} for n in (100, 1000))
    assert few["FOSCTTM"] == pytest.approx(many["FOSCTTM"], abs=0.005)
    assert few["matching score"] > many["matching score"] + 0.05
    assert few["neighbourhood overlap"] > many["neighbourhood overlap"] + 0.05
    assert "FOSCTTM among 2000" not in scores
    assert not harness.subsamples.score({"joint": (x, x)})


def test_a_method_whose_embeddings_are_gone_is_named_below_the_table(harness):
    line = {"set": "bmmc_cite_5k", "seed": 0, "fit_s": 1.0, "method": "CCA", "FOSCTTM among 100": 0.1}
    quality = pd.DataFrame({"set": "bmmc_cite_5k", "method": ["CCA", "totalVI", "GLUE"], "FOSCTTM": [0.1, np.nan, 0.2]})
    quality["fit_s"] = 1.0
    lines = harness.subsamples.section(pd.DataFrame([line]), quality)
    assert "| CCA | 0.100 |" in "\n".join(lines).splitlines()
    assert "Bone marrow CITE-seq, not scored, since their embeddings were not kept: GLUE." in lines


def test_peaks_on_genes_are_those_that_a_loop_finds(harness):
    genome = harness.methods.genome
    rng = np.random.default_rng(0)
    genes, peaks = (
        pd.DataFrame(
            {"chrom": rng.choice(["chr1", "chr2", ""], n), "start": (start := rng.integers(0, 200_000, n)),
             "end": start + rng.integers(100, 9_000, n), "strand": rng.choice(["+", "-"], n)},
            index=[f"{what}{i}" for i in range(n)],
        )
        for what, n in (("gene", 40), ("peak", 300))
    )  # fmt: skip
    expected = np.zeros((40, 300))
    for i, g in enumerate(genes.itertuples()):
        start, end = (g.start - genome.PROMOTER, g.end) if g.strand == "+" else (g.start, g.end + genome.PROMOTER)
        for j, p in enumerate(peaks.itertuples()):
            expected[i, j] = g.chrom != "" and g.chrom == p.chrom and p.start < end and p.end > start
    np.testing.assert_array_equal(genome.genes_by_peaks(genes, peaks).toarray(), expected)
    assert expected.sum() > 50


def test_another_order_of_features_keeps_the_counts(harness, task_and_truth):
    task, _ = task_and_truth
    sums = {}
    for order in ("genome", "reversed", "shuffled"):
        changed = harness.variants.in_order(order)(task, 0)
        x = changed.train["atac"].X
        assert not {"chrom", "start"} & set(changed.train["atac"].var)
        sums[order] = np.asarray(x.sum(0)).ravel()
        np.testing.assert_array_equal(np.asarray(x.sum(1)), np.asarray(task.train["atac"].X.sum(1)))
    np.testing.assert_array_equal(sums["genome"], sums["reversed"][::-1])
    assert not np.array_equal(sums["genome"], sums["shuffled"])
    np.testing.assert_array_equal(np.sort(sums["genome"]), np.sort(sums["shuffled"]))


def test_variable_features_are_the_same_in_both_parts(harness, task_and_truth):
    task, _ = task_and_truth
    changed = harness.variants.most_variable(100)(task, 0)
    for key in ("rna", "atac"):
        assert changed.train[key].n_vars == 100
        assert list(changed.train[key].var_names) == list(changed.test[key].var_names)


def test_a_failed_method_is_kept_with_its_reason_and_tried_again(harness, dataset, tmp_path, monkeypatch, capsys):
    def fit(task, seed):
        raise ValueError("no")

    fails = harness.methods.Method("fails", "", fit, n_seeds=1)
    monkeypatch.setitem(harness.methods.METHODS, "fails", fails)
    monkeypatch.setattr(harness.runner, "CACHE", tmp_path / "cache")
    # in this process: a new one does not have the method, and takes long to import everything
    monkeypatch.setattr(harness.runner, "in_process", lambda function, *arguments: function(*arguments))
    results = tmp_path / "results.jsonl"
    for _ in range(2):
        harness.runner.run(results, [dataset], "harness.methods", ["fails"])
    assert capsys.readouterr().err.count("ValueError: no") == 2
    assert [line["failed"] for line in harness.runner.read(results)] == ["ValueError: no"]


def test_a_script_fits_what_is_missing_and_scores_again_what_is_kept(harness, dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(harness.sets.SETS, "tiny", dataset)
    monkeypatch.setattr(harness.runner, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(harness.runner, "in_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(harness.benchmarks_page, "write_page", lambda: None)
    results = tmp_path / "results.jsonl"

    def lines(option, score):
        track = harness.runner.Track(harness.sets.split, lambda embeddings, truth: {"score": score})
        chosen = ["--sets", "tiny", "--methods", "RNA PCA", *option]
        harness.fits.main("about", chosen, results, [], "harness.methods", track=track)
        return [(line["set"], line["scores"]["score"]) for line in harness.runner.read(results)]

    assert lines(["--page"], 0) == []
    assert lines([], 1) == [("tiny", 1)]
    assert lines([], 2) == [("tiny", 1)]
    assert lines(["--rescore"], 3) == [("tiny", 3)]
    assert lines(["--again"], 4) == [("tiny", 4)]


def test_a_line_takes_the_place_of_the_one_that_it_agrees_with(harness, tmp_path):
    results = tmp_path / "results.jsonl"
    for device, value in (("cpu", 1), ("cuda", 2), ("cpu", 3)):
        line = {"variant": "preset", "device": device, "scores": {"FOSCTTM": value}}
        harness.runner.keep(results, line, ("variant", "device"))
    assert [(line["device"], line["scores"]["FOSCTTM"]) for line in harness.runner.read(results)] == [
        ("cuda", 2),
        ("cpu", 3),
    ]


@pytest.mark.timeout(60)  # it would wait for an answer for ever
def test_a_process_that_ends_without_an_answer_is_named(harness):
    with pytest.raises(harness.process.ProcessEndedError, match="the process ended with code 3"):
        harness.process.in_process(os._exit, 3)


def test_a_method_that_does_not_fit_the_data_is_skipped_with_the_reason(harness, dataset):
    totalvi = harness.methods.METHODS["totalVI"]
    assert totalvi.missing(dataset, {"rna": "rna", "atac": "atac"}) == "made for protein + rna"
    needy = dataclasses.replace(totalvi, kinds=None, packages=("a_package_nobody_has",))
    assert "a_package_nobody_has" in needy.missing(dataset, {"rna": "rna", "atac": "atac"})


def test_a_method_that_is_limited_to_some_sets_runs_on_any_file_that_is_asked_for(harness, dataset, tmp_path):
    limited = harness.methods.METHODS["MLP"]
    assert limited.limit.reason == limited.missing(harness.sets.SETS["multiome_shallow"], {})
    assert limited.missing(harness.sets.SETS["bmmc_cite_5k"], {}) is None
    assert limited.missing(harness.sets.from_file(tmp_path / "mine.h5mu", None, None), {}) is None


def test_the_table_marks_the_best_of_each_score_and_keeps_every_method(harness):
    machine = {"threads": 1, "device": "x", "python": "3", "versions": {}}
    lines = [
        {"method": m, "set": "s", "seed": seed, "fit_s": 1.0, "fit_cpu_s": 1.0, "peak_mb": 10, "machine": machine,
         "scores": {"FOSCTTM": f + seed / 100, "kNN accuracy": a}}
        for m, f, a in (("good", 0.1, 0.7), ("bad", 0.4, 0.9))
        for seed in (0, 1)
    ]  # fmt: skip
    tables = harness.tables
    table = tables.table(tables.frame(lines), ("FOSCTTM", "kNN accuracy")).splitlines()
    assert "FOSCTTM ↓" in table[0]
    assert table[2].startswith("| good | 2 | **0.105** ± 0.007 | 0.700")
    assert table[3].startswith("| bad | 2 | 0.405 ± 0.007 | **0.900**")


def test_a_process_has_its_own_peak_of_memory_and_not_that_of_its_parent(harness):
    held = np.ones(40_000_000)  # 320 MB
    ours, its = harness.process.peak_rss(), harness.process.in_process(harness.process.peak_rss)
    assert its < held.nbytes < ours


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone sets its record of the peak back")
def test_the_peak_of_a_block_is_its_own(harness):
    use_for_an_instant(320_000_000)
    with harness.process.PeakRSS() as memory:
        use_for_an_instant(160_000_000)
    assert 150e6 < memory.raised < 250e6


def use_for_an_instant(n_bytes):
    """Memory of the system: an array may lie where earlier tests left memory to this process."""
    with mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        np.frombuffer(memory, np.uint8)[:] = 1


def test_gene_activity_is_the_counts_of_a_genes_peaks(harness, task_and_truth):
    task, _ = task_and_truth
    task = dataclasses.replace(task, train=task.train.copy())
    task.train["rna"].var["chrom"] = [
        "",
        *task.train["rna"].var["chrom"].astype(str)[1:],
    ]  # on no chromosome, so without peaks
    rna, atac = task.train["rna"], task.train["atac"]
    on_gene = harness.methods.genome.genes_by_peaks(rna.var, atac.var).toarray()
    used = on_gene.any(axis=1)
    counts = harness.methods.gene_activity.counts_on_genes(task)
    assert 0 < used.sum() < len(used)
    np.testing.assert_array_equal(counts["rna"][0].toarray(), rna.X.toarray()[:, used])
    np.testing.assert_array_equal(counts["atac"][0].toarray(), atac.X.toarray() @ on_gene[used].T)
    assert counts["atac"][1].shape == (task.test.n_obs, used.sum())


def test_cells_of_new_donors_are_those_of_their_batches(harness, dataset):
    some = dataset.load().obs["batch"].astype(str).iloc[0]
    task, truth = harness.sets.new_donors(dataclasses.replace(dataset, new_donors=(some,)))
    assert set(truth.batches[1]) == {some} and some not in truth.batches[0]
    assert task.train.n_obs + task.test.n_obs == dataset.load().n_obs


def test_scores_of_new_donors_count_what_is_named_rightly(harness):
    rng = np.random.default_rng(0)
    types = rng.integers(3, size=200)
    cells = 8 * np.eye(3)[types] + rng.normal(size=(200, 3))
    names = types.astype(str)
    truth = harness.sets.Truth((names[:150], names[150:]), None)
    found = harness.held_out_batches.score({"joint": (cells[:150], cells[150:])}, truth)
    assert found["kNN: accuracy"] == found["regression: accuracy"] == 1
    assert "kNN from RNA alone: accuracy" not in found
    shuffled = rng.permutation(cells[150:])
    found = harness.held_out_batches.score({"joint": (cells[:150], cells[150:]), "rna": (cells[:150], shuffled)}, truth)
    assert found["kNN from RNA alone: accuracy"] < 0.6
    assert set(found) <= set(harness.scores.SCORES)


def test_a_lineage_is_scored_by_the_order_of_its_stages(harness, task_and_truth):
    task, _ = task_and_truth
    stages = np.where(np.arange(task.train.n_obs) < 200, np.arange(task.train.n_obs) // 50, -1)
    lineage = harness.trajectory.Lineage.of(task, stages)
    assert stages[lineage.rows[lineage.root]] == 0 and len(lineage.rows) == 200
    rng = np.random.default_rng(0)
    line = np.c_[stages + rng.random(len(stages)), 0.01 * rng.random(len(stages))]
    both = {name: (line + 0.01 * rng.random(line.shape), None) for name in ("rna", "atac", "joint")}
    # whichever cell of the first stage is the root, later stages lie farther from it
    found = lineage.score(both)
    assert found["stage order"] > 0.9 and found["pseudotime consistency"] > 0.95
    assert found["cells reached"] == 1 and set(found) <= set(harness.scores.SCORES)
    shuffled = lineage.score({"joint": (rng.permutation(line), None)})
    assert abs(shuffled["stage order"]) < 0.4
    assert "pseudotime consistency" not in shuffled


def test_the_first_page_names_who_is_better(harness):
    def line(method, name, seed, value):
        scores = {"kNN accuracy": value, "recall@10": value, "FOSCTTM": 0.1, "other modality": 0.5}
        return {"method": method, "set": name, "seed": seed, "fit_s": 1.0, "scores": scores}

    held_out, all_cells = (
        harness.tables.frame([
            *(line("scmamba-scvi", "bmmc_cite_5k", seed, 0.80 + 0.01 * seed) for seed in (0, 1)), line("CCA", "bmmc_cite_5k", 0, cca),
        ])
        for cca in (0.5, 0.9)
    )  # fmt: skip
    text = harness.opening.section(held_out, all_cells)
    rows = [one for one in text if one.startswith("| ")]
    assert (
        len(rows) - 2 <= 8 + 1
        and rows[-1].startswith("| best of all others |")
        and len([one for one in text if one.startswith("![")]) == 1
    )


def test_a_set_says_who_is_better_in_what(harness):
    def results(cca):
        rows = [("scmamba-scvi", 0, 0.80), ("scmamba-scvi", 1, 0.81), ("CCA", 0, cca)]
        return pd.DataFrame(
            [
                {"method": m, "set": "bmmc_cite_5k", "seed": seed, "fit_s": 1.0, "kNN accuracy": value}
                for m, seed, value in rows
            ]
        )

    verdicts = harness.verdicts
    ahead, behind = (verdicts.compare(results(cca)) for cca in (0.9, 0.5))
    assert "| CCA | kNN accuracy (0.095) |" in verdicts.losses(ahead, "bmmc_cite_5k", ["CCA"])
    assert "| none |  |" in verdicts.losses(behind, "bmmc_cite_5k", ["CCA"])
    counted = verdicts.counts({"one": ahead, "other": behind}, ["CCA", "not fitted"])
    assert counted[2:] == ["| CCA | 0 | 0 | 1 | 1 | 0 | 0 |", ""]
