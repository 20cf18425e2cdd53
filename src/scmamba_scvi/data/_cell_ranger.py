"""What Cell Ranger writes: where its tables of counts lie, and how each form of them is read."""

import csv
import warnings
from pathlib import Path
from typing import Any, Final

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from .._compat import scanpy_module
from ..errors import ScmambaError

#: Names of the tables of counts. The ``.h5`` come first: they are read faster, and know the genome.
TABLES: Final = (
    "filtered_feature_bc_matrix.h5", "sample_filtered_feature_bc_matrix.h5", "filtered_gene_bc_matrices_h5.h5",
    "filtered_peak_bc_matrix.h5", "filtered_feature_bc_matrix", "sample_filtered_feature_bc_matrix", "filtered_peak_bc_matrix",
)  # fmt: skip
#: Tables of features beside a ``matrix.mtx``: of version 3, of version 2, which may be left beside it, and of Cell Ranger ATAC.
FEATURE_TABLES: Final = ("features.tsv", "genes.tsv", "peaks.bed")
#: Where tables of counts lie in a folder: ``outs`` of Count and ARC, a sample of Multi, its ``per_sample_outs``, its ``outs``.
PLACES: Final = ("", "count/", "*/count/", "per_sample_outs/*/count/")
#: Arrays of a genome in the ``.h5`` of Cell Ranger 2.
ARRAYS_OF_GENOME: Final = {"barcodes", "data", "gene_names", "genes", "indices", "indptr", "shape"}


def tables_in(folder: Path) -> list[Path]:
    """The table of counts in a folder of Cell Ranger, or one for each sample; empty for another folder."""
    for place in PLACES:
        found: dict[Path, Path] = {}
        for name in TABLES:
            for table in sorted(folder.glob(place + name)):
                found.setdefault(table.parent, table)
        if found:
            return list(found.values())
    return []


def only_table_in(folder: Path) -> Path | None:
    """The table of counts in a folder of Cell Ranger; `None` for another folder. A choice among samples is the user's."""
    found = tables_in(folder)
    if len(found) < 2:
        return found[0] if found else None
    samples = [table.parent.parent for table in found]
    raise ScmambaError(
        f"{folder} has {len(samples)} samples of Cell Ranger: {', '.join(sample.name for sample in samples)}. Pass the folder of "
        f"one, such as {samples[0]}. To integrate all, join them as the user guide does, under 'Several samples'."
    )


def genomes_of(file: Any) -> list[str]:
    """Genomes of an open ``.h5`` of Cell Ranger 2, which has a group for each; empty for another file."""
    return [name for name, part in file.items() if hasattr(part, "keys") and set(part) >= ARRAYS_OF_GENOME]


def read_h5(path: Path, genomes: list[str]) -> AnnData:
    """The ``.h5``; ``genomes`` are those of `genomes_of`."""
    if len(genomes) > 1:
        raise ScmambaError(
            f"{path} holds counts of several genomes, as Cell Ranger 2 writes them: {', '.join(genomes)}. Write those of one into "
            f"a file, scanpy.read_10x_h5({str(path)!r}, genome={genomes[0]!r}).write_h5ad('cells.h5ad')."
        )
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # names repeat; `parts_of` numbers them
        return scanpy_module().read_10x_h5(path, gex_only=False)


def holds_mtx(folder: Path) -> bool:
    """Whether a folder is the one of ``matrix.mtx.gz``."""
    return _existing(folder, "matrix.mtx") is not None


def read_mtx(folder: Path) -> AnnData:
    """The folder of ``matrix.mtx.gz``, each file compressed or not; ARC writes the place of a feature into the last columns."""
    matrix, barcodes, table = (
        _existing(folder, *names) for names in (("matrix.mtx",), ("barcodes.tsv",), FEATURE_TABLES)
    )
    if matrix is None or barcodes is None or table is None:
        lacking = "barcodes.tsv.gz" if barcodes is None else "features.tsv.gz"
        raise ScmambaError(f"{folder} has a matrix, and no {lacking} beside it: put it there.")
    x = sparse.csr_matrix(anndata.io.read_mtx(matrix).X.T)
    obs, var = _read_table(barcodes).set_index(0)[[]], _read_features(table)
    for file, rows, n in ((barcodes, len(obs), x.shape[0]), (table, len(var), x.shape[1])):
        if rows != n:
            raise ScmambaError(
                f"{file} has {rows:,} rows, and {matrix.name} beside it {n:,}: they are of different data. Put the three files "
                f"of one sample into a folder."
            )
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # names repeat; `parts_of` numbers them
        return AnnData(x, obs=obs.rename_axis(None), var=var)


def _existing(folder: Path, *names: str) -> Path | None:
    """The first of these files that is there, compressed or not."""
    forms = (folder / f"{name}{end}" for name in names for end in (".gz", ""))
    return next((file for file in forms if file.is_file()), None)


def _read_features(table: Path) -> pd.DataFrame:
    """``var`` of a table of features, whose names may repeat."""
    columns = _read_table(table)
    if table.name.startswith("peaks.bed"):
        columns = columns[~columns[0].str.startswith("#")]
        names = columns[0] + ":" + columns[1] + "-" + columns[2]
        columns = pd.DataFrame({0: names, 1: names, 2: "Peaks", 3: columns[0], 4: columns[1], 5: columns[2]})
    n = columns.shape[1]
    var = pd.DataFrame({"gene_ids": columns[0].to_numpy()}, index=columns[min(1, n - 1)].to_numpy())
    if n >= 3:
        var["feature_types"] = columns[2].to_numpy()
    if n >= 6:
        var["chrom"] = columns[3].to_numpy()
        for name, column in (("start", 4), ("end", 5)):
            var[name] = columns[column].replace("", "-1").astype(np.int64).to_numpy()
    return var


def _read_table(file: Path) -> pd.DataFrame:
    """A table without a header, as text: a gene may be called NA."""
    return pd.read_csv(file, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE)
