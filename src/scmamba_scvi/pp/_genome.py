"""Coordinates of genes, from an annotation of the genome."""

import gzip
import itertools
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from .._compat import explained, warn
from .._files import check_is_file
from .._keys import kind_of_key
from ..errors import ScmambaError, UnknownNameError, written
from .builds import SPELLINGS
from .coordinates import (
    CHROM_COLUMNS,
    END_COLUMNS,
    FORWARD,
    REVERSE,
    START_COLUMNS,
    Coordinates,
    find_column,
    natural_order,
    parse_coordinates,
)

logger = logging.getLogger(__name__)

#: Columns with identifiers and with names of genes, in tables and in ``var``, the most usual first.
ID_COLUMNS: Final = (
    "gene_ids", "gene_id", "ensembl_id", "ensembl_gene_id", "gene_stable_id", "ensembl", "feature_id",
)  # fmt: skip
NAME_COLUMNS: Final = (
    "gene_name", "gene_symbol", "gene_symbols", "symbol", "external_gene_name", "hgnc_symbol", "feature_name", "gene",
)  # fmt: skip
#: How tables are separated; everything else is read as GTF.
TABLE_SUFFIXES: Final = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
#: Third column of genes. Ensembl's GFF3 calls only those of proteins ``gene``.
GENE_RECORDS: Final = ("gene", "ncRNA_gene", "pseudogene")
#: Ensembl puts a version behind its identifiers, and GENCODE marks the copy of a gene on the Y chromosome.
_VERSION: Final = re.compile(r"^(ENS[A-Z]*\d{11})(\.\d+)?(_PAR_Y)?$")
#: The genome that 10x writes before the genes of a reference with several: ``GRCh38_GAPDH``, ``mm10___Gapdh``.
_GENOME: Final = re.compile(rf"({'|'.join(itertools.chain(*SPELLINGS.values()))})_+", re.IGNORECASE)
#: The modality that MuData writes before all names where two modalities share one: ``rna:CD4``, ``protein:CD4``.
_MODALITY: Final = re.compile(r"\w+:")


def annotate_genome(
    data: MuData | AnnData,
    gtf: str | os.PathLike[str] | pd.DataFrame,
    *,
    modality: str | None = None,
    overwrite: bool = False,
) -> pd.Series:
    """Write coordinates of genes into ``var``, so that they can be laid out along the genome.

    A gene is looked up by its Ensembl id without version, then by its name, then by its name ignoring case; of several
    loci the first is taken, chromosomes before unplaced contigs. Genes that are not found are kept, with an empty ``chrom``
    and ``-1`` for ``start`` and ``end``; they get patches of their own.

    Parameters
    ----------
    data
        MuData or AnnData. Ids are taken from ``gene_ids`` or the like and from the names of the features, names from
        the names of the features and from ``gene_name`` or the like.
    gtf
        GTF or GFF3 file with ``gene`` records, plain or gzipped, as GENCODE, Ensembl and 10x distribute it; or a table,
        as DataFrame or ``.csv``, ``.tsv``, ``.txt`` file (also gzipped), with columns ``gene_name`` and/or ``gene_id``,
        ``chrom``, ``start``, ``end`` and if known ``strand``, or with those of BioMart (``Gene start (bp)``).
    modality
        Key of the genes in a MuData; None finds it by key (``rna``, ``gex``, ``expression``) or by
        ``var["feature_types"]``.
    overwrite
        Replace the coordinates of features that have some already, in columns, in ``interval`` or in their names.

    Returns
    -------
    How many genes there are (``n_features``), have coordinates now (``n_placed``), had them before (``n_kept``), and were
    found by id (``n_by_id``) or name (``n_by_name``), of which the annotation places ``n_ambiguous`` at several loci.
    Written are the columns ``chrom``, ``start``, ``end`` of ``var`` (0-based and half-open like peaks, if they come from a
    GTF), and ``strand`` if the annotation has it.

    Raises
    ------
    ScmambaError
        The file is missing or holds no genes, the MuData has no modality of genes, or nothing matches.

    Examples
    --------
    >>> var = pd.DataFrame(index=["CD4", "CD19"])
    >>> rna = anndata.AnnData(np.ones((2, 2)), var=var)
    >>> cd4 = {"chrom": "chr12", "start": 6_786_857, "end": 6_820_799}
    >>> genes = pd.DataFrame([{"gene_name": "CD4", **cd4}])
    >>> counts = pp.annotate_genome(rna, genes)
    >>> int(counts["n_placed"]), rna.var["chrom"].tolist()
    (1, ['chr12', ''])
    """
    adata = _genes_of(data, modality)
    loci = _read_annotation(gtf)
    before = parse_coordinates(adata.var)
    todo = np.ones(adata.n_vars, dtype=bool) if overwrite else ~before.placed
    found, (n_by_id, n_as_written, n_in_other_case), n_ambiguous = _look_up(adata.var, loci, todo)
    n_by_name = n_as_written + n_in_other_case
    n_kept = int((before.placed & (found < 0)).sum())
    coverage = pd.Series({
        "n_features": adata.n_vars, "n_placed": n_kept + n_by_id + n_by_name, "n_kept": n_kept, "n_by_id": n_by_id,
        "n_by_name": n_by_name, "n_ambiguous": n_ambiguous,
    })  # fmt: skip
    if not coverage.n_placed:
        raise ScmambaError(
            f"No gene matches: the data have {_examples(adata.var_names)}, the annotation has "
            f"{_examples(loci['name'])} with ids {_examples(loci['id'])}. Are both of the same species, with gene names or ids?"
        )
    if n_in_other_case > n_by_id + n_as_written:
        warn(
            f"{n_in_other_case:,} of {adata.n_vars:,} genes were found only by ignoring case: the data have "
            f"{_examples(adata.var_names)}, the annotation has {_examples(loci['name'])}. Genes of mouse and human differ so. "
            f"If the annotation is of another species, the coordinates are wrong: annotate again with one of the data's species, "
            f"{written('gtf', ...)} and {written('overwrite', True)}."
        )
    _write(adata.var, before, loci, found)
    several = f"; {n_ambiguous:,} lie at several loci, the first was taken" if n_ambiguous else ""
    logger.info(
        f"{coverage.n_placed:,} of {adata.n_vars:,} genes have coordinates: {n_by_id:,} by id, {n_by_name:,} by name, "
        f"{n_kept:,} had them{several}."
    )
    return coverage


def _genes_of(data: MuData | AnnData, modality: str | None) -> AnnData:
    if not hasattr(data, "mod"):
        if modality is not None:
            raise ScmambaError(f"modality={modality!r} is for a MuData; an AnnData has no modalities, leave it out.")
        return data
    if modality is not None:
        if modality not in data.mod:
            raise UnknownNameError("modality", modality, data.mod)
        return data.mod[modality]
    found = [key for key in data.mod if kind_of_key(key) == "rna"]
    if not found:
        found = [key for key, mod in data.mod.items() if {*mod.var.get("feature_types", ())} == {"Gene Expression"}]
    if len(found) != 1:
        raise ScmambaError(
            f"{'No' if not found else 'More than one'} modality of {list(data.mod)} looks like gene expression: "
            f"name it, {written('modality', ...)}."
        )
    return data.mod[found[0]]


def _read_annotation(source: str | os.PathLike[str] | pd.DataFrame) -> pd.DataFrame:
    """Loci with columns id, name, chrom, start, end, strand (``""`` where unknown), the preferred ones first."""
    if isinstance(source, pd.DataFrame):
        loci = _loci_of_table(source, "the table")
    else:
        path = Path(source)
        check_is_file(path, "gtf")
        suffixes = [s.lower() for s in path.suffixes if s.lower() != ".gz"]
        separator = TABLE_SUFFIXES.get(suffixes[-1]) if suffixes else None
        if separator is None:
            loci = _loci_of_gtf(path)
        else:
            loci = _loci_of_table(_table_of(path, separator), str(path))
    rank = {chrom: i for i, chrom in enumerate(sorted(loci["chrom"].unique(), key=natural_order))}
    order = np.lexsort((loci["end"], loci["start"], loci["chrom"].map(rank)))
    return loci.iloc[order].reset_index(drop=True)


def _table_of(path: Path, separator: str) -> pd.DataFrame:
    with explained(f"{path} cannot be read as a table of genes, UTF-8 text, plain or gzipped"):
        # Excel writes a mark before the first name
        return pd.read_csv(path, sep=separator, dtype={"strand": str}, low_memory=False, encoding="utf-8-sig")


def _loci_of_table(table: pd.DataFrame, what: str) -> pd.DataFrame:
    columns = {
        part: find_column(table, spellings)
        for part, spellings in {
            "id": ID_COLUMNS, "name": NAME_COLUMNS, "chrom": CHROM_COLUMNS, "start": START_COLUMNS, "end": END_COLUMNS,
            "strand": ("strand",),
        }.items()
    }  # fmt: skip
    if columns["name"] is None and pd.api.types.is_string_dtype(table.index):
        table = table.assign(gene_name=table.index)
        columns["name"] = "gene_name"
    lacking = [part for part in ("chrom", "start", "end") if columns[part] is None]
    if lacking or (columns["id"] is None and columns["name"] is None):
        raise ScmambaError(
            f"{what} must have columns gene_name and/or gene_id, chrom, start and end; it has "
            f"{', '.join(map(repr, table.columns[:10]))}."
        )
    text = {part: _text(table, columns[part]) for part in ("id", "name", "strand")}
    reverse, forward = np.isin(text["strand"], REVERSE), np.isin(text["strand"], FORWARD)
    text["strand"][reverse], text["strand"][forward] = "-", "+"
    index = text["id"] if columns["name"] is None else text["name"]  # errors quote it
    where = parse_coordinates(table[[columns[part] for part in ("chrom", "start", "end")]].set_axis(index, axis=0))
    loci = pd.DataFrame({**text, "chrom": where.names(), "start": where.start, "end": where.end})
    return loci[where.placed]


def _text(table: pd.DataFrame, column: str | None) -> np.ndarray:
    """Entries of a column as text, ``""`` where they or the column are missing."""
    if column is None:
        return np.full(len(table), "", dtype=object)
    return table[column].astype(object).where(table[column].notna(), "").astype(str).to_numpy(dtype=object)


def _loci_of_gtf(path: Path) -> pd.DataFrame:
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rt", encoding="utf-8-sig") if zipped else open(path, encoding="utf-8-sig") as lines:
        loci = pd.DataFrame(_gene_records(lines, path), columns=["id", "name", "chrom", "start", "end", "strand"])
    if loci.empty:
        raise ScmambaError(
            f"{path} has no 'gene' records. GTF files of GENCODE, Ensembl and 10x have them; from other sources make a "
            f"table with the columns gene_name, chrom, start, end."
        )
    return loci


def _gene_records(lines: Iterator[str], path: Path) -> Iterator[tuple[str, str, str, int, int, str]]:
    # line by line, so that three million lines of exons are not held to find sixty thousand genes
    with explained(f"{path} cannot be read as text, plain or gzipped"):
        for number, line in enumerate(lines, start=1):
            if line.startswith("#") or not line.strip():
                continue
            fields = line.rstrip("\n").split("\t")
            if len(fields) != 9 or not (fields[3].isdigit() and fields[4].isdigit()):
                raise ScmambaError(
                    f"{path} is not a GTF file: line {number} does not have nine columns with numbers in the fourth and "
                    f"fifth ({line[:60]!r}). The name of a table must end in {', '.join(TABLE_SUFFIXES)}."
                )
            if fields[2] in GENE_RECORDS:
                attributes = fields[8]
                name = _attribute(attributes, "gene_name", "Name", "gene")
                # GTF counts from 1 and includes the end
                start, end = int(fields[3]) - 1, int(fields[4])
                yield _attribute(attributes, "gene_id", "ID"), name, fields[0], start, end, fields[6]


def _attribute(attributes: str, *names: str) -> str:
    """Value of the first attribute present: ``gene_id "x";`` in GTF, ``ID=gene:x;`` in GFF3."""
    for name in names:
        if match := re.search(rf'(?:^|;)\s*{name}[ =]"?([^";]+)', attributes):
            return match[1].removeprefix("gene:").strip()
    return ""


def _look_up(var: pd.DataFrame, loci: pd.DataFrame, todo: np.ndarray) -> tuple[np.ndarray, list[int], int]:
    """Row of ``loci`` of each feature that is ``todo`` ``(f,)``, -1 for none; how many were found, and how many at several.

    The former are three numbers: found by id, by name, and by name only if case is ignored.
    """
    var_ids, var_symbols = (_text(var, find_column(var, columns)) for columns in (ID_COLUMNS, NAME_COLUMNS))
    names = var.index.astype(str).to_numpy(dtype=object)
    var_ids, var_symbols, names = map(_without_prefix, (var_ids, var_symbols, names))
    # keys of the features, column of the annotation, and how both are spelled for the comparison
    steps: list[tuple[list[np.ndarray], str, Callable[[str], str]]] = [
        ([var_ids, names], "id", lambda key: _VERSION.sub(r"\1", key)),
        ([names, var_symbols], "name", str),
        ([names, var_symbols], "name", str.casefold),
    ]
    found, n_found, n_ambiguous = np.full(len(var), -1), [], 0
    for keys, column, normalize in steps:
        places = loci.assign(key=loci[column].map(normalize)).drop_duplicates(["key", "chrom", "start", "end"])
        places = places[places["key"] != ""]
        first = places.drop_duplicates("key")
        row_of = dict(zip(first["key"], first.index, strict=True))
        several = set(places.loc[places["key"].duplicated(), "key"])
        before = (found >= 0).sum()
        for key_of in keys:
            asked = np.flatnonzero(todo & (found < 0))
            spelled = [normalize(key) for key in key_of[asked]]
            found[asked] = [row_of.get(key, -1) for key in spelled]
            n_ambiguous += sum(key in several for key in spelled)
        n_found.append(int((found >= 0).sum() - before))
    return found, n_found, n_ambiguous


def _without_prefix(names: np.ndarray) -> np.ndarray:
    """Names without the modality before all of them, and without the genome, if it is one: genes of several species differ."""
    modality = _MODALITY.match(names[0]) if len(names) else None
    if modality and all(name.startswith(modality[0]) for name in names):
        names = np.array([name.removeprefix(modality[0]) for name in names], dtype=object)
    genomes = {match[0] for name in names if (match := _GENOME.match(name))}
    return np.array([name.removeprefix(*genomes) for name in names], dtype=object) if len(genomes) == 1 else names


def _write(var: pd.DataFrame, before: Coordinates, loci: pd.DataFrame, found: np.ndarray) -> None:
    """Coordinates of the loci found, and for the other features those they had before."""
    hit = found >= 0
    chrom, start, end = before.names(), before.start.copy(), before.end.copy()
    for values, column in ((chrom, "chrom"), (start, "start"), (end, "end")):
        values[hit] = loci[column].to_numpy()[found[hit]]
    if loci["strand"].isin(["+", "-"]).any():
        strand = _text(var, "strand" if "strand" in var else None)
        strand[hit] = loci["strand"].to_numpy()[found[hit]]
        var["strand"] = pd.Categorical(strand)
    var["chrom"], var["start"], var["end"] = pd.Categorical(chrom), start, end


def _examples(values: pd.Series | pd.Index) -> str:
    return ", ".join(repr(v) for v in [v for v in values if v][:3]) or "none"
