"""Pieces that the pages share: lines of tables, the machine, and the words of findings.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd

from .paths import FINDINGS


def row(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def header(heads: Sequence[str], *, n_left: int = 1) -> list[str]:
    """The two lines on top of a table; columns after the first ``n_left`` are aligned to the right, as numbers are."""
    return [row(heads), row(["---"] * n_left + ["--:"] * (len(heads) - n_left))]


def mean_and_spread(values: pd.Series, *, bold: bool = False) -> str:
    """Mean over the seeds that have the score, and the standard deviation where there are several."""
    values = values.dropna()
    if not len(values):
        return "–"
    mean = f"**{values.mean():.3f}**" if bold else f"{values.mean():.3f}"
    return f"{mean} ± {values.std():.3f}" if len(values) > 1 else mean


def machines(found: Iterable[dict]) -> list[str]:
    """What the numbers were measured with: each machine with the number of its results, and all packages that these had."""
    counts: Counter[str] = Counter()
    packages: dict[str, dict[str, None]] = {}
    for m in found:
        name = f"{m['device']}, {m['threads']} {'thread' if m['threads'] == 1 else 'threads'}, Python {m['python']}"
        counts[name] += 1
        packages.setdefault(name, {}).update(dict.fromkeys(f"{package} {v}" for package, v in m["versions"].items()))
    return [
        "## Machine",
        "",
        *(f"- {n} results: {name}, {', '.join(packages[name])}." for name, n in counts.items()),
        "",
    ]


def read_findings() -> dict[str, str]:
    """Sections of findings.md by their heading."""
    parts = re.split(r"^# (\w+)\n", FINDINGS.read_text(), flags=re.MULTILINE)[1:]
    return {heading: text.strip() for heading, text in zip(parts[::2], parts[1::2], strict=True)}
