"""Where things lie in the repository."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
#: Results of files that only the user has: not tracked, and on no page.
LOCAL_RESULTS = RESULTS / "local"
#: What the numbers mean in words, a section per page; the rest of a page is written from the results.
FINDINGS = ROOT / "benchmarks" / "findings.md"
DOCS = ROOT / "docs"
FIGURES = DOCS / "_static"
