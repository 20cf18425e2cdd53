"""The pages in docs/ are what the scripts make of the stored results and of findings.md: nothing is written by hand."""

from __future__ import annotations

import re

import pytest


def pages_of_benchmarks(load):
    return load("harness.benchmarks_page").pages()


def page_after_integration(load):
    page = load("harness.after_page")
    return {page.PAGE: page.page_lines(load("harness.paths").RESULTS)}


def page_of_performance(load):
    page = load("harness.performance_page")
    return {page.PAGE: page.page_lines()}


def page_of_paper_preset(load):
    page = load("harness.paper_page")
    return {page.PAGE: page.page_lines()}


@pytest.mark.parametrize(
    "written", [pages_of_benchmarks, page_after_integration, page_of_performance, page_of_paper_preset]
)
def test_a_page_is_what_the_results_give(load, written):
    for page, lines in written(load).items():
        assert page.read_text().splitlines() == "\n".join(lines).splitlines(), (
            f"write {page.name} again with the script's --page"
        )


#: Rows of the guide's table of batches: where their scores are stored, and with how many digits they are shown.
OF_BATCHES = {
    "batch mixing": ("all_cells", "batch mixing", 2),
    "ARI of clusters and cell types": ("all_cells", "ARI", 2),
    "kNN accuracy": ("all_cells", "kNN accuracy", 3),
    "kNN accuracy, neighbours of other batches alone": ("all_cells", "kNN, other batches", 3),
    "kNN accuracy, cells of new donors": ("held_out_batches", "kNN: accuracy", 3),
}


@pytest.mark.parametrize("name", OF_BATCHES)
def test_the_guide_says_what_was_measured_with_and_without_a_batch_key(load, name):
    track, score, digits = OF_BATCHES[name]
    page = load("harness.benchmarks_page")
    means = page._read(track).groupby(["set", "method"])[score].mean()
    methods = ("scmamba-scvi", "scmamba-scvi, no batch_key")
    expected = [f"{means[s, m]:.{digits}f}" for s in ("bmmc_multiome_5k", "bmmc_cite_5k") for m in methods]
    row = re.search(rf"^\| {name} \| (.*\|.*\|.*\|.*) \|$", (page.DOCS / "guide.md").read_text(), flags=re.MULTILINE)
    assert [cell.strip(" *") for cell in row.group(1).split("|")] == expected


def test_every_score_of_every_method_is_on_a_page_whoever_is_better(load):
    page, known = load("harness.benchmarks_page"), load("harness.scores").SCORES
    text = "\n".join(line for lines in page.pages().values() for line in lines)
    numbers = {}
    for method, cells in re.findall(r"^\| (.+?) \| (.*)$", text, flags=re.MULTILINE):
        numbers.setdefault(method, set()).update(re.findall(r"\d\.\d{3}", cells))
    for track in ("quality", "all_cells", "trajectory", "held_out_batches"):
        results = page._read(track)
        scores = [score for score in known if score in results]
        means = results[results["fit_s"].notna()].groupby(["set", "method"])[scores].mean()
        for (_, method), of_method in means.iterrows():
            assert {f"{mean:.3f}" for mean in of_method.dropna()} <= numbers[method]
