"""The pages in docs/ are what the scripts make of the stored results and of findings.md: nothing is written by hand."""

from __future__ import annotations

import pytest


def lines_of_benchmarks(load):
    page = load("harness.benchmarks_page")
    return page.PAGE, page.page_lines()


def lines_of_all_results(load):
    page = load("harness.benchmarks_page")
    return page.ALL_ROWS, page.row_lines()


def lines_after_integration(load):
    page = load("harness.after_page")
    return page.PAGE, page.page_lines(load("harness.paths").RESULTS)


def lines_of_performance(load):
    page = load("harness.performance_page")
    return page.PAGE, page.page_lines()


def lines_of_paper_preset(load):
    page = load("harness.paper_page")
    return page.PAGE, page.page_lines()


@pytest.mark.parametrize(
    "lines_of",
    [lines_of_benchmarks, lines_of_all_results, lines_after_integration, lines_of_performance, lines_of_paper_preset],
)
def test_a_page_is_what_the_results_give(load, lines_of):
    page, lines = lines_of(load)
    assert page.read_text().splitlines() == "\n".join(lines).splitlines(), (
        "write the page again with the script's --page"
    )
