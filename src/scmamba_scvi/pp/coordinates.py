"""Genome coordinates of features, read from the columns or the names of ``var``."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
import pandas as pd

from ..errors import ScmambaError

#: Columns by the tools that write them, the most usual first: BED and this package, UCSC, Bioconductor, BioMart. See
#: `find_column`.
CHROM_COLUMNS: Final = (
    "chrom", "chromosome", "seqnames", "seqname", "chromosome_name", "chromosome_scaffold_name", "chr",
)  # fmt: skip
START_COLUMNS: Final = ("start", "chromstart", "start_position", "gene_start_bp")
END_COLUMNS: Final = ("end", "chromend", "end_position", "gene_end_bp")
#: Where 10x writes ``chr1:100-200``.
INTERVAL_COLUMN: Final = "interval"

#: Text that stands for a missing value.
_MISSING: Final = frozenset({"", "na", "nan", "none", "null", "<na>", "."})
# at most 18 digits and commas: anything longer does not fit int64 and is no position
_NUMBER: Final = r"(\d[\d,]{0,17})"
#: The strands, as GTF files and as Ensembl's tables write them.
REVERSE: Final = ("-", "-1", "-1.0")
FORWARD: Final = ("+", "1", "1.0")
#: ``chr1:100-200``, with commas, with the strand that GRanges adds. Nothing else contains a colon and two numbers.
_INTERVAL: Final = re.compile(rf"(.+)(:){_NUMBER}-{_NUMBER}(?::[-+*.])?")
#: The same with any separator, as in names of peaks. The first group is greedy, so dashes of a chromosome stay in it.
_NAME: Final = re.compile(rf"(.+)([:_-]){_NUMBER}[_-]{_NUMBER}(?::[-+*.])?")
#: The second of two peaks of one name, as ``var_names_make_unique`` of AnnData writes it: ``chr1:100-200-1``.
_REPEATED: Final = re.compile(rf"(.+)([:_-]){_NUMBER}[_-]{_NUMBER}-\d{{1,2}}")
#: What is surely a chromosome and not the beginning of a gene's name: chr..., 1, 2L, X, MT, GL000194.1, NW_004190323.1
_CHROMOSOME: Final = re.compile(r"chr.+|\d{1,3}[a-z]?|[xyzwm]|mt|[a-z]{1,5}_?\d{5,}(\.\d+)?", re.IGNORECASE)
#: A chromosome behind the name of a modality or a genome, as in ``atac:chr1`` or ``GRCh38_chr1``.
_PREFIXED: Final = re.compile(r"(\w+:|\w+_(?=chr))(chr.+|[1-9]\d?|[xyzwm]|mt)", re.IGNORECASE)
#: Without a colon, gene names such as ``tRNA-Ala-AGC-2-15`` look like peaks, but no peak caller makes narrower ones.
_NARROWEST_PEAK: Final = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Coordinates:
    """Coordinates of ``f`` features; those that have none carry ``-1`` in every array but that of the strands."""

    chroms: tuple[str, ...]  # chromosomes in natural order, as the data spell them
    chrom: np.ndarray  # (f,) int64, index into chroms
    start: np.ndarray  # (f,) int64
    end: np.ndarray  # (f,) int64
    strand: np.ndarray  # (f,) int64: 1 forward, -1 reverse, 0 not known

    @property
    def placed(self) -> np.ndarray:
        """Features that have coordinates, bool ``(f,)``."""
        return self.chrom >= 0

    def names(self) -> np.ndarray:
        """Chromosome of each feature as text, ``""`` where there is none, object ``(f,)``."""
        return np.array([*self.chroms, ""], dtype=object)[self.chrom]

    def completed(self, other: "Coordinates") -> "Coordinates":
        """These coordinates, and where a feature has none, or no strand, those of ``other`` ``(f,)``."""
        placed, names = self.placed, np.where(self.placed, self.names(), other.names())
        start, end = np.where(placed, self.start, other.start), np.where(placed, self.end, other.end)
        return _coordinates(names, start, end, np.where(self.strand != 0, self.strand, other.strand))


def parse_coordinates(var: pd.DataFrame) -> Coordinates:
    """Coordinates of the features of ``var``.

    A feature's coordinates come from the first of these that has them: the columns ``chrom``, ``start``, ``end`` (or
    their other spellings, see `CHROM_COLUMNS`; without an ``end`` the start stands for both), the column ``interval``
    as 10x writes it, the feature's name (``chr1:100-200``, ``chr1-100-200``, ``chr1_100_200``). The strand comes from the
    column ``strand``.

    Chromosomes are the same with and without ``chr``, and ``chrM`` is ``MT``. An empty or ``NA`` chromosome, or a
    missing or negative start or end, means that the feature has no coordinates, which is never an error. Text that is no
    number or no interval, and an end before its start, are.
    """
    names = var.index.astype(str).to_numpy(dtype=object)
    chrom = np.full(len(var), "", dtype=object)
    start, end = np.full(len(var), -1), np.full(len(var), -1)
    for read in (_from_columns, _from_interval, _from_names):
        todo = np.flatnonzero(chrom == "")
        if not len(todo):
            break
        found = read(var if len(todo) == len(var) else var.iloc[todo], names[todo])
        if found is not None:
            _check_ends(*found[1:], names[todo])
            chrom[todo], start[todo], end[todo] = found
    return _coordinates(chrom, start, end, parse_strands(var))


def parse_strands(var: pd.DataFrame) -> np.ndarray:
    """Strand of each feature of ``var``, from its column ``strand``: int64 ``(f,)``, 1 forward, -1 reverse, 0 not known."""
    if "strand" not in var:
        return np.zeros(len(var), dtype=np.int64)
    text = var["strand"].astype(str)
    return text.isin(FORWARD).to_numpy(np.int64) - text.isin(REVERSE).to_numpy(np.int64)


def find_column(columns: Iterable[object], spellings: Sequence[str]) -> str | None:
    """The column with the most usual of ``spellings``, ignoring case and what stands between words; None if there is none."""
    names = [*map(str, columns)][::-1]  # of several, the first stays
    # of the columns Chrom and chrom, take chrom; BioMart writes Gene start (bp)
    spelled = {re.sub(r"[\W_]+", "_", name.lower()).strip("_"): name for name in names}
    spelled |= {name: name for name in names if name.islower()}
    return next((spelled[s] for s in spellings if s in spelled), None)


def chromosome_key(chrom: str) -> str:
    """Name that all spellings of a chromosome share: ``1`` for ``chr1`` and ``1``, ``M`` for ``chrM`` and ``MT``."""
    key = re.sub(r"^chr", "", chrom, flags=re.IGNORECASE) or chrom
    key = key.upper() if len(key) <= 2 else key  # chrx, 2l
    return "M" if key == "MT" else key


def natural_order(chrom: str) -> tuple:
    """Sort key: 1, 2, 2L, ..., 22, X, Y, M, then everything else with its numbers compared as numbers."""
    key = chromosome_key(chrom)
    numbered = re.fullmatch(r"(\d{1,3})([A-Za-z]?)", key)
    if numbered:
        return (0, int(numbered[1]), numbered[2])
    if key.upper() in ("X", "Y", "Z", "W", "M"):
        return (1, "XYZWM".index(key.upper()), key)
    # text and numbers alternate, so pieces at one position have one type and can be compared
    return (2, 0, "", tuple(int(p) if i % 2 else p for i, p in enumerate(re.split(r"(\d+)", key))), key)


def _coordinates(names: np.ndarray, start: np.ndarray, end: np.ndarray, strand: np.ndarray) -> Coordinates:
    """Coordinates from the chromosome of each feature as text, ``""`` where there is none."""
    code, spellings = pd.factorize(names, sort=False)
    chroms, code_of = _number_chromosomes(spellings)
    return Coordinates(chroms, code_of[code], start, end, strand)


def _number_chromosomes(spellings: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Chromosomes in natural order, and for each spelling its position among them, ``-1`` for the empty one."""
    spelled: dict[str, list[str]] = {}
    for chrom in spellings:
        if chrom:
            spelled.setdefault(chromosome_key(chrom), []).append(chrom)
    keys = sorted(spelled, key=natural_order)
    position = {key: i for i, key in enumerate(keys)}
    # of several spellings take the longest, chr1 rather than 1, so that the order of the features does not matter
    chroms = tuple(max(spelled[key], key=lambda s: (len(s), s)) for key in keys)
    return chroms, np.array([position[chromosome_key(c)] if c else -1 for c in spellings], dtype=np.int64)


Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # chromosome ("" where there is none), start, end


def _from_columns(var: pd.DataFrame, names: np.ndarray) -> Found | None:
    in_chrom, in_start, in_end = (find_column(var, s) for s in (CHROM_COLUMNS, START_COLUMNS, END_COLUMNS))
    if in_chrom is None or in_start is None:
        return None
    chrom = _as_text(var[in_chrom])
    start = _as_position(var[in_start], names, in_start)
    end = start if in_end is None else _as_position(var[in_end], names, in_end)
    missing = (chrom == "") | (start < 0) | (end < 0)
    return np.where(missing, "", chrom), np.where(missing, -1, start), np.where(missing, -1, end)


def _from_interval(var: pd.DataFrame, names: np.ndarray) -> Found | None:
    column = find_column(var, (INTERVAL_COLUMN,))
    if column is None:
        return None
    text = _as_text(var[column])
    chrom, start, end, matched = _match(_INTERVAL, text)
    wrong = ~matched & (text != "")
    if wrong.any():
        examples = _examples(names, wrong, lambda i: repr(text[i]))
        raise ScmambaError(
            f"{wrong.sum():,} of {len(text):,} entries of var[{column!r}] are not intervals: {examples}. "
            f"Expected text such as 'chr1:100-200'; write 'NA' where a feature has no coordinates."
        )
    return chrom, start, end


def _from_names(var: pd.DataFrame, names: np.ndarray) -> Found | None:
    chrom, start, end, matched = _match(_NAME, names)
    before = {name: _PREFIXED.fullmatch(name) for name in set(chrom[matched])}
    if len({match and match[1] for match in before.values()}) == 1:  # several prefixes are several genomes
        chrom = np.array([match[2] if (match := before.get(name)) else name for name in chrom], dtype=object)
    return chrom, start, end


def _match(pattern: re.Pattern[str], text: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Chromosome, start and end of each text, and whether the pattern fits it."""
    # a plain loop: str.extract of pandas takes three times as long on a million peaks
    chrom, start, end = [""] * len(text), [-1] * len(text), [-1] * len(text)
    for i, name in enumerate(text):
        match = pattern.fullmatch(name)
        if match is None:
            continue
        before, separator, first, last = _parts(match)
        if last < first and (match := _REPEATED.fullmatch(name)):
            before, separator, first, last = _parts(match)
        if separator == ":" or last - first >= _NARROWEST_PEAK or _CHROMOSOME.fullmatch(before):
            chrom[i], start[i], end[i] = before, first, last
    found = np.array(chrom, dtype=object)
    return found, np.array(start, dtype=np.int64), np.array(end, dtype=np.int64), found != ""


def _parts(match: re.Match[str]) -> tuple[str, str, int, int]:
    before, separator, first, last = match.groups()
    return before, separator, int(first.replace(",", "")), int(last.replace(",", ""))


def _as_text(column: pd.Series) -> np.ndarray:
    """Entries as text without surrounding blanks, ``""`` for missing ones; object ``(f,)``."""
    # a column of chromosomes has few different values: each is converted once
    code, values = pd.factorize(column.astype(object), use_na_sentinel=True)
    text = [str(value).strip() for value in values]
    # pandas turns a column of numbered chromosomes with a missing one into 1.0, 2.0, ...
    text = [re.sub(r"\.0$", "", t) if isinstance(v, float) else t for t, v in zip(text, values, strict=True)]
    return np.array(["" if t.lower() in _MISSING else t for t in text] + [""], dtype=object)[code]


def _as_position(column: pd.Series, names: np.ndarray, label: str) -> np.ndarray:
    """Entries as int64 ``(f,)``, ``-1`` for missing and negative ones."""
    if column.dtype.kind in "iu" and isinstance(column.dtype, np.dtype):
        return np.maximum(column.to_numpy(dtype=np.int64), -1)
    values = column.astype(object)
    number = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~np.isfinite(number) & np.array([str(v).strip().lower() not in _MISSING for v in values], dtype=bool)
    if wrong.any():
        examples = _examples(names, wrong, lambda i: repr(values.iloc[i]))
        raise ScmambaError(
            f"{wrong.sum():,} of {len(column):,} entries of var[{label!r}] are not positions: {examples}. "
            f"Expected whole numbers; leave the entry empty or write -1 where a feature has no coordinates."
        )
    return np.where(number >= 0, number, -1).astype(np.int64)


def _check_ends(start: np.ndarray, end: np.ndarray, names: np.ndarray) -> None:
    wrong = end < start
    if wrong.any():
        examples = _examples(names, wrong, lambda i: f"{start[i]:,}-{end[i]:,}")
        raise ScmambaError(
            f"{wrong.sum():,} of {len(names):,} features end before they start: {examples}. "
            f"Swap start and end, or leave the chromosome empty where the coordinates are not known."
        )


def _examples(names: np.ndarray, wrong: np.ndarray, show: Callable[[int], str]) -> str:
    first = np.flatnonzero(wrong)[:3]
    return ", ".join(f"{names[i]} ({show(i)})" for i in first) + (", ..." if wrong.sum() > len(first) else "")
